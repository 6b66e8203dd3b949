//! The receiver: wires the store, the API, the servers, and the maintenance of the store.

mod maintenance;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::alerts::{self, Alerts};
use crate::api::{Api, Role};
use crate::archive::{self, Archives};
use crate::auth::{self, Authorizer, ReadAccess};
use crate::clock::ReceiverClock;
#[cfg(feature = "builtin")]
use crate::http;
use crate::ingest::Ingest;
use crate::listeners::{self, MessageListeners};
use crate::metrics;
use crate::server::Server;
use crate::stats::Stats;
use crate::store::{KeepOptions, Limits, Location, Store};
use maintenance::Maintenance;

/// Longest time that a stop waits for open requests.
const STOP_WITHIN: Duration = Duration::from_secs(4);

/// Options of `lizm receiver`.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address to listen on.
    pub bind: IpAddr,
    /// Port to listen on; 0 picks one.
    pub port: u16,
    /// Whether to serve HTTP, on `port`.
    pub plain: bool,
    /// The server that serves HTTP. HTTPS is always served by the builtin one.
    pub http_server: HttpServer,
    /// The builtin server.
    #[cfg(feature = "builtin")]
    pub builtin: http::Options,
    /// Proxies that name their clients by `X-Forwarded-For`. The builtin server limits connections from others.
    pub trusted_proxies: Vec<IpAddr>,
    /// HTTPS.
    #[cfg(feature = "tls")]
    pub https: Option<http::HttpsOptions>,
    /// Who may submit and who may read.
    pub auth: auth::Options,
    /// Threads that answer requests.
    pub workers: usize,
    /// Most series in all and of one host.
    pub limits: Limits,
    /// Where the store keeps its data.
    pub store: Location,
    /// What it keeps.
    pub keep: KeepOptions,
    /// Most hosts with values in `/metrics`.
    pub metrics_hosts_max: usize,
    /// The routes to serve.
    pub role: Role,
    /// The UDP and ZeroMQ listeners.
    pub listeners: listeners::Options,
    /// The rules of alerts.
    pub alerts: alerts::Options,
    /// The archives.
    pub archive: archive::Options,
}

/// A server that can serve HTTP without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpServer {
    /// tiny_http, for trusted networks.
    #[default]
    TinyHttp,
    /// The builtin server.
    #[cfg(feature = "builtin")]
    Builtin,
}

/// A receiver that runs until it is stopped.
pub struct Receiver {
    server: Option<Server>,
    #[cfg(feature = "builtin")]
    builtin: Option<http::Server>,
    listeners: MessageListeners,
    api: Arc<Api>,
    store: Arc<Store>,
    stats: Arc<Stats>,
    alerts: Option<(Arc<Alerts>, JoinHandle<()>)>,
    archives: Option<(Arc<Archives>, Vec<JoinHandle<()>>)>,
    stop_maintenance: mpsc::Sender<()>,
    maintenance: JoinHandle<()>,
}

