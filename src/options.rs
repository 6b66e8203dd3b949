//! The command line: options, and their environment variables.

mod auth;
mod help;

use std::env;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
#[cfg(feature = "tls")]
use std::time::Duration;

use lizm::api::Role;
use lizm::monitor::{self, Destination};
use lizm::store::Location;
#[cfg(feature = "redis")]
use lizm::store::RedisAddress;
use lizm::url::Url;
use lizm::{client, listeners, metrics, probe, receiver, sample, watch};
use log::LevelFilter;
use pico_args::Arguments;

use crate::DEMO_BIND;
use crate::check::CheckOptions;
use crate::logging::Logging;
use help::{CHECK_HELP, DEMO_HELP, HELP, MONITOR_HELP, RECEIVER_HELP, TOKEN_HELP, WATCH_HELP};

/// What a command line asks for.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) command: Command,
    pub(crate) logging: Logging,
    /// What a person should know about it, once.
    pub(crate) notes: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Command {
    Print(String),
    Receiver(receiver::Options),
    Monitor(monitor::Options),
    Check(CheckOptions),
    Watch(watch::Options),
    #[cfg(feature = "tls")]
    Token(TokenOptions),
    Demo(Box<(receiver::Options, monitor::Options)>),
}

/// What `lizm token` is told.
#[cfg(feature = "tls")]
#[derive(Debug)]
pub(crate) struct TokenOptions {
    pub(crate) hosts: Vec<String>,
    pub(crate) key_file: PathBuf,
    pub(crate) valid: Duration,
}

/// Reads the command line of this process.
///
/// # Errors
/// What is wrong with it, naming the option.
pub(crate) fn parse() -> Result<Parsed, String> {
    let mut options = Options { arguments: Arguments::from_env(), command: String::new(), notes: Vec::new() };
    let mut subcommand = || options.arguments.subcommand().map_err(|error| error.to_string());
    let mut command = subcommand()?.unwrap_or_default();
    let asks_for_help = command == "help";
    if asks_for_help {
        command = subcommand()?.unwrap_or_default();
    }
    options.command.clone_from(&command);
    let help = match command.as_str() {
        "receiver" => RECEIVER_HELP,
        "monitor" => MONITOR_HELP,
        "check" => CHECK_HELP,
        "watch" => WATCH_HELP,
        "token" => TOKEN_HELP,
        "demo" => DEMO_HELP,
        _ => HELP,
    };
    let wants_help = options.arguments.contains(["-h", "--help"]) || asks_for_help;
    let wants_version = options.arguments.contains(["-V", "--version"]);
    let mut logging = Logging { level: LevelFilter::Info, json: false };
    let command = if wants_help {
        Command::Print(help.to_owned())
    } else if wants_version {
        Command::Print(concat!("lizm ", env!("CARGO_PKG_VERSION"), "\n").to_owned())
    } else {
        if matches!(command.as_str(), "receiver" | "monitor" | "demo") {
            logging = options.logging()?;
        }
        match command.as_str() {
            "receiver" => options.receiver()?,
            "monitor" => options.monitor()?,
            "check" => options.check()?,
            "watch" => options.watch()?,
            #[cfg(feature = "tls")]
            "token" => options.token()?,
            #[cfg(not(feature = "tls"))]
            "token" => return Err(lizm::auth::WITHOUT_TLS.to_owned()),
            "demo" => options.demo()?,
            "" => return Err("no command given; 'lizm --help' lists them".to_owned()),
            other => return Err(format!("command {other:?} is not known; 'lizm --help' lists them")),
        }
    };
    Ok(Parsed { command, logging, notes: options.notes })
}

struct Options {
    arguments: Arguments,
    command: String,
    notes: Vec<String>,
}

