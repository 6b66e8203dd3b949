//! The command line: options, and their variables of the environment.

mod arguments;
mod auth;
mod completions;
mod demo;
mod help;
mod http;
mod manual;
mod table;

use std::path::{Path, PathBuf};

use lizm::api::Role;
use lizm::monitor::{self, Destination};
use lizm::sample::Tags;
#[cfg(feature = "redis")]
use lizm::store::RedisAddress;
use lizm::store::{ARCHIVES_MAX, KeepOptions, Limits, Location};
use lizm::summary::Keep;
use lizm::url::{Url, redact};
use lizm::{alerts, archive, client, listeners, probe, receiver, sample, watch};
use log::LevelFilter;
use pico_args::Arguments;

use crate::alerts_command::AlertsCommand;
use crate::check::CheckOptions;
use crate::export::ExportOptions;
use crate::forget::ForgetOptions;
use crate::logging::Logging;
#[cfg(feature = "tls")]
use crate::token_command::TokenCommand;
use arguments::{Options, check_directory, env_value, environment_warnings, parsed, suggestion};
use table::COMMANDS;

/// A command line.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) command: Command,
    /// How a command that runs until it is stopped logs.
    pub(crate) logging: Option<Logging>,
    /// Warnings about the environment.
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Command {
    Print(String),
    Receiver(Box<receiver::Options>),
    Monitor(Box<monitor::Options>),
    /// Print one sample, as JSON or as text.
    Once(probe::Options, bool),
    Check(CheckOptions),
    Forget(ForgetOptions),
    Alerts(AlertsCommand),
    /// Copy the store in a directory to another.
    #[cfg(feature = "disk")]
    Backup(PathBuf, PathBuf),
    Watch(watch::Options),
    Export(ExportOptions),
    #[cfg(feature = "tls")]
    Token(TokenCommand),
    Demo(Box<(receiver::Options, monitor::Options)>),
}

/// Reads the command line of this process.
///
/// # Errors
/// What is wrong with it; the sentence names the option.
pub(crate) fn parse() -> Result<Parsed, String> {
    let mut arguments = Arguments::from_env();
    let mut subcommand = || arguments.subcommand().map_err(|error| error.to_string());
    let mut name = subcommand()?.unwrap_or_default();
    let asks_for_help = name == "help";
    if asks_for_help {
        name = subcommand()?.unwrap_or_default();
    }
    let wants_help = arguments.contains(["-h", "--help"]) || asks_for_help;
    let print = |text| Ok(Parsed { command: Command::Print(text), logging: None, warnings: Vec::new() });
    if arguments.contains(["-V", "--version"]) {
        return print(concat!("lizm ", env!("CARGO_PKG_VERSION"), "\n").to_owned());
    }
    let Some(spec) = COMMANDS.iter().find(|command| command.name == name) else {
        return match name.as_str() {
            "" if wants_help => print(help::program()),
            "" => Err("no command given; 'lizm --help' lists them".to_owned()),
            unknown => {
                let nearest = help::nearest(unknown, COMMANDS.iter().map(|command| command.name));
                Err(format!("command {:?} is not known; {}", redact(unknown), suggestion(nearest, "lizm")))
            }
        };
    };
    if wants_help {
        return print(help::command(spec));
    }
    let mut options = Options { arguments, spec };
    let runs = matches!(spec.name, "receiver" | "monitor" | "demo");
    let logging = runs.then(|| options.logging()).transpose()?;
    let given = options.clone();
    let command = match spec.name {
        "receiver" => options.receiver()?,
        "monitor" => options.monitor()?,
        "check" => options.check()?,
        "forget" => options.forget()?,
        "alerts" => options.alerts()?,
        #[cfg(feature = "disk")]
        "backup" => options.backup()?,
        #[cfg(not(feature = "disk"))]
        "backup" => {
            return Err("this lizm was built without the feature disk, which keeps a store in a directory".to_owned());
        }
        "watch" => options.watch()?,
        "export" => options.export()?,
        "man" => options.manual()?,
        "completions" => options.completions()?,
        #[cfg(feature = "tls")]
        "token" => options.token()?,
        #[cfg(not(feature = "tls"))]
        "token" => return Err(lizm::features::WITHOUT_TLS.to_owned()),
        _ => options.demo()?,
    };
    given.check_partners()?;
    let mut warnings = environment_warnings();
    if let Command::Monitor(options) = &command
        && is_container_id(&options.host)
    {
        warnings.push(format!(
            "this host is called {}, a container's id that changes; --host gives it a lasting name",
            options.host
        ));
    }
    // The sample alone is on standard output.
    let logging = logging.filter(|_| !matches!(command, Command::Once(..)));
    Ok(Parsed { command, logging, warnings })
}

