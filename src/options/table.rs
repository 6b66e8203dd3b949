//! The commands and their options: the one source of the help, of what the command line accepts, and of defaults.

#[cfg(feature = "tls")]
use std::time::Duration;

use Value::{Directory, File, Flag, Number, OneOf, Span, Text};

/// How long a token is valid where nothing is said: of a host or an operator, and to join.
#[cfg(feature = "tls")]
pub(super) const TOKEN_VALID: Duration = Duration::from_secs(30 * DAY_SEC);
#[cfg(feature = "tls")]
pub(super) const JOIN_VALID: Duration = Duration::from_secs(3600);

/// What an option takes.
pub(super) enum Value {
    /// Nothing.
    Flag,
    Text,
    File,
    Directory,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A whole number from the first to the second.
    Number(u64, u64),
    /// A span of time such as `90s`, `5m`, `12h` or `30d`, from the first to the second in seconds.
    Span(u64, u64),
}

/// One option of a command.
pub(super) struct OptionSpec {
    /// Its names, separated by commas, with their dashes.
    pub(super) names: &'static str,
    /// What its help calls the value.
    pub(super) placeholder: &'static str,
    pub(super) value: Value,
    /// The value that stands where none is given; empty where there is none.
    pub(super) default: &'static str,
    pub(super) help: &'static str,
    /// Without one of these it does nothing: options, one with a value, or words of the command; none where it stands alone.
    pub(super) partners: &'static [&'static str],
}

/// One command.
pub(super) struct CommandSpec {
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    /// Its arguments.
    pub(super) usage: &'static str,
    pub(super) options: &'static [&'static [OptionSpec]],
    /// What its help says below the options.
    pub(super) notes: &'static str,
    pub(super) examples: &'static str,
}

impl OptionSpec {
    /// The option with those that it goes with.
    const fn with(mut self, partners: &'static [&'static str]) -> Self {
        self.partners = partners;
        self
    }

    /// Its names, with their dashes.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.split(", ")
    }

    /// Its names of more than a letter, with their dashes. Each has a variable of the environment.
    pub(super) fn long_names(&self) -> impl Iterator<Item = &'static str> {
        self.names().filter(|name| name.starts_with("--"))
    }
}

impl CommandSpec {
    pub(super) fn options(&self) -> impl Iterator<Item = &'static OptionSpec> {
        self.options.iter().copied().flatten()
    }
}

const DAY_SEC: u64 = 86_400;

const fn option(
    names: &'static str,
    placeholder: &'static str,
    value: Value,
    default: &'static str,
    help: &'static str,
) -> OptionSpec {
    OptionSpec { names, placeholder, value, default, help, partners: &[] }
}

const LOGGING: &[OptionSpec] = &[
    option(
        "--log-level",
        "L",
        OneOf(&["error", "warning", "warn", "info", "debug"]),
        "info",
        "error, warning, info or debug",
    ),
    option("--log-format", "F", OneOf(&["text", "json"]), "text", "text or json"),
];

/// What the options of the builtin server go with.
const BUILTIN: &[&str] = &["--tls-port", "--http-server builtin"];

/// The options of a client of a receiver.
const CLIENT: &[OptionSpec] = &[
    option("--ca", "FILE", File, "", "authorities of the receiver's certificate, as PEM; without it those of the web"),
    option("--password-file", "FILE", File, "", "the password of the receiver's --read-password-file"),
];