impl Options {
    fn receiver(&mut self) -> Result<Command, String> {
        let options = receiver::Options {
            port: self.port()?,
            bind: self.value("--bind", IpAddr::V4(Ipv4Addr::UNSPECIFIED), "an IP address such as 127.0.0.1")?,
            plain: !self.flag("--no-plain")?,
            #[cfg(feature = "tls")]
            https: self.https()?,
            auth: self.auth()?,
            workers: self.whole("--workers", 16, 1..=1024)?,
            series_max: self.whole("--max-series", 1_000_000, 1..=1_000_000_000)?,
            store: self.store()?,
            metrics_hosts_max: self.whole("--metrics-hosts", metrics::HOSTS_MAX, 0..=1_000_000)?,
            role: self.serve()?,
            listeners: self.listeners()?,
        };
        if options.role != Role::All && !options.store.is_shared() {
            let why = "another receiver would not know what this one keeps; give both the same --store redis://…";
            return Err(format!("option --serve: {why}"));
        }
        if options.role == Role::Summaries && options.listeners != listeners::Options::default() {
            return Err("option --serve: summaries takes no samples, by --udp and --zmq neither".to_owned());
        }
        #[cfg(feature = "tls")]
        auth::check(&options)?;
        self.no_more()?;
        Ok(Command::Receiver(options))
    }

    fn listeners(&mut self) -> Result<listeners::Options, String> {
        let form = "an IP address and a port such as 0.0.0.0:8089";
        let udp = self.text("--udp")?.map(|address| parsed("--udp", &address, form)).transpose()?;
        let zmq = self.text("--zmq")?;
        if let Some(endpoint) = &zmq {
            if !cfg!(feature = "zeromq") {
                return Err(format!("option --zmq: {}", listeners::WITHOUT_ZEROMQ));
            }
            // libzmq takes a port beyond 65535 for another one.
            let is_port = |port: &str| port == "*" || port.parse::<u16>().is_ok();
            let is_endpoint = match endpoint.split_once("://") {
                Some(("tcp", address)) => {
                    address.rsplit_once(':').is_some_and(|(ip, port)| !ip.is_empty() && is_port(port))
                }
                Some(("ipc", path)) => !path.is_empty(),
                _ => false,
            };
            if !is_endpoint {
                return Err(format!("option --zmq: {endpoint:?} is not an endpoint such as tcp://0.0.0.0:5557"));
            }
        }
        Ok(listeners::Options { udp, zmq })
    }

    fn monitor(&mut self) -> Result<Command, String> {
        let host = match self.argument("--this-host")? {
            Some(host) => Some(host),
            None => self.text("--host")?,
        };
        let host = host.map_or_else(|| env_value("LIZM_THIS_HOST"), |host| Ok(Some(host)))?;
        let host = host.ok_or("option --host: missing; it names this host at the receiver")?;
        let interval_sec = self.whole("--interval", 1, 1..=86_400)?;
        let backlog_max = self.whole("--backlog", 3600, 1..=1_000_000)?;
        let probe = self.probe()?;
        let spool = self.text("--spool")?.map(Into::into);
        let credentials = self.credentials()?;
        let options = monitor::Options {
            host: checked_host(host)?,
            destinations: self.destinations()?,
            interval_sec: interval_sec as u64,
            probe,
            backlog_max,
            spool,
            credentials,
        };
        Ok(Command::Monitor(options))
    }

    fn probe(&mut self) -> Result<probe::Options, String> {
        let default = probe::Options::default();
        let procfs = self.text("--procfs")?.or_else(|| env::var("HOST_PROC").ok().filter(|root| !root.is_empty()));
        Ok(probe::Options {
            probes: self.told("--probes", default.probes)?,
            scope: self.told("--scope", default.scope)?,
            procfs: procfs.map_or(default.procfs, Into::into),
            rootfs: self.text("--rootfs")?.map_or(default.rootfs, Into::into),
            textfile: self.text("--textfile")?.map(Into::into),
        })
    }

    /// Every `--publish`, and after them what is left on the command line.
    fn destinations(&mut self) -> Result<Vec<Destination>, String> {
        let mut urls = Vec::new();
        while let Some(url) = self.argument("--publish")? {
            urls.push(url);
        }
        urls.extend(self.free_arguments()?);
        if urls.is_empty() {
            let listed = env_value("LIZM_PUBLISH")?.unwrap_or_default();
            urls.extend(listed.split_whitespace().map(str::to_owned));
        }
        if urls.is_empty() {
            return Err("option --publish: missing; it says where to publish, such as http://receiver:8080".to_owned());
        }
        urls.iter().map(|url| Destination::parse(url).map_err(|why| format!("option --publish: {why}"))).collect()
    }

    fn check(&mut self) -> Result<Command, String> {
        let host = self.text("--host")?;
        Ok(Command::Check(CheckOptions { receiver: self.receiver_to_ask()?, host }))
    }