impl Options {
    fn receiver(&mut self) -> Result<Command, String> {
        #[cfg_attr(not(feature = "tls"), expect(unused_mut, reason = "only HTTPS has a certificate"))]
        let mut options = receiver::Options {
            port: self.number("--port")?,
            bind: self.parsed("--bind", "an IP address such as 127.0.0.1")?,
            plain: !self.flag("--no-plain")?,
            http_server: self.http_server()?,
            #[cfg(feature = "builtin")]
            builtin: self.builtin()?,
            trusted_proxies: self.trusted_proxies()?,
            #[cfg(feature = "tls")]
            https: self.https()?,
            auth: self.auth()?,
            workers: self.number("--workers")?,
            limits: Limits {
                series_max: self.number("--max-series")?,
                labels_per_host_max: self.number("--max-labels-per-host")?,
                forget_hosts_sec: self.span_or("--forget-hosts", "never")?.map_or(u64::MAX, |span| span.as_secs()),
            },
            store: self.store()?,
            keep: self.keep()?,
            metrics_hosts_max: self.number("--metrics-hosts")?,
            role: match self.word("--serve")? {
                "intake" => Role::Intake,
                "summaries" => Role::Summaries,
                _ => Role::All,
            },
            listeners: self.listeners()?,
            alerts: self.alert_rules()?,
            archive: self.archives()?,
        };
        #[cfg(feature = "tls")]
        if let (Some(https), Some(host)) = (&options.https, system_host()) {
            options.alerts.certificate = Some((host, https.certificate.clone()));
        }
        if options.role != Role::All && !options.store.is_shared() {
            let why = "another receiver would not know what this one keeps; give both the same --store redis://…";
            return Err(format!("option --serve: {why}"));
        }
        if options.role == Role::Summaries && options.listeners != listeners::Options::default() {
            return Err("option --serve: summaries takes no samples, by --udp and --zmq neither".to_owned());
        }
        auth::check(&options)?;
        #[cfg(not(feature = "tls"))]
        self.refuse_https()?;
        #[cfg(not(feature = "builtin"))]
        self.refuse_builtin()?;
        self.no_more()?;
        Ok(Command::Receiver(Box::new(options)))
    }

    fn keep(&mut self) -> Result<KeepOptions, String> {
        let asked = self.keep_text()?;
        let (may_drop, retry_horizon_sec) = (self.flag("--keep-change")?, self.span("--retry-horizon")?.as_secs());
        Ok(KeepOptions { asked, may_drop, retry_horizon_sec })
    }

    fn keep_text(&mut self) -> Result<Option<Keep>, String> {
        let keep = self.text("--keep")?.map(|keep| keep.parse());
        keep.transpose().map_err(|why: String| format!("option --keep: {why}"))
    }