#[rustfmt::skip]
pub(super) const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "receiver",
        summary: "take what hosts publish, summarise it, serve it",
        usage: "[options]",
        options: &[&[
            option("-p, --port", "PORT", Number(0, 65_535), "8080", "port to listen on; 0 picks a free one"),
            option("--bind", "ADDRESS", Text, "0.0.0.0", "IP address to listen on"),
            option("--store", "WHERE", Text, "memory",
                "memory; or a directory that keeps what is received; or a Redis that receivers share:\n\
                redis://[USER:PASSWORD@]HOST:PORT/DB, rediss:// for TLS, redis+cluster://HOST:PORT,HOST:PORT"),
            option("--store-ca", "FILE", File, "",
                "authorities of the certificate of a rediss:// store, as PEM; without it those of the system"),
            option("--fsync", "WHEN", OneOf(&["second", "always"]), "second",
                "second: a power cut may cost the last second; always: it costs nothing that was answered with 200"),
            option("--keep", "LIST", Text, "",
                "which intervals to keep, each with how long: 1m, 10m, 1h, 1d, and m, h, d, w, mo or y; such as \
                1m:1d,1h:90d,1d:2y, which a new directory keeps without it; else what the directory or the Redis has kept, or 1m:1h,1h:1d"),
            option("--keep-change", "", Flag, "",
                "let --keep keep less than a directory has kept, and change what a Redis keeps for all its receivers").with(&["--keep"]),
            option("--retry-horizon", "TIME", Span(3600, 366 * DAY_SEC), "8d",
                "how old a sample with an idempotency key may be; older ones count as expired"),
            option("--serve", "WHAT", OneOf(&["all", "intake", "summaries"]), "all",
                "all; or one of two services that share a Redis: intake takes samples, summaries answers"),
            option("--udp", "ADDRESS", Text, "", "take line protocol in datagrams there too, such as 0.0.0.0:8089"),
            option("--zmq", "ENDPOINT", Text, "",
                "take line protocol in messages of ZeroMQ there too, such as tcp://0.0.0.0:5557 (feature zeromq)"),
            option("--tls-port", "PORT", Number(0, 65_535), "",
                "serve HTTPS there too, which is fit for any network; 0 picks a free port"),
            option("--tls-cert", "FILE", File, "", "its certificate, and those that lead from it to a root, as PEM"),
            option("--tls-key", "FILE", File, "", "the key of its certificate, as PEM"),
            option("--no-plain", "", Flag, "", "serve HTTPS alone"),
            option("--trust", "FILE", File, "",
                "authorities whose clients are given tokens: roots and intermediates, as PEM"),
            option("--token-key", "FILE", File, "",
                "the keys that sign tokens, made where the file is missing; submitting and deleting need a token then"),
            option("--token-valid", "TIME", Span(10, DAY_SEC), "5m",
                "how long a token is valid that is given for a certificate").with(&["--trust"]),
            option("--http-server", "NAME", OneOf(&["tiny_http", "builtin"]), "tiny_http",
                "what serves HTTP: tiny_http, for trusted networks; or builtin, for any network. builtin serves HTTPS"),
            option("--max-connections", "N", Number(1, 100_000), "4096", "most connections to the builtin server").with(BUILTIN),
            option("--max-connections-per-address", "N", Number(1, 100_000), "",
                "most of them from one address, or one /64 of IPv6; without it a quarter of --max-connections").with(BUILTIN),
            option("--trust-proxy", "ADDRESS", Text, "",
                "a proxy without that limit, whose X-Forwarded-For names its client; may be repeated"),
            option("--read-password-file", "FILE", File, "",
                "a password that reading needs, but for /health; any user name will do"),
            option("--allow-host", "NAME", Text, "",
                "a name that browsers may use for this receiver, besides its addresses, localhost and the name of its \
                machine; may be repeated"),
            option("--max-series", "N", Number(1, 1_000_000_000), "1000000",
                "most series, a label of a host each; values of further ones are refused"),
            option("--max-labels-per-host", "N", Number(1, 1_000_000_000), "10000",
                "most labels of one host; values of further ones are refused"),
            option("--forget-hosts", "TIME", Span(DAY_SEC, 3650 * DAY_SEC), "31d",
                "how long a host that is down stays in the list after its last sample; never: until it is removed"),
            option("--alerts", "FILE", File, "",
                "judge the rules of this file and tell its targets, see docs/alerts.md; read again when it changes"),
            option("--alert", "RULE", Text, "",
                "a line of such a file; may be repeated. In the environment LIZM_ALERT has one a line"),
            option("--notify-ca", "FILE", File, "",
                "authorities of the certificates of targets, as PEM; without it those of the web").with(&["--alerts", "--alert"]),
            option("--archive", "URL", Text, "",
                "send each minute of each host there when it has closed, see docs/integrations.md; may be repeated:\n\
                http://influx:8086/write?db=x   InfluxDB; https:// too\n\
                http://victoria:8428/write?db=x&archive=append   VictoriaMetrics\n\
                elasticsearch://es:9200/lizm    Elasticsearch, OpenSearch; elasticsearchs:// over TLS"),
            option("--archive-after", "TIME", Span(0, DAY_SEC), "5m",
                "how old a minute is when it is sent; what comes later is sent again").with(&["--archive"]),
            option("--archive-ca", "FILE", File, "",
                "authorities of the certificates of archives, as PEM; without it those of the web").with(&["--archive"]),
            option("--workers", "N", Number(1, 1024), "16", "threads of tiny_http that answer requests")
                .with(&["--http-server tiny_http"]),
            option("--metrics-hosts", "N", Number(0, 1_000_000), "1000",
                "most hosts whose values /metrics has, the first by name"),
        ], LOGGING],
        notes: "\
What it serves:
  POST   /api/perf/HOST/EPOCH   {\"label\": number, …}, measured in the second that ends at EPOCH
  GET    /api/perf/HOST         averages by minute for the last hour, by hour for the last day;
                                ?from=-7d&to=-1d&by=hour of any range that is kept, &format=csv as CSV
  GET    /api/perf/HOST/TEXT    those whose key contains TEXT, such as by-minute:cpu
  DELETE /api/perf/HOST         forget a host
  GET    /api/hosts             all hosts and how they are; ?series=cpu,mem adds their last hour
  POST   /write                 lines of line protocol: perf,host=HOST cpu=4.98,mem=35.1 EPOCH; gzip and chunks too
  GET    /ping, /query          what clients of InfluxDB 1.x ask before they write
  POST   /api/token             over HTTPS with a client certificate: a token for the hosts that it names
  GET    /api/alerts            what fires and what is pending; ?history=1 the last 1,000 transitions
  POST   /api/silences          {\"alerts\": \"disk\", \"on\": \"db-*\", \"for\": \"2h\"}: tell nothing of these for a while
  GET    /health                200 while it is healthy
  GET    /metrics               what Prometheus reads: of this process, and the running minute of each host

SIGTERM and SIGINT finish what was taken, make it durable, and exit 0.
",
        examples: "\
lizm receiver --bind 127.0.0.1 --store /var/lib/lizm
lizm receiver --no-plain --tls-port 8443 --tls-cert receiver.pem --tls-key receiver.key \\
              --trust ca.pem --token-key token.key
",
    },
    CommandSpec {
        name: "monitor",
        summary: "read this host every second and publish it",
        usage: "--publish URL [URL…] [options]",
        options: &[&[
            option("--host, --this-host", "NAME", Text, "",
                "what this host is called at the receiver, up to 255 bytes; no two hosts may have one name. Without it the \
                system's host name"),
            option("--tag", "NAME=VALUE", Text, "",
                "what this host is for or where it stands, such as role=web; may be repeated, 16 of up to 64 bytes. '' removes \
                those that it had"),
            option("--publish", "URL", Text, "",
                "where to publish; may name several URLs and be repeated:\n\
                http://receiver:8080            a receiver; https:// too\n\
                http://influx:8086/write?db=x   line protocol, to whatever takes it\n\
                udp://receiver:8089             the same in datagrams, without an answer\n\
                zmq://receiver:5557             the same in messages of ZeroMQ (feature zeromq)"),
            option("--interval", "SEC", Number(1, DAY_SEC), "1", "seconds between samples"),
            option("--once", "", Flag, "", "print the sample of one second, and end; needs no --publish"),
            option("--json", "", Flag, "", "with --once: print it as JSON").with(&["--once"]),
            option("--probes", "LIST", Text, "default",
                "what to measure: probes of the list below, separated by commas; default stands for those with *"),
            option("--disks", "GLOBS", Text, "*",
                "the file systems that disk measures beside the root: paths separated by commas, with * and ?"),
            option("--scope", "WHOSE", Text, "host",
                "host; or cgroup: cpu and mem are what the monitor's cgroup uses of its limits"),
            option("--textfile", "DIR", Directory, "", "publish the numbers in DIR/*.txt too, a label and a value a line"),
            option("--exec", "DIR", Directory, "",
                "run the programs in DIR and publish what they print, each under the name of its file; \
                docs/probes.md says how"),
            option("--exec-every", "TIME", Span(1, DAY_SEC), "60s", "how often the programs of --exec and exec: run")
                .with(&["--exec", "--probes"]),
            option("--exec-timeout", "TIME", Span(1, 3600), "10s", "when a program that still runs is killed")
                .with(&["--exec", "--probes", "--once"]),
            option("--procfs", "DIR", Directory, "",
                "where the proc file system is mounted; without it HOST_PROC of the environment, or /proc"),
            option("--rootfs", "DIR", Directory, "",
                "where the root file system is mounted whose disks are measured; without it /"),
            option("--backlog", "N", Number(1, 1_000_000), "3600",
                "most samples that wait in memory for a destination that is down"),
            option("--spool", "DIR", Directory, "",
                "keep what waits in files too, so that the monitor publishes it after a restart"),
            option("--ca", "FILE", File, "",
                "authorities of the certificates of https receivers, as PEM; without it those of the web"),
            option("--cert", "FILE", File, "",
                "this host's certificate, and those that lead from it to a root, as PEM: https receivers give it tokens, \
                which the monitor renews"),
            option("--key", "FILE", File, "", "the key of the certificate, as PEM"),
            option("--token-from", "URL", Text, "",
                "the receiver that gives tokens for all of --publish, datagrams and messages too; https with --cert"),
            option("--token-file", "FILE", File, "",
                "a token made by 'lizm token', for all of --publish; read again when it changes"),
            option("--join", "TOKEN", Text, "",
                "a token made by 'lizm token --join': receivers give this host one of its own for it, once, which the \
                monitor keeps in --state and renews. Others see a command line: a file is better"),
            option("--join-file", "FILE", File, "", "the same token in a file, which is not needed once the host has joined"),
            option("--state", "DIR", Directory, "", "where this host's own token is kept; once it has joined, it needs no --join"),
            option("--log-publish", "WHAT", OneOf(&["each", "changes"]), "each",
                "what the log says of samples: a line for each; or changes: the start, trouble once a minute, recovery, \
                and a line an hour"),
        ], LOGGING],
        notes: "\
The first sample is published one interval after the start. docs/probes.md says what each probe measures.
In the environment LIZM_PUBLISH holds URLs separated by spaces.
",
        examples: "\
lizm monitor --publish http://receiver:8080
lizm monitor --once --probes temp,pressure
lizm monitor --host jarvis --publish https://receiver:8443 --ca ca.pem --cert jarvis.pem --key jarvis.key \\
             --probes default,disk:/var --spool /var/lib/lizm
",
    },
    CommandSpec {
        name: "watch",
        summary: "show the hosts of a receiver, or the labels of one host, in a terminal",
        usage: "URL [--host NAME] [--label TEXT] [--once]",
        options: &[&[
            option("--host", "NAME", Text, "", "show the labels of this host"),
            option("--label", "TEXT", Text, "",
                "of a host, the labels that contain TEXT; of the hosts, up to 8 labels separated by commas, %2C for a comma \
                within one; without it cpu,mem"),
            option("--once", "", Flag, "", "print one snapshot and end"),
        ], CLIENT],
        notes: "\
URL is the receiver, such as http://localhost:8080.
Keys: q or Ctrl+C quit, / filter, s sort, arrows and page keys move, Enter opens a host, Esc goes back.
Where standard output is not a terminal, or a dumb one, it prints plain text every second, as wide as COLUMNS says. In a
locale without UTF-8 it prints ASCII. NO_COLOR in the environment leaves colour out.
",
        examples: "\
lizm watch http://localhost:8080
lizm watch http://localhost:8080 --host jarvis --label disk --once
",
    },
    CommandSpec {
        name: "check",
        summary: "exit 0 when the receiver at URL is healthy, and NAME is up",
        usage: "URL [--host NAME]",
        options: &[&[option("--host", "NAME", Text, "", "also require that this host is up there")], CLIENT],
        notes: "\
URL is the receiver, such as http://localhost:8080. It has 5 seconds for each of two answers.
Exits 0 when all is well and 1 when not, with the reason on standard error.
",
        examples: "lizm check http://localhost:8080 --host jarvis\n",
    },
    CommandSpec {
        name: "forget",
        summary: "remove a host from the receiver at URL, with all that is kept of it",
        usage: "URL HOST [--token-file FILE]",
        options: &[&[option("--token-file", "FILE", File, "",
            "where the receiver needs tokens: one for the host, or an operator's, made by 'lizm token'")], CLIENT],
        notes: "A host that still reports comes back with its next sample: stop its monitor first.\n",
        examples: "lizm forget https://receiver:8443 jarvis --ca ca.pem --token-file operator.token\n",
    },
    CommandSpec {
        name: "alerts",
        summary: "list what fires at a receiver, silence it, check a file of alert rules, or try out a target of it",
        usage: "URL [--silence NAMES --for TIME] | check FILE [URL] | test TARGET --alerts FILE [options]",
        options: &[&[
            option("--silence", "NAMES", Text, "", "tell nothing of these alerts for a while, such as disk,cpu"),
            option("--on", "HOSTS", Text, "", "with --silence: of these hosts alone, such as db-*").with(&["--silence"]),
            option("--for", "TIME", Text, "", "with --silence: how long, such as 30m, 2h or 7d, up to 31d").with(&["--silence"]),
            option("--token-file", "FILE", File, "",
                "with --silence, where the receiver needs tokens: an operator's, made by 'lizm token'").with(&["--silence"]),
            option("--alerts", "FILE", File, "", "with test: the file of rules that names the target").with(&["test"]),
            option("--keep", "LIST", Text, "", "with check: what a receiver with --store memory keeps").with(&["check"]),
            option("--notify-ca", "FILE", File, "",
                "authorities of the certificates of targets, as PEM; without it those of the web").with(&["test"]),
        ], CLIENT],
        notes: "\
URL is the receiver, such as http://localhost:8080. It prints a line for each alert that fires or is pending, with tabs
between: state, severity, name, host, series, value, since when in seconds since 1970, rule.
'check FILE' exits 0 when FILE has no mistake, and else names each with its line. With a URL it prints a line for each
rule with tabs between: how often it would have fired in what the receiver keeps, how many alerts of it would fire now,
how many would be pending, the rule. A line for each of these alerts follows it: its state, host, series.
'test TARGET' sends a message that fires and one that is resolved, and prints what the server has answered to each.
",
        examples: "\
lizm alerts http://localhost:8080
lizm alerts http://localhost:8080 --silence disk --on 'db-*' --for 2h
lizm alerts check alerts.conf http://localhost:8080
lizm alerts test ops --alerts alerts.conf
",
    },
    CommandSpec {
        name: "backup",
        summary: "copy the directory of a receiver's --store, while the receiver runs",
        usage: "DIR TARGET",
        options: &[],
        notes: "\
DIR is the directory of --store, and TARGET one that does not exist. What the receiver answered with 200 before this
began is in the copy. The copy is read back, as a restart does, before the command says that it is there.
",
        examples: "lizm backup /var/lib/lizm /backup/lizm-$(date +%F)\n",
    },
    CommandSpec {
        name: "export",
        summary: "print what a receiver keeps, as CSV or JSON",
        usage: "URL [--host NAME] [--label TEXT] [--from TIME] [--to TIME]",
        options: &[&[
            option("--host", "NAME", Text, "", "of this host; without it of all hosts"),
            option("--label", "TEXT", Text, "", "of the labels that contain TEXT; without it of all labels"),
            option("--from", "TIME", Text, "-1d", "from then on: seconds since 1970, or a time before now such as -2h or -90d"),
            option("--to", "TIME", Text, "", "until then; without it until now"),
            option("--by", "INTERVAL", OneOf(&["minute", "10-minutes", "hour", "day"]), "",
                "minute, 10-minutes, hour or day; without it the finest that is kept for all of the time, up to 11,000 \
                intervals"),
            option("--format", "FORMAT", OneOf(&["csv", "json"]), "csv",
                "csv; or json, a line for each host or page of its labels"),
        ], CLIENT],
        notes: "\
URL is the receiver, such as http://localhost:8080. The columns of CSV are host, label, start-sec, end-sec, num-samples,
mean, sum, min and max. It has 5 seconds for each answer.
",
        examples: "lizm export http://localhost:8080 --host jarvis --label cpu --from -7d > jarvis.csv\n",
    },
    CommandSpec {
        name: "token",
        summary: "print a token for a host, for hosts to join, or for an operator; list who has joined, shut a host out",
        usage: "--host NAME|--join|--operator --token-key FILE [--valid TIME] | --list URL | --revoke HOST URL",
        options: &[&[
            option("--host", "NAME", Text, "",
                "the host that the token is for; may be repeated. *.example.org stands for all names of one more label"),
            option("--join", "", Flag, "",
                "the token is good to join, any number of times: 'lizm monitor --join' exchanges it for one of the host's \
                own. With --host these hosts alone may join"),
            option("--operator", "", Flag, "", "the token is good to remove any host, and to shut it out"),
            option("--token-key", "FILE", File, "", "the receiver's own file, whose first key signs"),
            option("--valid", "TIME", Span(1, 3650 * DAY_SEC), "",
                "how long the token is valid; without it 30d, and with --join 1h").with(&["--token-key"]),
            option("--list", "", Flag, "", "print who has joined at the receiver at URL, and who is shut out"),
            option("--revoke", "HOST", Text, "",
                "shut HOST out of the receiver at URL: no token is good for it that was made until now, and its name may be \
                taken by a new join"),
            option("--token-file", "FILE", File, "", "with --revoke: an operator's token").with(&["--revoke"]),
        ], CLIENT],
        notes: "\
--list prints a line for each host with tabs between: joined or shut-out, host, since when, and when its token was
renewed last, in seconds since 1970.
",
        examples: "\
lizm token --host jarvis --token-key token.key --valid 90d > jarvis.token
lizm token --join --token-key token.key --valid 1h > join.token
lizm token --revoke jarvis http://localhost:8080 --token-file operator.token
",
    },
    CommandSpec {
        name: "man",
        summary: "print the manual page of lizm or of one of its commands",
        usage: "[COMMAND]",
        options: &[],
        notes: "",
        examples: "lizm man receiver | man -l -\nlizm man > /usr/local/share/man/man1/lizm.1\n",
    },
    CommandSpec {
        name: "completions",
        summary: "print what a shell completes of lizm's command lines",
        usage: "bash|zsh|fish",
        options: &[],
        notes: "",
        examples: "\
lizm completions bash > /usr/share/bash-completion/completions/lizm
lizm completions zsh > /usr/local/share/zsh/site-functions/_lizm
lizm completions fish > /usr/share/fish/vendor_completions.d/lizm.fish
",
    },
    CommandSpec {
        name: "demo",
        summary: "a receiver and a monitor of this machine in one process",
        usage: "[--port PORT] [--alerts]",
        options: &[&[option("-p, --port", "PORT", Number(0, 65_535), "8080",
            "port to listen on, on loopback; another where it is taken; 0 picks a free one"),
            option("--alerts", "", Flag, "", "judge a few rules too, and tell the log: keep the processor busy for a minute")], LOGGING],
        notes: "",
        examples: "lizm demo\n",
    },
];