impl Receiver {
    /// Opens the store and the servers. The receiver serves when this returns.
    ///
    /// # Errors
    /// When the store cannot be opened, a file cannot be used, or an address cannot be listened on. The message names it.
    pub fn start(options: &Options) -> io::Result<Self> {
        let directory = options.store.directory().map(ToOwned::to_owned);
        let clock = Arc::new(ReceiverClock::start(directory.as_deref()));
        let store = Store::open_to_keep(&options.store, options.limits, &options.keep, clock.now_sec());
        let store = store.map_err(io::Error::other)?;
        if options.store.is_shared() {
            clock.await_follow();
        } else if store.series_count() == 0 {
            clock.update(false);
        }
        if let Some(directory) = directory.as_deref().filter(|directory| !ReceiverClock::has_mark(directory)) {
            // Before the first sample, which a kill may follow. The maintenance logs what fails.
            let _ = clock.write_mark(directory);
        }
        let (store, stats) = (Arc::new(store), Arc::new(Stats::default()));
        let authorizer = Authorizer::from_options(&options.auth).map_err(io::Error::other)?;
        let read_access = ReadAccess::from_options(&options.auth).map_err(io::Error::other)?;
        let exposure = exposure(options, authorizer.allows_all(), read_access.allows_all());
        let has_tokens = !authorizer.allows_all();
        let ingest = Arc::new(Ingest::new(store.clone(), authorizer, stats.clone()).with_clock(clock.clone()));
        if has_tokens && let Err(error) = ingest.joins().reload() {
            // A shared store may come later than this process.
            if !options.store.is_shared() {
                return Err(io::Error::other(error.to_string()));
            }
        }
        // Of receivers that share a store, those that serve summaries have the hosts' values in /metrics.
        let hosts_max = if options.role == Role::Intake { 0 } else { options.metrics_hosts_max };
        let metrics = metrics::Options { hosts_max, store_kind: options.store.kind() };
        let judges = !options.alerts.is_empty();
        let alerts = judges.then(|| Alerts::start(&options.alerts, store.clone(), clock.clone())).transpose()?;
        let archives = !options.archive.targets.is_empty();
        let archives = archives.then(|| Archives::start(&options.archive, &store, &clock)).transpose()?;
        let api = Api::new(ingest.clone(), read_access)
            .with_archives(archives.as_ref().map(|(archives, _)| archives.clone()))
            .with_alerts(alerts.as_ref().map(|(alerts, _)| alerts.clone()))
            .allowing_hosts(&options.auth.allowed_hosts)
            .trusting_proxies(&options.trusted_proxies)
            .with_metrics(metrics)
            .open_to_anyone(!exposure.is_empty() && !has_tokens)
            .serving(options.role);
        let api = Arc::new(api);
        // The servers start last: a failure to open another socket must not end a process that has answered requests.
        let listeners = MessageListeners::open(&options.listeners, &ingest)?;
        #[cfg(feature = "builtin")]
        let builtin = start_builtin(options, &api)?;
        let address = SocketAddr::new(options.bind, options.port);
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
        let server = match options.http_server {
            HttpServer::TinyHttp if options.plain => {
                Some(Server::open(address, options.workers, &api).map_err(failed)?)
            }
            _ => None,
        };
        if let Some(server) = &server {
            log::info!("Receiver is listening on http://{}", server.address());
        }
        #[cfg(feature = "builtin")]
        for (scheme, address) in builtin.iter().flat_map(http::Server::addresses) {
            log::info!("Receiver is listening on {scheme}://{address}");
        }
        listeners.descriptions().iter().for_each(|socket| log::info!("Receiver is listening on {socket}"));
        log::info!("{}", store.description());
        if has_tokens && !store.is_durable() {
            log::info!("Store is memory, which forgets who has joined and who is shut out when the receiver stops");
        }
        alerts.iter().for_each(|(alerts, _)| log::info!("{}", alerts.description()));
        if let Some((archives, _)) = &archives {
            archives.descriptions().for_each(|archive| log::info!("{archive}"));
        }
        ingest.authorizer().note().iter().for_each(|note| log::info!("{note}"));
        exposure.iter().for_each(|warning| log::warn!("{warning}"));
        let (stop_maintenance, stopped) = mpsc::channel();
        let is_shared = options.store.is_shared();
        let reloaded = (is_shared && has_tokens).then(|| ingest.clone());
        let maintenance =
            Maintenance { store: store.clone(), clock, stats: stats.clone(), directory, is_shared, reloaded };
        let maintenance = maintenance.spawn(stopped)?;
        let receiver = Self {
            server,
            #[cfg(feature = "builtin")]
            builtin,
            listeners,
            api,
            store,
            stats,
            alerts,
            archives,
            stop_maintenance,
            maintenance,
        };
        receiver.next_machine(options).iter().for_each(|line| log::info!("{line}"));
        Ok(receiver)
    }