    fn listeners(&mut self) -> Result<listeners::Options, String> {
        let form = "an IP address and a port such as 0.0.0.0:8089";
        let udp = self.text("--udp")?.map(|address| parsed("--udp", &address, form)).transpose()?;
        let zmq = self.text("--zmq")?;
        if let Some(endpoint) = &zmq {
            if !cfg!(feature = "zeromq") {
                return Err(format!("option --zmq: {}", lizm::features::WITHOUT_ZEROMQ));
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
                return Err(format!(
                    "option --zmq: {:?} is not an endpoint such as tcp://0.0.0.0:5557",
                    redact(endpoint)
                ));
            }
        }
        Ok(listeners::Options { udp, zmq })
    }

    fn archives(&mut self) -> Result<archive::Options, String> {
        let targets =
            self.list("--archive")?.iter().map(|url| url.parse()).collect::<Result<Vec<archive::Target>, _>>();
        let targets = targets.map_err(|why| format!("option --archive: {why}"))?;
        if targets.len() > ARCHIVES_MAX {
            return Err(format!("option --archive: given {} times, the limit is {ARCHIVES_MAX}", targets.len()));
        }
        let is_double = |(place, target): (usize, &archive::Target)| targets[..place].contains(target);
        if targets.iter().enumerate().any(is_double) {
            return Err("option --archive: one archive is given twice".to_owned());
        }
        Ok(archive::Options { targets, after: self.span("--archive-after")?, ca: self.path("--archive-ca")? })
    }

    fn alert_rules(&mut self) -> Result<alerts::Options, String> {
        Ok(alerts::Options {
            file: self.path("--alerts")?,
            rules: self.lines("--alert")?,
            notify_ca: self.path("--notify-ca")?,
            certificate: None,
        })
    }

    fn monitor(&mut self) -> Result<Command, String> {
        let (is_once, is_json) = (self.flag("--once")?, self.flag("--json")?);
        let host = self.text("--host")?.or_else(system_host);
        let options = monitor::Options {
            host: checked_host(host.ok_or("option --host: missing, and this system has no host name")?)?,
            interval_sec: self.number("--interval")?,
            probe: self.probe()?,
            backlog_max: self.number("--backlog")?,
            spool: self.path("--spool")?,
            credentials: self.credentials()?,
            tags: self.tags()?,
            logs_each: self.word("--log-publish")? == "each",
            destinations: self.destinations(!is_once)?,
        };
        Ok(if is_once { Command::Once(options.probe, is_json) } else { Command::Monitor(Box::new(options)) })
    }

    /// Every `--tag`; in the environment they are separated by commas, as they may be in one option.
    fn tags(&mut self) -> Result<Option<Tags>, String> {
        let mut given = self.occurrences("--tag")?;
        if given.is_empty() {
            given.extend(self.text("--tag")?);
        }
        let tags = (!given.is_empty()).then(|| Tags::parse(&given.join(",")));
        tags.transpose().map_err(|why| format!("option --tag: {why}"))
    }

    fn probe(&mut self) -> Result<probe::Options, String> {
        let default = probe::Options::default();
        let procfs = self.path("--procfs")?.or_else(|| Some(env_value("HOST_PROC").ok()??.into()));
        let probes = self.text_or_default("--probes")?.parse();
        let scope = self.text_or_default("--scope")?.parse();
        Ok(probe::Options {
            probes: probes.map_err(|why| format!("option --probes: {why}"))?,
            scope: scope.map_err(|why| format!("option --scope: {why}"))?,
            procfs: procfs.unwrap_or(default.procfs),
            rootfs: self.path("--rootfs")?.unwrap_or(default.rootfs),
            disks: self.text_or_default("--disks")?.split(',').map(str::to_owned).collect(),
            textfile: self.path("--textfile")?,
            exec: probe::ExecOptions {
                directory: self.path("--exec")?,
                every: self.span("--exec-every")?,
                timeout: self.span("--exec-timeout")?,
            },
        })
    }

