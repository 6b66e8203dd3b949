//! What `lizm demo` runs.

use std::net::{IpAddr, Ipv4Addr};

use lizm::api::Role;
use lizm::store::{KeepOptions, Limits, Location};
use lizm::{alerts, archive, listeners, metrics, monitor, probe, receiver, sample};

use super::{Command, Options, system_host};

/// The rules of `lizm demo --alerts`: the first fires after a minute under load.
const DEMO_RULES: &[&str] =
    &["busy: cpu > 50 until < 30", "memory: mem > 95 for 5m", "disk: disk,disk:* > 95 for 10m", "silent: host down"];

impl Options {
    /// A receiver and a monitor on loopback: what they show is for this machine alone.
    pub(super) fn demo(&mut self) -> Result<Command, String> {
        let port = self.number("--port")?;
        let rules = if self.flag("--alerts")? { DEMO_RULES } else { &[] };
        self.no_more()?;
        let host = system_host().filter(|host| sample::check_host(host).is_ok());
        let host = host.unwrap_or_else(|| "localhost".to_owned());
        let receiver = receiver::Options {
            port,
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            plain: true,
            http_server: receiver::HttpServer::default(),
            #[cfg(feature = "builtin")]
            builtin: lizm::http::Options::default(),
            trusted_proxies: Vec::new(),
            #[cfg(feature = "tls")]
            https: None,
            auth: lizm::auth::Options::default(),
            workers: 4,
            limits: Limits::from(1000),
            store: Location::Memory,
            keep: KeepOptions::default(),
            metrics_hosts_max: metrics::HOSTS_MAX,
            role: Role::All,
            listeners: listeners::Options::default(),
            alerts: alerts::Options {
                rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
                ..Default::default()
            },
            archive: archive::Options::default(),
        };
        let monitor = monitor::Options {
            host,
            destinations: Vec::new(),
            interval_sec: 1,
            probe: probe::Options::default(),
            backlog_max: 3600,
            spool: None,
            credentials: monitor::Credentials::default(),
            tags: None,
            logs_each: true,
        };
        Ok(Command::Demo(Box::new((receiver, monitor))))
    }
}