    fn watch(&mut self) -> Result<Command, String> {
        let (host, label) = (self.text("--host")?, self.text("--label")?);
        let once = self.flag("--once")?;
        Ok(Command::Watch(watch::Options { receiver: self.receiver_to_ask()?, host, label, once }))
    }

    /// The options of a client, and the one argument that is left: the URL of a receiver.
    fn receiver_to_ask(&mut self) -> Result<client::Options, String> {
        let (ca, password_file) = (self.path("--ca")?, self.path("--password-file")?);
        let mut free = self.free_arguments()?.into_iter();
        let command = &self.command;
        match (free.next(), free.next()) {
            (Some(url), None) => {
                let url = Url::parse_http(&url).map_err(|why| format!("{command}: {why}"))?;
                if url.scheme() == "https" && !cfg!(feature = "tls") {
                    return Err(format!("{command}: {url}: {}", lizm::auth::WITHOUT_TLS));
                }
                Ok(client::Options { url, ca, password_file })
            }
            (None, _) => Err(format!("{command}: the URL of a receiver is missing, such as http://localhost:8080")),
            (_, Some(more)) => Err(format!("{command}: takes one URL, and {more:?} is one more")),
        }
    }

    fn demo(&mut self) -> Result<Command, String> {
        let port = self.port()?;
        self.no_more()?;
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let host = host.filter(|host| sample::check_host(host).is_ok()).unwrap_or_else(|| "localhost".to_owned());
        let receiver = receiver::Options {
            port,
            bind: DEMO_BIND,
            plain: true,
            #[cfg(feature = "tls")]
            https: None,
            auth: lizm::auth::Options::default(),
            workers: 4,
            series_max: 1000,
            store: Location::Memory,
            metrics_hosts_max: metrics::HOSTS_MAX,
            role: Role::All,
            listeners: listeners::Options::default(),
        };
        let monitor = monitor::Options {
            host,
            destinations: Vec::new(),
            interval_sec: 1,
            probe: probe::Options::default(),
            backlog_max: 3600,
            spool: None,
            credentials: monitor::Credentials::default(),
        };
        Ok(Command::Demo(Box::new((receiver, monitor))))
    }

    fn store(&mut self) -> Result<Location, String> {
        let fsync_always = match self.text("--fsync")?.unwrap_or_default().as_str() {
            "second" | "" => false,
            "always" => true,
            other => return Err(format!("option --fsync: {other:?} is not second or always")),
        };
        let ca = self.text("--store-ca")?;
        match self.text("--store")?.unwrap_or_default().as_str() {
            #[cfg(feature = "redis")]
            url if url.starts_with("redis") && url.contains("://") => {
                if fsync_always {
                    return Err("option --fsync: is Redis's own setting, appendfsync, with --store redis://".to_owned());
                }
                let address = RedisAddress::parse(url, ca.map(Into::into));
                address.map(Location::Redis).map_err(|why| format!("option --store: {why}"))
            }
            #[cfg(not(feature = "redis"))]
            url if url.starts_with("redis") && url.contains("://") => {
                Err("option --store: this lizm was built without the feature redis".to_owned())
            }
            _ if ca.is_some() => Err("option --store-ca: goes with --store rediss:// alone".to_owned()),
            "memory" | "" if fsync_always => Err("option --fsync: always needs a --store in a directory".to_owned()),
            "memory" | "" => Ok(Location::Memory),
            url if url.contains("://") => {
                Err(format!("option --store: {:?} is not memory, a directory or redis://", lizm::url::redact(url)))
            }
            path => Ok(Location::Directory { path: path.into(), fsync_always }),
        }
    }

    fn serve(&mut self) -> Result<Role, String> {
        match self.text("--serve")?.unwrap_or_default().as_str() {
            "all" | "" => Ok(Role::All),
            "intake" => Ok(Role::Intake),
            "summaries" => Ok(Role::Summaries),
            other => Err(format!("option --serve: {other:?} is not all, intake or summaries")),
        }
    }

    fn logging(&mut self) -> Result<Logging, String> {
        let level = match self.text("--log-level")?.unwrap_or_default().to_lowercase().as_str() {
            "error" => LevelFilter::Error,
            "warning" | "warn" => LevelFilter::Warn,
            "info" | "" => LevelFilter::Info,
            "debug" => LevelFilter::Debug,
            other => return Err(format!("option --log-level: {other:?} is not error, warning, info or debug")),
        };
        let json = match self.text("--log-format")?.unwrap_or_default().as_str() {
            "text" | "" => false,
            "json" => true,
            other => return Err(format!("option --log-format: {other:?} is not text or json")),
        };
        Ok(Logging { level, json })
    }