    /// Every `--publish`, and the arguments that are left.
    fn destinations(&mut self, are_required: bool) -> Result<Vec<Destination>, String> {
        let mut urls = self.occurrences("--publish")?;
        urls.extend(self.free_arguments()?);
        if urls.is_empty() {
            urls = self.list("--publish")?;
        }
        if urls.is_empty() && are_required {
            return Err("option --publish: missing; it says where to publish, such as http://receiver:8080".to_owned());
        }
        urls.iter().map(|url| Destination::parse(url).map_err(|why| format!("option --publish: {why}"))).collect()
    }

    fn check(&mut self) -> Result<Command, String> {
        let host = self.text("--host")?;
        Ok(Command::Check(CheckOptions { receiver: self.client()?, host }))
    }

    fn forget(&mut self) -> Result<Command, String> {
        let token_file = self.path("--token-file")?;
        let [ca, password_file] = self.client_files()?;
        match self.free_arguments()?.as_slice() {
            [url, host] => {
                sample::check_host(host)?;
                let receiver = client::Options { url: self.receiver_url(url)?, ca, password_file };
                Ok(Command::Forget(ForgetOptions { receiver, host: host.clone(), token_file }))
            }
            _ => Err("forget: takes the URL of a receiver and the name of a host".to_owned()),
        }
    }

    fn alerts(&mut self) -> Result<Command, String> {
        let (alerts, on, span) = (self.text("--silence")?, self.text("--on")?, self.text("--for")?);
        let (token_file, file, ca) = (self.path("--token-file")?, self.path("--alerts")?, self.path("--notify-ca")?);
        let keep = self.keep_text()?.unwrap_or_default();
        let [receiver_ca, password_file] = self.client_files()?;
        let free = self.free_arguments()?;
        let receiver = |url| {
            let url = self.receiver_url(url)?;
            Ok::<_, String>(client::Options { url, ca: receiver_ca.clone(), password_file: password_file.clone() })
        };
        let asked = match (&*free.iter().map(String::as_str).collect::<Vec<_>>(), alerts) {
            ([url], Some(alerts)) if url.contains("://") => {
                let span = span.ok_or("option --silence: goes with --for, such as --for 2h")?;
                AlertsCommand::Silence {
                    receiver: receiver(url)?,
                    alerts,
                    on: on.unwrap_or_default(),
                    span,
                    token_file,
                }
            }
            (_, Some(_)) => return Err("option --silence: goes with the URL of a receiver".to_owned()),
            ([url], None) if url.contains("://") => AlertsCommand::List(receiver(url)?),
            (["check", file], None) => AlertsCommand::Check { file: file.into(), keep, receiver: None },
            (["check", file, url], None) => {
                AlertsCommand::Check { file: file.into(), keep, receiver: Some(receiver(url)?) }
            }
            (["test", target], None) => {
                let file = file.ok_or("alerts test: the file of the target is missing; --alerts FILE names it")?;
                AlertsCommand::Test { target: (*target).to_owned(), file, ca }
            }
            _ => {
                return Err(
                    "alerts: give a URL, 'check FILE', or 'test TARGET --alerts FILE'; 'lizm alerts --help' has \
                            more"
                        .to_owned(),
                );
            }
        };
        Ok(Command::Alerts(asked))
    }

    fn watch(&mut self) -> Result<Command, String> {
        let (host, label) = (self.text("--host")?, self.text("--label")?);
        let once = self.flag("--once")?;
        Ok(Command::Watch(watch::Options { receiver: self.client()?, host, label, once }))
    }

    fn export(&mut self) -> Result<Command, String> {
        let (host, label) = (self.text("--host")?, self.text("--label")?);
        let (from, to) = (self.text_or_default("--from")?, self.text("--to")?);
        let by = self.text("--by")?.map(|by| self.one_of("--by", &by)).transpose()?;
        let is_json = self.word("--format")? == "json";
        Ok(Command::Export(ExportOptions { receiver: self.client()?, host, label, from, to, by, is_json }))
    }

