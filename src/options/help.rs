//! The help of the program and of each command.

pub(super) const HELP: &str = concat!(
    "lizm ",
    env!("CARGO_PKG_VERSION"),
    " - host metrics without a monitoring stack

Usage:
  lizm receiver [options]                        take what hosts publish, summarise it, serve it
  lizm monitor --host NAME --publish URL [URL…]  read this host every second and publish it
  lizm watch URL [--host NAME]                   show the hosts, or the labels of one, in a terminal
  lizm check URL [--host NAME]                   exit 0 when the receiver at URL is well (and NAME is up)
  lizm token --host NAME --token-key FILE        print a token for a host without a certificate
  lizm demo [--port 8080]                        a receiver and a monitor of this machine in one process

'lizm COMMAND --help' explains the options of a command; 'lizm --version' prints the version.

Every option --some-name can be given as LIZM_SOME_NAME in the environment too, but for the
--host of lizm token; the command line wins.
Exit codes: 0 done, 1 failed, 2 wrong usage.
"
);

pub(super) const RECEIVER_HELP: &str = "lizm receiver - take what hosts publish, summarise it, serve it

Usage: lizm receiver [options]

  -p, --port PORT       port to listen on, 0 picks a free one [8080]
      --bind ADDRESS    address to listen on [0.0.0.0]
      --store WHERE     memory, or a directory that what was received is kept in, or a Redis that receivers share:
                        redis://[USER:PASSWORD@]HOST:PORT/DB, rediss://… over TLS,
                        redis+cluster://HOST:PORT,HOST:PORT [memory]
      --store-ca FILE   certificates, in PEM, that a rediss:// is trusted by [those of the system]
      --fsync WHEN      second: a power cut may cost the last second; always: none that was answered [second]
      --serve WHAT      all; or as two services that share a Redis: intake takes samples, summaries answers [all]
      --udp ADDR        take line protocol in datagrams there too, such as 0.0.0.0:8089
      --zmq ENDPOINT    take line protocol in messages of ZeroMQ there too, such as tcp://0.0.0.0:5557; needs a lizm
                        built with the feature zeromq
      --tls-port PORT   open the HTTPS door there too; it is safe to face anyone
      --tls-cert FILE   its certificate and those that lead from it to a root, as PEM
      --tls-key FILE    the key of its certificate, as PEM
      --no-plain        open the HTTPS door alone
      --trust FILE      certificates of the authorities whose clients are given tokens, roots and intermediates as PEM
      --token-key FILE  what signs tokens, made where it is not there; submitting and deleting need a token then
      --token-valid T   how long a token is valid that is given for a certificate, such as 90s, 5m or 1h [5m]
      --max-connections N  most connections to the HTTPS door [4096]
      --read-password-file FILE  a password that reading needs, but for /health; any user name will do
      --max-series N    most series, a label of a host each; values of new ones are refused past it [1000000]
      --workers N       threads that answer requests [16]
      --metrics-hosts N most hosts whose values /metrics has, the first by name; 0 for none [1000]
      --log-level L     error, warning, info or debug [info]
      --log-format F    text or json [text]

