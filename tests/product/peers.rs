//! Other people's programs, as clients and as destinations: what they send is summarised, and what the monitor sends
//! them is theirs.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use lizm::sample::line::{Precision, decode_line, lines};
use lizm::url::encode;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    PATIENCE, Process, Served, await_some, be_busy, last_minute, monitor_of_fixture, now, reserved_address,
};
#[cfg(feature = "tls")]
use crate::harness::{lizm, python_program};

/// Debian's python, which is the one that finds Debian's modules.
fn python(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.args([&["-u", "-c", script], arguments].concat()).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// What a command prints before it ends well.
fn printed(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a URL gives once it gives 200 or 204.
pub(crate) fn fetch(url: &str) -> Option<String> {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    agent.get(url).call().ok()?.body_mut().read_to_string().ok()
}

/// Four points of each of a row of hosts, whatever client sends them, as the API takes them.
fn post_reference(receiver: &Served, minute: u64) {
    for second in 1..=4 {
        let json = format!("{{\"cpu\": {}.5, \"mem\": 35, \"on\": 1, \"off\": 0}}", second * 10);
        assert_eq!(receiver.post(&format!("/api/perf/by-api/{}", minute + second), &json).0, 200);
        let json = format!("{{\"my disk.used %,path=C:\\\\=x, y\": {second}e-3}}");
        assert_eq!(receiver.post(&format!("/api/perf/disk-by-api/{}", minute + second), &json).0, 200);
    }
}

/// The same points as the Python client has them, for a unit of time.
const POINTS: &str = r#"
def points(name, minute, per_second):
    for second in range(1, 5):
        time = (minute + second) * per_second
        fields = {"cpu": second * 10 + 0.5, "mem": 35, "on": True, "off": False, "os": 'a, "b" = \\c'}
        yield {"measurement": "perf", "tags": {"host": name}, "time": time, "fields": fields}
        tags = {"host": name + "-disk", "path": "C:\\=x, y", "none": None}
        yield {"measurement": "my disk", "tags": tags, "time": time, "fields": {"used %": second * 1e-3}}
"#;

fn assert_as_reference(receiver: &Served, host: &str) {
    for (host, reference, summaries) in [(host, "by-api", 8), (&*format!("{host}-disk"), "disk-by-api", 2)] {
        let expected = receiver.averages(reference);
        assert_eq!(expected.len(), summaries);
        assert_eq!(receiver.averages(host), expected, "{host}");
    }
}

#[test]
#[ignore = "needs python3-influxdb"]
fn influxdbs_python_client_writes_over_http() {
    let receiver = Served::start(&[]);
    let script = r#"
import sys
from influxdb import InfluxDBClient
port, minute = int(sys.argv[1]), int(sys.argv[2])
for gzip in False, True:
    client = InfluxDBClient("127.0.0.1", port, "me", "secret", "my hosts", gzip=gzip)
    assert client.ping() == "1.8.10"
    client.create_database("my hosts")
    assert client.get_list_database() == [{"name": "lizm"}]
    for unit, per_second in [("n", 10**9), ("u", 10**6), ("ms", 10**3), ("s", 1), (None, 10**9)]:
        name = "%s-%s" % (unit, "compressed" if gzip else "plain")
        assert client.write_points(points(name, minute, per_second), time_precision=unit)
    client.close()
for unit, seconds in [("m", 60), ("h", 3600)]:
    point = {"measurement": "perf", "tags": {"host": unit}, "time": minute // seconds, "fields": {"v": 1.5}}
    assert client.write_points([point], time_precision=unit, batch_size=1)
try:
    client.write_points([{"measurement": "perf", "tags": {}, "fields": {"v": 1.5}}])
    print("nothing is wrong")
except Exception as error:
    print(error)
"#;
    let (port, minute) = (receiver.address.port().to_string(), last_minute());
    post_reference(&receiver, minute);
    let answer = printed(python(&format!("{POINTS}{script}"), &[&port, &minute.to_string()]));
    assert!(
        answer.starts_with("400: ") && (answer.contains("tag \\\"host\\\"") || answer.contains("tag \\\\\"host")),
        "{answer}"
    );
    for unit in ["n", "u", "ms", "s", "None"] {
        assert_as_reference(&receiver, &format!("{unit}-plain"));
        assert_as_reference(&receiver, &format!("{unit}-compressed"));
    }
    assert_eq!((receiver.samples("m", "v"), receiver.samples("h", "v")), (1, 1));
}

#[test]
#[ignore = "needs influxdb-client from PyPI"]
#[cfg(feature = "tls")]
fn the_python_client_of_influxdb_2_writes_with_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "k".repeat(40)).unwrap();
    let key = key.to_str().unwrap();
    let receiver = Served::start(&["--token-key", key]);
    let script = r#"
import sys
from influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
port, minute, token = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for gzip in False, True:
    client = InfluxDBClient(f"http://127.0.0.1:{port}", token, org="my org", enable_gzip=gzip)
    assert client.ping()
    writer = client.write_api(write_options=SYNCHRONOUS)
    for unit, per_second in [("ns", 10**9), ("us", 10**6), ("ms", 10**3), ("s", 1)]:
        for point in points(unit + ("-compressed" if gzip else ""), minute, per_second):
            # The client does not escape the equals sign of the other measurement's tag, which InfluxDB refuses too.
            if point["measurement"] == "perf":
                writer.write("my bucket", record=point, write_precision=unit)
try:
    writer.write("my bucket", record="perf,host=another v=1")
    print("nothing is wrong")
except Exception as error:
    print(error.status)
"#;
    let (port, minute) = (receiver.address.port().to_string(), last_minute());
    let names = ["ns", "us", "ms", "s"].map(|unit| [unit.to_owned(), format!("{unit}-compressed")]).concat();
    let mut token = lizm(&["token", "--token-key", key]);
    for name in &names {
        token.args(["--host", name]);
    }
    let token = printed(token);
    let mut client = Command::new(python_program("python"));
    client.args(["-c", &format!("{POINTS}{script}"), &port, &minute.to_string(), token.trim()]);
    assert_eq!(printed(client), "403\n");
    let open = Served::start(&[]);
    post_reference(&open, minute);
    for name in &names {
        assert_eq!(receiver.averages(name), open.averages("by-api"), "{name}");
    }
}

#[test]
#[ignore = "needs python3-influxdb"]
fn influxdbs_python_client_writes_over_udp() {
    let receiver = Served::start(&["--udp", "127.0.0.1:0"]);
    let script = r#"
import sys
from influxdb import InfluxDBClient
port, minute = int(sys.argv[1]), int(sys.argv[2])
client = InfluxDBClient("127.0.0.1", use_udp=True, udp_port=port)
for unit, per_second in [("n", 10**9), ("u", 10**6), ("ms", 10**3), ("s", 1), (None, 10**9)]:
    client.write_points(points(str(unit), minute, per_second), time_precision=unit)
"#;
    let (port, minute) = (receiver.udp().port().to_string(), last_minute());
    post_reference(&receiver, minute);
    printed(python(&format!("{POINTS}{script}"), &[&port, &minute.to_string()]));
    for unit in ["n", "u", "ms", "s", "None"] {
        receiver.await_samples(&format!("{unit}-disk"), "my disk.used %,path=C:\\=x, y", 4);
        assert_as_reference(&receiver, unit);
    }
    let (_, log) = receiver.process.stop(Signal::SIGTERM);
    assert!(log.iter().all(|line| !line.starts_with("WARNING")), "{log:?}");
}

#[test]
#[ignore = "needs curl"]
fn curl_posts_a_file_of_lines() {
    let receiver = Served::start(&[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let at = now();
    let text: String = (0..500).map(|n| format!("perf,host=h{n} cpu={n}.5,mem=35 {at}\n")).collect();
    std::fs::write(file.path(), &text).unwrap();
    let from = format!("@{}", file.path().display());
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "-m", "20", "-w", "%{http_code} %{size_download}"]).args(arguments);
        printed(command)
    };
    let url = receiver.url("/write?db=x&precision=s");
    assert_eq!(curl(&["--data-binary", &from, &url]), "204 0");
    // A file of unknown length goes in chunks, and one that is long waits for the interim 100.
    let chunked = ["-X", "POST", "-H", "Transfer-Encoding: chunked", "--data-binary", &from];
    assert_eq!(curl(&[&chunked[..], &[&url]].concat()), "204 0");
    let expecting = ["-H", "Expect: 100-continue", "--data-binary", &from];
    assert_eq!(curl(&[&expecting[..], &[&url, &url]].concat()), "204 0204 0");
    assert!(curl(&["-G", "--data-urlencode", "q=SHOW DATABASES", &receiver.url("/query")]).contains("200 "));
    assert!(curl(&["--data-urlencode", "q=CREATE DATABASE \"x y\"", &receiver.url("/query")]).contains("200 "));
    for host in [0, 77, 499] {
        assert_eq!(receiver.samples(&format!("h{host}"), "cpu"), 4);
        let average = &receiver.averages(&format!("h{host}"))["summary:by-hour:cpu"][0]["avg"];
        assert_eq!(*average, json!(f64::from(host) + 0.5));
    }
    assert_eq!(receiver.get("/api/hosts").1["count"], 500);
}