    #[cfg(feature = "disk")]
    fn backup(&mut self) -> Result<Command, String> {
        match self.free_arguments()?.as_slice() {
            [directory, target] => Ok(Command::Backup(directory.into(), target.into())),
            _ => Err("backup: takes the directory of a store and a directory for the copy".to_owned()),
        }
    }

    fn manual(&mut self) -> Result<Command, String> {
        let asked = self.free_arguments()?;
        let page = match asked.as_slice() {
            [] => Some(manual::program()),
            [name] => COMMANDS.iter().find(|command| command.name == name).map(manual::command),
            _ => None,
        };
        page.map(Command::Print).ok_or_else(|| "man: takes the name of one command, or nothing".to_owned())
    }

    fn completions(&mut self) -> Result<Command, String> {
        match self.free_arguments()?.as_slice() {
            [shell] if completions::SHELLS.contains(&shell.as_str()) => Ok(Command::Print(completions::of(shell))),
            _ => Err(format!("completions: takes the name of a shell: {}", completions::SHELLS.join(", "))),
        }
    }

    /// The options of a client, and the one argument that is left: the URL of a receiver.
    fn client(&mut self) -> Result<client::Options, String> {
        let [ca, password_file] = self.client_files()?;
        let mut free = self.free_arguments()?.into_iter();
        let command = self.spec.name;
        let url = match (free.next(), free.next()) {
            (Some(url), None) => self.receiver_url(&url)?,
            (None, _) => {
                return Err(format!("{command}: the URL of a receiver is missing, such as http://localhost:8080"));
            }
            (_, Some(more)) => {
                return Err(format!("{command}: takes one URL, and {:?} is one more", redact(&more)));
            }
        };
        Ok(client::Options { url, ca, password_file })
    }

    /// The authorities of a client, and the file of its password.
    fn client_files(&mut self) -> Result<[Option<PathBuf>; 2], String> {
        Ok([self.path("--ca")?, self.path("--password-file")?])
    }

    /// The URL of a receiver that a client asks.
    fn receiver_url(&self, url: &str) -> Result<Url, String> {
        let command = self.spec.name;
        let url = Url::parse_http(url).map_err(|why| format!("{command}: {why}"))?;
        if url.scheme() == "https" && !cfg!(feature = "tls") {
            return Err(format!("{command}: {url}: {}", lizm::features::WITHOUT_TLS));
        }
        Ok(url)
    }

    fn store(&mut self) -> Result<Location, String> {
        let fsync_always = self.word("--fsync")? == "always";
        let ca = self.path("--store-ca")?;
        match self.text_or_default("--store")?.as_str() {
            #[cfg(feature = "redis")]
            url if url.starts_with("redis") && url.contains("://") => {
                if fsync_always {
                    return Err("option --fsync: is Redis's own setting, appendfsync, with --store redis://".to_owned());
                }
                let address = RedisAddress::parse(url, ca);
                address.map(Location::Redis).map_err(|why| format!("option --store: {why}"))
            }
            #[cfg(not(feature = "redis"))]
            url if url.starts_with("redis") && url.contains("://") => {
                Err("option --store: this lizm was built without the feature redis".to_owned())
            }
            _ if ca.is_some() => Err("option --store-ca: goes with --store rediss:// alone".to_owned()),
            "memory" if fsync_always => Err("option --fsync: always needs a --store in a directory".to_owned()),
            "memory" => Ok(Location::Memory),
            url if url.contains("://") => {
                Err(format!("option --store: {:?} is not memory, a directory or redis://", redact(url)))
            }
            address if is_address(address) => {
                let shown = redact(address);
                Err(format!(
                    "option --store: {shown:?} looks like a Redis: write redis://{shown}, or ./{shown} for a directory"
                ))
            }
            path => {
                check_directory("--store", Path::new(path))?;
                Ok(Location::Directory { path: path.into(), fsync_always })
            }
        }
    }