    /// The two lines by which the next machine joins, one for here and one for there, where others can reach this one.
    fn next_machine(&self, options: &Options) -> Vec<String> {
        let address = self.address().map(|address| ("http", address));
        // HTTPS is the last, where there is any.
        #[cfg(feature = "builtin")]
        let address = self.builtin.as_ref().and_then(|server| server.addresses().last().copied()).or(address);
        let (Some(key), Some((scheme, address))) = (&options.auth.token_key, address) else { return Vec::new() };
        if options.bind.is_loopback() || options.role == Role::Summaries {
            return Vec::new();
        }
        let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let host = name.filter(|_| options.bind.is_unspecified()).unwrap_or_else(|| options.bind.to_string());
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let publish = format!("{scheme}://{host}:{}", address.port());
        vec![
            format!("For the next machine, here: lizm token --join --token-key {} > join.token", key.display()),
            format!("and there: lizm monitor --publish {publish} --join-file join.token --state DIR"),
        ]
    }

    /// The address of the HTTP server, if there is one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        let address = self.server.as_ref().map(Server::address);
        #[cfg(feature = "builtin")]
        let address = address.or_else(|| {
            let mut addresses = self.builtin.iter().flat_map(http::Server::addresses);
            addresses.find(|(scheme, _)| *scheme == "http").map(|(_, address)| *address)
        });
        address
    }

    /// Errors that only a restart of the process clears. A store that refuses writes is none: it is opened again, and can
    /// be read until then.
    #[must_use]
    pub fn liveness_error(&self) -> Option<String> {
        let error = self.server.as_ref().and_then(Server::liveness_error);
        #[cfg(feature = "builtin")]
        let error = error.or_else(|| self.builtin.as_ref().and_then(http::Server::liveness_error));
        error.or_else(|| self.api.liveness_error())
    }

    /// Answers the open requests, makes the store durable, and logs what was counted.
    pub fn stop(self) {
        self.listeners.close();
        let closed = self.server.is_none_or(|server| server.close(STOP_WITHIN));
        #[cfg(feature = "builtin")]
        let closed = self.builtin.is_none_or(|server| server.close(STOP_WITHIN)) && closed;
        if !closed {
            log::warn!("Some requests were not answered within {} seconds", STOP_WITHIN.as_secs());
        }
        if let Some((archives, _)) = &self.archives {
            archives.stop();
        }
        if let Some((alerts, thread)) = self.alerts {
            alerts.stop();
            drop(thread.join());
        }
        drop(self.stop_maintenance);
        drop(self.maintenance.join());
        if let Err(unavailable) = self.store.sync_now() {
            log::error!("What was received last may be lost: {unavailable}");
        }
        log::info!("Receiver stopped: {}", self.stats);
    }
}

/// Starts the builtin server, if it has something to serve.
#[cfg(feature = "builtin")]
fn start_builtin(options: &Options, api: &Arc<Api>) -> io::Result<Option<http::Server>> {
    let serves_plain = options.plain && options.http_server == HttpServer::Builtin;
    #[cfg(feature = "tls")]
    let https = options.https.as_ref();
    #[cfg(not(feature = "tls"))]
    let https = None::<()>;
    if !serves_plain && https.is_none() {
        return Ok(None);
    }
    let mut server = http::Server::start(&options.builtin, api)?;
    if serves_plain {
        server.listen(SocketAddr::new(options.bind, options.port))?;
    }
    #[cfg(feature = "tls")]
    if let Some(https) = https {
        server.listen_https(SocketAddr::new(options.bind, https.port), https)?;
    }
    Ok(Some(server))
}

/// What anyone from another machine may do, as warnings for the log.
fn exposure(options: &Options, anyone_submits: bool, anyone_reads: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if !options.bind.is_loopback() {
        let what = match (anyone_submits, anyone_reads) {
            (true, true) => Some(("submit, read and delete", "--token-key and --read-password-file")),
            (true, false) => Some(("submit and delete", "--token-key")),
            (false, true) => Some(("read", "--read-password-file")),
            (false, false) => None,
        };
        warnings.extend(what.map(|(may, see)| format!("Anyone who reaches this receiver may {may}; see {see}")));
    }
    let submits = |socket| format!("Anyone who reaches {socket} may submit; see --token-key");
    warnings.extend(options.listeners.reachable().filter(|_| anyone_submits).map(submits));
    warnings
}