What it serves:
  POST   /api/perf/HOST/EPOCH   {\"label\": number, …}, measured in the second that ends at EPOCH
  GET    /api/perf/HOST         averages by minute for the last hour, by hour for the last day
  GET    /api/perf/HOST/TEXT    those whose key contains TEXT, such as by-minute:cpu
  DELETE /api/perf/HOST         forget a host
  GET    /api/hosts             all hosts and how they are; ?series=cpu,mem adds their last hour
  POST   /write                 lines of line protocol: perf,host=HOST cpu=4.98,mem=35.1 EPOCH; gzip and chunks too
  GET    /ping, /query          what clients of InfluxDB 1.x ask before they write
  POST   /api/token             over HTTPS with a client certificate: a token for the hosts that it names
  GET    /health                200 while it is well
  GET    /metrics               what Prometheus reads: of this process, and the running minute of each host

SIGTERM and SIGINT finish what was taken, make it durable, and exit 0.
";

pub(super) const MONITOR_HELP: &str = "lizm monitor - read this host and publish it

Usage: lizm monitor --host NAME --publish URL [URL…] [options]

      --host NAME       what this host is called at the receiver; it must be unique (also --this-host)
      --publish URL     where to publish; may name several URLs and be repeated:
                        http://receiver:8080            a receiver, https:// too
                        http://influx:8086/write?db=x   line protocol, to whatever takes it
                        udp://receiver:8089             the same in datagrams, without an answer
                        zmq://receiver:5557             the same in messages of ZeroMQ (feature zeromq)
      --interval SEC    seconds between samples [1]
      --probes LIST     what to measure, with commas between: default, which is cpu, mem, swap, load, disk, io, net,
                        processes and uptime on Linux; cpu-parts, disk:PATH, io:DEVICE, net:INTERFACE [default]
      --scope WHOSE     host, or cgroup: cpu and mem are what the monitor's cgroup uses of its limits [host]
      --textfile DIR    publish the numbers in DIR/*.txt too, a label and a value a line
      --procfs DIR      where the proc file system is mounted (also HOST_PROC in the environment) [/proc]
      --rootfs DIR      where the root file system is mounted whose disks are measured [/]
      --backlog N       most samples that wait in memory for a destination that is down [3600]
      --spool DIR       keeps what waits in files too, so that a restart of the monitor publishes it
      --ca FILE         authorities of the certificates of https receivers, as PEM [those of the web]
      --cert FILE       this host's certificate, and those that lead from it to a root, as PEM: https receivers give it
                        tokens, which are renewed by themselves
      --key FILE        the key of the certificate, as PEM
      --token-from URL  the https receiver that gives tokens for all of --publish, datagrams and messages too
      --token-file FILE a token made by 'lizm token', for all of --publish; read again when it changes
      --log-level L     error, warning, info or debug [info]
      --log-format F    text or json [text]

The first sample is published one interval after the start. The README says what each probe measures.
In the environment LIZM_PUBLISH holds URLs with spaces between them.
";

pub(super) const CHECK_HELP: &str = "lizm check - ask a receiver whether it is well

Usage: lizm check URL [--host NAME]

      URL               the receiver, such as http://localhost:8080
      --host NAME       also require that this host is up there
      --ca FILE         authorities of the receiver's certificate, as PEM [those of the web]
      --password-file FILE  the password of the receiver's --read-password-file, which --host needs

Exits 0 when all is well and 1 when not, with the reason on standard error.
";

pub(super) const TOKEN_HELP: &str = "lizm token - print a token for a host without a certificate

Usage: lizm token --host NAME --token-key FILE [--valid 30d]

      --host NAME       the host that may be submitted to with it; may be repeated. *.example.org stands for all names
                        of one more label
      --token-key FILE  the receiver's own, whose first key signs
      --valid T         how long it is valid, such as 12h or 30d, up to 3650d [30d]
";

pub(super) const WATCH_HELP: &str = "lizm watch - show the hosts of a receiver, or the labels of one, in a terminal

Usage: lizm watch URL [--host NAME] [--label TEXT] [--once]

      URL               the receiver, such as http://localhost:8080
      --host NAME       show the labels of this host
      --label TEXT      of a host, the labels that contain TEXT; of the hosts, these labels, with commas between [cpu,mem]
      --once            print one picture and end
      --ca FILE         authorities of the receiver's certificate, as PEM [those of the web]
      --password-file FILE  the password of the receiver's --read-password-file

Keys: q or Ctrl+C quit, / filter, s sort, arrows and page keys move, Enter opens a host, Esc goes back.
Where standard output is not a terminal it prints plain text every second; NO_COLOR in the environment leaves colour out.
";

pub(super) const DEMO_HELP: &str = "lizm demo - a receiver and a monitor of this machine in one process

Usage: lizm demo [--port 8080]

  -p, --port PORT       port to listen on, on loopback; another where it is taken [8080]
      --log-level L     error, warning, info or debug [info]
      --log-format F    text or json [text]
";