    fn logging(&mut self) -> Result<Logging, String> {
        let level = match self.word("--log-level")? {
            "error" => LevelFilter::Error,
            "warning" | "warn" => LevelFilter::Warn,
            "debug" => LevelFilter::Debug,
            _ => LevelFilter::Info,
        };
        Ok(Logging { level, json: self.word("--log-format")? == "json" })
    }
}

/// Whether a text is a host and a port, or begins as the URL of a Redis does.
fn is_address(text: &str) -> bool {
    let has_port = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    !text.contains('/') && (has_port || text.starts_with("redis:") || text.starts_with("rediss:"))
}

/// Whether a name is like those that container engines give: the first 12 digits of the container's id.
fn is_container_id(name: &str) -> bool {
    name.len() == 12 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The host name of this system.
fn system_host() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok().filter(|name| !name.is_empty())
}

fn checked_host(host: String) -> Result<String, String> {
    sample::check_host(&host).map_err(|why| format!("option --host: {why}"))?;
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(command: &str, arguments: &[&str]) -> Options {
        let spec = COMMANDS.iter().find(|spec| spec.name == command).unwrap();
        Options { arguments: Arguments::from_vec(arguments.iter().map(Into::into).collect()), spec }
    }

    #[test]
    fn the_table_has_every_option_that_is_read() {
        assert!(options("receiver", &[]).receiver().is_ok());
        assert!(options("monitor", &["--this-host", "h", "--publish", "http://r"]).monitor().is_ok());
        assert!(options("watch", &["http://r"]).watch().is_ok());
        assert!(options("check", &["http://r"]).check().is_ok());
        assert!(options("forget", &["http://r", "h"]).forget().is_ok());
        assert!(options("alerts", &["test", "ops", "--alerts", "rules"]).alerts().is_ok());
        assert!(options("export", &["http://r", "--by", "hour"]).export().is_ok());
        assert!(options("demo", &["-p", "0"]).demo().is_ok());
        #[cfg(feature = "disk")]
        assert!(options("backup", &["a", "b"]).backup().is_ok());
        #[cfg(feature = "tls")]
        assert!(options("token", &["--host", "h", "--token-key", "key"]).token().is_ok());
        for command in ["receiver", "monitor", "demo"] {
            assert!(options(command, &[]).logging().is_ok());
        }
    }

    #[test]
    fn what_does_nothing_without_another_option_is_refused_without_it() {
        for spec in COMMANDS {
            for row in spec.options().filter(|row| !row.partners.is_empty()) {
                let value = if matches!(row.value, table::Value::Flag) { &[][..] } else { &["7"] };
                let given = |more: &[&str]| options(spec.name, &[&[row.names], value, more].concat()).check_partners();
                let refusal = format!("option {}: goes with {} alone", row.names, row.partners.join(" or "));
                let other = options(spec.name, &[&format!("{}=7", row.names), "--http-server", "other"]);
                assert_eq!(other.check_partners(), Err(refusal));
                for partner in row.partners {
                    let more: Vec<&str> = partner.split(' ').chain(["7"]).collect();
                    assert_eq!(given(&more), Ok(()), "{partner}");
                }
            }
        }
    }

    #[test]
    fn a_store_is_a_word_a_url_or_a_directory() {
        let store = |text| options("receiver", &["--store", text]).store();
        assert!(matches!(store("memory"), Ok(Location::Memory)));
        for path in ["data", "/var/lib/lizm", "./redis:6379", "a/b:1", "C:data", "memory2"] {
            assert!(matches!(store(path), Ok(Location::Directory { .. })), "{path}");
        }
        for address in ["redis:6379", "localhost:6379", "[::1]:6379", "redis:", "rediss:r"] {
            let why = store(address).unwrap_err();
            assert!(why.contains(&format!("redis://{address}")) && why.contains(&format!("./{address}")), "{why}");
        }
    }
}