    fn port(&mut self) -> Result<u16, String> {
        let given = match self.argument("-p")? {
            Some(port) => Some(port),
            None => self.argument("--port")?,
        };
        let from_environment = || {
            let port = env_value("LIZM_PORT")?;
            if port.as_ref().is_some_and(|port| port.starts_with("tcp://")) {
                self.notes.push("LIZM_PORT is ignored: it is the address Kubernetes gives a service named lizm".into());
                return Ok(None);
            }
            Ok::<_, String>(port)
        };
        let port = given.map_or_else(from_environment, |port| Ok(Some(port)))?;
        port.map_or(Ok(8080), |port| parsed("--port", &port, "a port from 0 to 65535"))
    }

    fn whole(
        &mut self,
        option: &'static str,
        default: usize,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<usize, String> {
        let form = format!("a whole number from {} to {}", range.start(), range.end());
        let number = self.value(option, default, &form)?;
        if range.contains(&number) { Ok(number) } else { Err(format!("option {option}: {number} is not {form}")) }
    }

    fn value<T: FromStr>(&mut self, option: &'static str, default: T, form: &str) -> Result<T, String> {
        self.text(option)?.map_or(Ok(default), |text| parsed(option, &text, form))
    }

    fn path(&mut self, option: &'static str) -> Result<Option<PathBuf>, String> {
        Ok(self.text(option)?.map(Into::into))
    }

    /// Whether an option without a value is given; in the environment it is 1 or 0.
    fn flag(&mut self, option: &'static str) -> Result<bool, String> {
        if self.arguments.contains(option) {
            return Ok(true);
        }
        let name = variable(option);
        match env_value(&name)?.as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(other) => Err(format!("{name}: {other:?} is not 1 or 0")),
        }
    }

    /// The value of an option whose type tells itself what is wrong with a text.
    fn told<T: FromStr<Err = String>>(&mut self, option: &'static str, default: T) -> Result<T, String> {
        let text = self.text(option)?;
        text.map_or(Ok(default), |text| text.parse().map_err(|why| format!("option {option}: {why}")))
    }

    /// The value of an option, from the command line or else from the environment.
    fn text(&mut self, option: &'static str) -> Result<Option<String>, String> {
        match self.argument(option)? {
            Some(value) => Ok(Some(value)),
            None => env_value(&variable(option)),
        }
    }

    /// The value of an option on the command line; each call takes one occurrence.
    fn argument(&mut self, option: &'static str) -> Result<Option<String>, String> {
        let value: Option<String> =
            self.arguments.opt_value_from_str(option).map_err(|error| format!("option {option}: {error}"))?;
        match value {
            Some(value) if value.starts_with("--") => Err(format!("option {option}: has no value")),
            value => Ok(value),
        }
    }

    fn no_more(&mut self) -> Result<(), String> {
        match self.free_arguments()?.first() {
            Some(more) => Err(format!("{}: {more:?} is not expected", self.command)),
            None => Ok(()),
        }
    }

    /// What is left when all options are taken.
    fn free_arguments(&mut self) -> Result<Vec<String>, String> {
        let left = std::mem::replace(&mut self.arguments, Arguments::from_vec(Vec::new())).finish();
        let left: Vec<String> = left.into_iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
        match left.iter().find(|argument| argument.starts_with('-')) {
            Some(option) => {
                let command = &self.command;
                Err(format!("option {option}: not known here, or given twice; 'lizm {command} --help' lists them"))
            }
            None => Ok(left),
        }
    }
}

/// The variable of the environment that an option can be given in.
fn variable(option: &str) -> String {
    format!("LIZM_{}", option.trim_start_matches('-').to_uppercase().replace('-', "_"))
}

/// A variable of the environment; an empty one counts as not set.
fn env_value(name: &str) -> Result<Option<String>, String> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(format!("{name}: is not UTF-8")),
    }
}

fn parsed<T: FromStr>(option: impl Display, text: &str, form: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("option {option}: {text:?} is not {form}"))
}

fn checked_host(host: String) -> Result<String, String> {
    sample::check_host(&host).map_err(|why| format!("option --host: {why}"))?;
    Ok(host)
}