#[test]
#[ignore = "needs collectd-core"]
fn collectd_reports_by_datagrams() {
    let receiver = Served::start(&["--udp", "127.0.0.1:0"]);
    let root = tempfile::tempdir().unwrap();
    let (base, port) = (root.path().display(), receiver.udp().port());
    let config = format!(
        "Hostname \"collected\"\nFQDNLookup false\nBaseDir \"{base}\"\nPIDFile \"{base}/pid\"\nInterval 1\n\
         TypesDB \"/usr/share/collectd/types.db\"\nLoadPlugin cpu\nLoadPlugin load\nLoadPlugin memory\n\
         LoadPlugin uptime\nLoadPlugin write_influxdb_udp\n<Plugin cpu>\nReportByCpu true\nValuesPercentage true\n\
         </Plugin>\n<Plugin write_influxdb_udp>\nServer \"127.0.0.1\" \"{port}\"\nStoreRates true\n</Plugin>\n"
    );
    let path = root.path().join("collectd.conf");
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new("/usr/sbin/collectd");
    command.args(["-f", "-C"]).arg(&path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let collectd = Process::start(command);
    let host = await_some("three samples of everything", || {
        let (_, list) = receiver.get("/api/hosts");
        let host = list["hosts"].as_array().unwrap().first()?.clone();
        let labels = host["labels"].as_array().unwrap();
        let averages = receiver.averages("collected");
        let has_three =
            |average: &Value| average.as_array().unwrap().last().unwrap()["num-samples"].as_u64() >= Some(3);
        let is_complete = ["cpu", "load", "memory", "uptime"]
            .iter()
            .all(|plugin| labels.iter().any(|label| label.as_str().unwrap().starts_with(plugin)));
        (is_complete && averages.values().all(has_three)).then_some(host)
    });
    assert_eq!((&host["host"], &host["state"], &host["interval-sec"]), (&json!("collected"), &json!("up"), &json!(1)));
    for label in ["cpu.value,instance=0,type=percent,type_instance=idle", "memory.value,type=memory,type_instance=free"]
    {
        assert!(host["labels"].as_array().unwrap().contains(&json!(label)), "{host}");
    }
    assert!(collectd.stop(Signal::SIGTERM).0.success());
    let (_, log) = receiver.process.stop(Signal::SIGTERM);
    assert!(log.iter().all(|line| !line.starts_with("WARNING")), "{log:?}");
    assert!(!log.last().unwrap().contains("refused"), "{log:?}");
}

/// A database of somebody else's, in a directory of its own.
pub(crate) struct Peer {
    _process: Process,
    _root: TempDir,
    pub(crate) address: SocketAddr,
}

impl Peer {
    /// A VictoriaMetrics.
    pub(crate) fn victoria_metrics() -> Self {
        let (root, address) = (tempfile::tempdir().unwrap(), reserved_address());
        let mut command = Command::new("victoria-metrics");
        command.arg(format!("-storageDataPath={}", root.path().display())).arg(format!("-httpListenAddr={address}"));
        let peer = Self::start(command, root, address);
        await_some("VictoriaMetrics", || fetch(&peer.at("/health")));
        peer
    }

    /// An InfluxDB with the database x.
    pub(crate) fn influxdb() -> Self {
        let (root, address, rpc) = (tempfile::tempdir().unwrap(), reserved_address(), reserved_address());
        let base = root.path().display();
        let config = format!(
            "reporting-disabled = true\nbind-address = \"{rpc}\"\n[meta]\ndir = \"{base}/meta\"\n[data]\n\
             dir = \"{base}/data\"\nwal-dir = \"{base}/wal\"\n[http]\nbind-address = \"{address}\"\n\
             [monitor]\nstore-enabled = false\n"
        );
        let path = root.path().join("influxdb.conf");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("influxd");
        command.arg("-config").arg(&path);
        let peer = Self::start(command, root, address);
        await_some("InfluxDB", || fetch(&peer.at("/ping")));
        ureq::post(peer.at("/query?q=CREATE%20DATABASE%20x")).send_empty().unwrap();
        peer
    }

    /// A Prometheus that scrapes `/metrics` each second, without labels of its own.
    pub(crate) fn prometheus(scraped: SocketAddr) -> Self {
        let (root, address) = (tempfile::tempdir().unwrap(), reserved_address());
        let config = format!(
            "scrape_configs:\n- job_name: lizm\n  scrape_interval: 1s\n  static_configs:\n  - targets: ['{scraped}']\n  \
             metric_relabel_configs:\n  - {{regex: instance|job, action: labeldrop}}\n"
        );
        let path = root.path().join("prometheus.yml");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", path.display()));
        command.arg(format!("--storage.tsdb.path={}", root.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        Self::start(command, root, address)
    }

    fn start(mut command: Command, root: TempDir, address: SocketAddr) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self { _process: Process::start(command), _root: root, address }
    }

    /// What Prometheus answers to a query, once it does.
    pub(crate) fn ask(&self, path: &str, pairs: &[(&str, &str)]) -> Option<Value> {
        let request = ureq::get(self.at(&format!("/api/v1/{path}"))).query_pairs(pairs.iter().copied());
        serde_json::from_str(&request.call().ok()?.body_mut().read_to_string().ok()?).ok()
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// A host whose name has all that line protocol escapes. A backslash before one of the others is left out: InfluxDB 1.x
/// cannot have it in a tag.
const HOST: &str = "jar vis,C:\\x=1";

/// Publishes to a peer until it has five samples, one of them with cpu. Says which epochs a receiver beside it was
/// given, and which of them had cpu.
fn publish_five(url: &str) -> (Vec<u64>, u64) {
    let (receiver, root) = (Served::start(&[]), tempfile::tempdir().unwrap());
    let monitor = monitor_of_fixture(root.path(), HOST, &[url, &receiver.url("/api/perf")]);
    let (mut published, mut epochs) = (0, Vec::new());
    let (to_peer, to_api) =
        (format!("INFO: Publish was successful to {url}"), receiver.url(&format!("/api/perf/{}/", encode(HOST))));
    let mut hear = |line: &str| {
        assert!(line.starts_with("INFO: "), "{line}");
        if line == to_peer {
            published += 1;
        } else if let Some((_, epoch)) = line.split_once(&to_api) {
            epochs.push(epoch.parse::<u64>().unwrap());
        }
        published.min(epochs.len())
    };
    while hear(&monitor.line()) < 2 {}
    be_busy(root.path());
    while hear(&monitor.line()) < 5 {}
    for line in monitor.stop(Signal::SIGTERM).1 {
        hear(&line);
    }
    assert_eq!(published, epochs.len());
    assert_eq!(receiver.samples(&encode(HOST), "cpu"), 1);
    let (_, list) = receiver.get("/api/hosts");
    assert_eq!(list["hosts"][0]["last-epoch"], *epochs.last().unwrap());
    let cpu_minute = receiver.averages(&encode(HOST))["summary:by-minute:cpu"][0]["start-sec"].as_u64().unwrap();
    (epochs, cpu_minute)
}

/// That a peer has mem of each epoch, and cpu of one, in the minute that the receiver says.
fn assert_has(epochs: &[u64], cpu_minute: u64, mem: &[(u64, f64)], cpu: &[(u64, f64)]) {
    let expected: Vec<(u64, f64)> = epochs.iter().map(|epoch| (*epoch, 25.0)).collect();
    assert_eq!(mem, expected);
    let [(epoch, busy)] = cpu else { panic!("{cpu:?}") };
    assert!(*busy == 40.0 && epochs.contains(epoch) && (1..=60).contains(&(epoch - cpu_minute)), "{cpu:?}");
}

#[test]
#[ignore = "needs victoria-metrics"]
fn victoriametrics_takes_what_the_monitor_publishes() {
    let peer = Peer::victoria_metrics();
    let at = |path: &str| peer.at(path);
    let (epochs, cpu_minute) = publish_five(&at("/write?db=x"));
    let found = |metric: &str, count: usize| {
        await_some(metric, || {
            fetch(&at("/internal/force_flush"))?;
            let line = fetch(&at(&format!("/api/v1/export?match[]={metric}")))?;
            let series: Value = serde_json::from_str(line.lines().next()?).expect(&line);
            assert_eq!((&series["metric"]["host"], &series["metric"]["db"]), (&json!(HOST), &json!("x")));
            let times = series["timestamps"].as_array()?.iter().map(|ms| ms.as_u64().unwrap());
            let values = series["values"].as_array()?.iter().map(|value| value.as_f64().unwrap());
            let points: Vec<(u64, f64)> = times.map(|ms| ms / 1000).zip(values).collect();
            (points.len() >= count).then_some(points)
        })
    };
    assert_has(&epochs, cpu_minute, &found("perf_mem", epochs.len()), &found("perf_cpu", 1));
    drop(peer);
}

#[test]
#[ignore = "needs influxdb"]
fn influxdb_takes_what_the_monitor_publishes() {
    let peer = Peer::influxdb();
    let at = |path: &str| peer.at(path);
    let (epochs, cpu_minute) = publish_five(&at("/write?db=x"));
    let found = |field: &str| -> Vec<(u64, f64)> {
        let query = format!("/query?db=x&epoch=ns&q=SELECT%20{field}%20FROM%20perf%20GROUP%20BY%20host");
        let answer: Value = serde_json::from_str(&fetch(&at(&query)).unwrap()).unwrap();
        let series = &answer["results"][0]["series"][0];
        assert_eq!(series["tags"], json!({ "host": HOST }));
        let points = series["values"].as_array().expect("points");
        let point = |point: &Value| (point[0].as_u64().unwrap(), point[1].as_f64().unwrap());
        let points = points.iter().map(point);
        points.map(|(ns, value)| (if ns % 1_000_000_000 == 0 { ns / 1_000_000_000 } else { 0 }, value)).collect()
    };
    assert_has(&epochs, cpu_minute, &found("mem"), &found("cpu"));
    drop(peer);
}

#[cfg(feature = "zeromq")]
#[test]
#[ignore = "needs python3-zmq"]
fn messages_of_pyzmq_are_all_stored() {
    let receiver = Served::start(&["--zmq", "tcp://127.0.0.1:0"]);
    let endpoint = receiver.zmq();
    let script = r#"
import sys, zmq
endpoint, at = sys.argv[1], sys.argv[2]
socket = zmq.Context().socket(zmq.PUSH)
socket.connect(endpoint)
for n in range(5000):
    if n % 5 == 0:
        socket.send_string("\n".join("perf,host=h%d cpu=%d,mem=1 %s" % (m, n, at) for m in range(4)))
    elif n % 1000 == 1:
        socket.send(b"nonsense")
    else:
        socket.send_string("perf,host=h%d cpu=%d,os=\"x\" %s\n" % (n % 4, n, at))
socket.send_multipart([b"perf,host=parts cpu=1", b"perf,host=parts cpu=2"])
socket.close()
zmq.Context.instance().term()
"#;
    printed(python(script, &[&endpoint, &now().to_string()]));
    for (host, singles) in [("h0", 1000), ("h1", 995), ("h2", 1000), ("h3", 1000)] {
        receiver.await_samples(host, "cpu", 1000 + singles);
        assert_eq!(receiver.samples(host, "mem"), 1000);
    }
    receiver.await_samples("parts", "cpu", 2);
    let (status, log) = receiver.process.stop(Signal::SIGTERM);
    let last = "INFO: Receiver stopped: 11997 values stored, 5 lines refused, 3995 strings skipped";
    assert!(status.success() && log.last().unwrap() == last, "{log:?}");
}

#[cfg(feature = "zeromq")]
#[test]
#[ignore = "needs python3-zmq"]
fn pyzmq_receives_from_the_monitor_and_may_be_away_for_a_while() {
    let script = r#"
import sys, zmq
socket = zmq.Context().socket(zmq.PULL)
socket.bind(sys.argv[1])
print(socket.getsockopt_string(zmq.LAST_ENDPOINT))
while True:
    print(socket.recv_string())
"#;
    // An address of 127.0.0.0/8 of its own, so that nobody takes the port while the peer is away.
    let peer = Process::start(python(script, &["tcp://127.83.1.10:*"]));
    let endpoint = peer.line();
    let (url, root) = (endpoint.replace("tcp://", "zmq://"), tempfile::tempdir().unwrap());
    let monitor = monitor_of_fixture(root.path(), "jarvis", &[&url]);
    let success = format!("INFO: Publish was successful to {url}");
    let epoch_of = |line: String| -> u64 {
        let decoded = decode_line(&line, Precision::Nanoseconds, 0).unwrap();
        assert_eq!((&*decoded.sample.host, &*decoded.sample.values), ("jarvis", &[("mem".into(), 25.0)][..]));
        decoded.sample.epoch
    };
    let epochs: Vec<u64> = (0..3).map(|_| epoch_of(peer.line())).collect();
    assert!(epochs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{epochs:?}");
    assert_eq!(monitor.line_with("Publish was"), success);
    peer.kill();
    let failed = monitor.line_with("ERROR");
    assert!(failed.starts_with(&format!("ERROR: Publish failed to {url}, details: ")), "{failed}");
    let peer = Process::start(python(script, &[&endpoint]));
    assert_eq!(peer.line(), endpoint);
    let back: Vec<u64> = (0..3).map(|_| epoch_of(peer.line())).collect();
    assert!(back[0] > epochs[2] && back.windows(2).all(|pair| pair[1] == pair[0] + 1), "{back:?}");
    assert_eq!(monitor.line_with("INFO"), success);
    let (status, _) = monitor.stop(Signal::SIGTERM);
    assert!(status.success());
}

#[cfg(feature = "zeromq")]
#[test]
#[ignore = "needs python3-zmq"]
fn a_message_that_is_too_long_ends_its_connection_and_the_next_is_taken() {
    use std::io::Write;

    let receiver = Served::start(&["--zmq", "tcp://127.0.0.1:0"]);
    let script = r##"
import sys, zmq
socket = zmq.Context().socket(zmq.PUSH)
socket.connect(sys.argv[1])
for host, length in [("longest", 32768), ("too-long", 32769)]:
    socket.send((b"perf,host=%s cpu=1\n" % host.encode()).ljust(length, b"#"))
    sys.stdin.readline()
while sys.stdin.readline():
    socket.send(b"perf,host=last cpu=1", zmq.DONTWAIT)
"##;
    let mut peer = python(script, &[&receiver.zmq()]).stdin(Stdio::piped()).spawn().unwrap();
    let mut go_on = peer.stdin.take().unwrap();
    receiver.await_samples("longest", "cpu", 1);
    go_on.write_all(b"\n\n").unwrap();
    // What is sent before the peer notices that its connection has ended is lost.
    await_some("a message by the next connection", || {
        go_on.write_all(b"\n").unwrap();
        (receiver.samples("last", "cpu") > 0).then_some(())
    });
    assert_eq!(receiver.samples("too-long", "cpu"), 0);
    drop(go_on);
    peer.wait().unwrap();
}

/// What the Python client writes of random points is read as the points say. Left out are newlines, which that client
/// writes as a backslash and an n.
#[test]
#[ignore = "needs python3-influxdb"]
fn what_influxdbs_python_client_writes_is_read_as_it_was_meant() {
    let script = r##"
import json, random
from influxdb.line_protocol import make_lines
chance = random.Random(20160604)
PIECES = list("abcXYZ019 ,=\"'\\/#:%-_.äß漢😀")
PIECES += ["\\ ", "\\,", "\\=", "\\\\", "\\n", "C:\\dir", "=\"", "\" ", "1i", "host"]
def name(limit, without=""):
    while True:
        text = "".join(chance.choice(PIECES) for _ in range(chance.randint(1, 8)))
        if len(text.encode()) <= limit and not any(c in text for c in without) and text != "host":
            return text
def number():
    kind = chance.randrange(6)
    if kind == 0: return chance.randint(-2**63, 2**63 - 1)
    if kind == 1: return chance.randint(-100, 100)
    if kind == 2: return chance.choice([True, False])
    if kind == 3: return chance.uniform(-1, 1) * 10.0 ** chance.randint(-300, 299)
    if kind == 4: return chance.choice([0.0, -0.0, 1e21, 1e-7, 5e-324, 100.0])
    return round(chance.uniform(0, 100), 1)
for _ in range(3000):
    measurement = "perf" if chance.random() < 0.3 else name(20)
    # A line whose measurement begins with a hash is a comment.
    measurement = measurement.lstrip("#") or "m"
    host = name(60, without="/")
    tags = {name(16): name(16) for _ in range(chance.choice([0, 0, 1, 2]))}
    fields = {name(16): number() for _ in range(chance.randint(1, 5))}
    texts = {name(16): name(60) for _ in range(chance.choice([0, 0, 0, 1, 2]))}
    fields = {label: value for label, value in fields.items() if label not in texts}
    unit, per_second = chance.choice([("n", 10**9), ("u", 10**6), ("ms", 1000), ("s", 1)])
    time = chance.randint(0, 4 * 10**9 * per_second)
    point = {"measurement": measurement, "tags": {"host": host, **tags}, "time": time, "fields": {**fields, **texts}}
    if chance.random() < 0.1:
        del point["time"]
    line = make_lines({"points": [point]}, unit)
    after = "".join(",%s=%s" % tag for tag in sorted(tags.items()))
    before = "" if measurement == "perf" else measurement + "."
    print(json.dumps({
        "line": line, "unit": unit, "host": host, "strings": len(texts),
        "epoch": -(-time // per_second) if "time" in point else 7,
        "values": {before + label + after: float(value) for label, value in fields.items()}}))
"##;
    let mut body = String::new();
    for printed in printed(python(script, &[])).lines() {
        let point: Value = serde_json::from_str(printed).unwrap();
        let line = point["line"].as_str().unwrap().trim_end_matches('\n');
        let precision = Precision::parse(point["unit"].as_str().unwrap()).unwrap();
        let decoded = decode_line(line, precision, 7).unwrap_or_else(|why| panic!("{why}: {line}"));
        let mut values: Vec<(String, f64)> =
            decoded.sample.values.iter().map(|(label, value)| (label.clone().into_owned(), *value)).collect();
        let of = |(label, value): (&String, &Value)| (label.clone(), value.as_f64().unwrap());
        let mut expected: Vec<(String, f64)> = point["values"].as_object().unwrap().iter().map(of).collect();
        values.sort_by(|a, b| a.0.cmp(&b.0));
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(values, expected, "{line}");
        assert_eq!(
            (&*decoded.sample.host, decoded.sample.epoch),
            (point["host"].as_str().unwrap(), point["epoch"].as_u64().unwrap()),
            "{line}"
        );
        assert_eq!(json!(decoded.strings), point["strings"], "{line}");
        let text = format!("{line}\n");
        assert_eq!(lines(text.as_bytes()).collect::<Vec<_>>(), [(1, Ok(line.trim_ascii()))]);
        body += &text;
    }
    assert_eq!(lines(body.as_bytes()).count(), 3000, "no line takes another into it");
}
