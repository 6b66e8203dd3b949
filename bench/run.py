#!/usr/bin/env python3
"""Measures lizm beside its peers and writes BENCHMARKS.md; `make bench` runs it.

    run.py STATIC STATIC_ZEROMQ [--only JOB]...

Jobs with a peer run in turns, A B A B, in one run. Every figure is a median with the least and the most. With `--only`
the rows of those jobs are printed, and nothing is written.
"""

import argparse
import contextlib
import functools
import itertools
import json
import os
import pathlib
import platform
import re
import resource
import select
import socket
import ssl
import statistics
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROUNDS = 5
LOAD_SEC = 5
MONITOR_SEC = 60
SETTLE_SEC = 2
UDP_RATE = 125_000
ZMQ_MESSAGES = 2_000_000  # of 1,000 hosts in turns
HANDSHAKES = 500
CROWD_SEC = 4  # within the five that the HTTPS door waits for a head, so that nobody of the crowd is sent away


class Row:
    """One line of the table: the figures of one job, and the bar it is held to."""

    def __init__(self, job, values, unit, bar=None, holds=None):
        self.job, self.values, self.unit, self.bar, self.holds = job, values, unit, bar, holds

    def median(self):
        return statistics.median(self.values)

    def markdown(self):
        least, most = min(self.values), max(self.values)
        spread = f"{figure(least)} – {figure(most)}" if len(self.values) > 1 else ""
        verdict = "" if self.holds is None else ("holds" if self.holds(self.median()) else "**does not hold**")
        return f"| {self.job} | {figure(self.median())} {self.unit} | {spread} | {self.bar or ''} | {verdict} |"


def figure(value):
    """Three significant digits, and all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(arguments):
    """A process with its output thrown away, ended with the block."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def await_port(port):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.001)
    raise SystemExit(f"nothing listens on port {port}")


@contextlib.contextmanager
def receiver(*options):
    port = free_port()
    command = [LIZM, "receiver", "--bind", "127.0.0.1", "--port", str(port), "--log-level", "warning", *options]
    with running(command) as process:
        await_port(port)
        yield process, port


@contextlib.contextmanager
def intake(binary, option, address):
    """A receiver that takes datagrams or messages too: its process, its URL, and the address of its second way in."""
    command = [binary, "receiver", "--bind", "127.0.0.1", "--port", "0", option, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            addresses = []
            while len(addresses) < 2:
                line = process.stdout.readline()
                if not line:
                    raise SystemExit("the receiver has ended")
                addresses += re.findall(r"listening on (?:zmq )?([\w.:/]+)", line)
            yield process, *addresses
        finally:
            process.terminate()


def values_stored(process):
    """Ends a receiver of `intake`, and reads in its log how many values it has stored."""
    process.terminate()
    return int(re.search(r"Receiver stopped: (\d+) values stored", process.stdout.read())[1])


@contextlib.contextmanager
def nginx():
    """nginx with one worker that answers every request with 204."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder, "nginx.conf")
        config.write_text(
            f"worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error;\n"
            "events { worker_connections 4096; }\n"
            "http { access_log off; keepalive_requests 1000000000;\n"
            f"  client_body_temp_path {folder}/body; server {{ listen 127.0.0.1:{port}; location / {{ return 204; }} }} }}\n"
        )
        with running(["nginx", "-c", str(config)]) as process:
            await_port(port)
            yield process, port


@contextlib.contextmanager
def redis():
    """A Redis that keeps nothing on disk: its process and its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder]
        with running(command) as process:
            await_port(port)
            yield process, port


@contextlib.contextmanager
def victoria_metrics():
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        listen = ["-httpListenAddr", f"127.0.0.1:{port}", "-loggerLevel=ERROR"]
        with running(["victoria-metrics", "-storageDataPath", folder, *listen]) as process:
            await_port(port)
            yield process, port


def posts_per_sec(port, connections, scheme="http", token=()):
    url = f"{scheme}://127.0.0.1:{port}"
    command = ["wrk", "-t2", f"-c{connections}", f"-d{LOAD_SEC}", "-s", str(ROOT / "bench/post.lua"), url, "--", *token]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"requests failed:\n{output}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])


def post_rows():
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        memory, disk = (stack.enter_context(receiver(*options))[1] for options in ([], ["--store", directory]))
        peer = stack.enter_context(nginx())[1]
        for port in (memory, disk, peer):
            posts_per_sec(port, 32)  # warm, and every series there is exists
        rounds = [[posts_per_sec(port, 32) for port in (memory, disk, peer)] for _ in range(ROUNDS)]
    return [
        Row("posts of two labels for 1,000 hosts, 32 connections, lizm", [a for a, _, _ in rounds], "a second"),
        Row("the same with `--store DIR`", [b for _, b, _ in rounds], "a second"),
        Row("the same, nginx with one worker and `return 204`", [c for _, _, c in rounds], "a second"),
        Row("ratio, lizm to nginx", [a / c for a, _, c in rounds], "×", "≥ 0.45", lambda ratio: ratio >= 0.45),
        Row("ratio, `--store DIR` to memory", [b / a for a, b, _ in rounds], "×", "≥ 0.7", lambda ratio: ratio >= 0.7),
    ]


@contextlib.contextmanager
def guarded_receiver():
    """A receiver that needs tokens: its process, its plain and its HTTPS port, a token, and the TLS of a client."""
    https = free_port()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([ROOT / "deploy/make-certs.sh", folder, "127.0.0.1", "*.example.org"], stdout=subprocess.DEVNULL, check=True)
        ca, key = f"{folder}/ca.pem", f"{folder}/token.key"
        certificate = ["--tls-cert", f"{folder}/receiver.pem", "--tls-key", f"{folder}/receiver.key"]
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.load_verify_locations(ca)
        tls.load_cert_chain(f"{folder}/any.example.org.pem", f"{folder}/any.example.org.key")
        with receiver("--tls-port", str(https), *certificate, "--trust", ca, "--token-key", key) as (process, plain):
            await_port(https)
            command = [LIZM, "token", "--host", "*.example.org", "--token-key", key]
            token = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
            yield process, plain, https, token, tls


def tls_client(tls, port):
    """A connection with its handshake done, never a resumed one."""
    return tls.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1")


def handshake_ms(process, port, tls):
    """CPU of the receiver for a connection on which the owner of a certificate asks for a token, as its monitor does.

    Only the answer shows that the receiver has verified the certificate.
    """
    before = process_cpu_sec(process.pid)
    for _ in range(HANDSHAKES):
        with tls_client(tls, port) as client:
            client.sendall(b"POST /api/token HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            if not (answer := client.recv(4096)).startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"the owner of a certificate was answered {answer}")
    return (process_cpu_sec(process.pid) - before) / HANDSHAKES * 1000


def crowd_ms(port, token, tls):
    """Milliseconds of each post of a good client among idle, slow and stalled ones, for as long as all of them last."""
    head = f"POST /api/perf/h.example.org/{int(time.time())} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n".encode()
    # Descriptors for them; the receiver sees to its own.
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with contextlib.ExitStack() as stack:
        good, *crowd = (stack.enter_context(tls_client(tls, port)) for _ in range(1 + 1100))
        slow, stalled = crowd[500:1000], crowd[1000:]
        for client in stalled:
            client.sendall(head + b"Content-Length: 50000\r\n\r\n" + 25_000 * b"x")
        times, start, sent = [], time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < CROWD_SEC:
            while sent < elapsed * len(slow):  # a byte a second of each
                turn, at = divmod(sent, len(slow))
                slow[at].sendall(head[turn : turn + 1])
                sent += 1
            times.append(post_ms(good, head))
        # What an answer or an end has come to was not there all the time.
        poll = select.poll()
        for client in crowd:
            poll.register(client, select.POLLIN)
        if gone := poll.poll(0):
            raise SystemExit(f"{len(gone)} of the crowd were sent away meanwhile")
    return times


def trust_rows():
    """The HTTPS door beside the plain one of the same receiver; both need a token."""
    with guarded_receiver() as (process, plain, https, token, tls):
        doors = [(plain, 32, "http", [token]), (https, 32, "https", [token])]
        for door in doors:
            posts_per_sec(*door)  # warm, and every series there is exists
        rounds = [[posts_per_sec(*door) for door in doors] for _ in range(ROUNDS)]
        handshakes = [handshake_ms(process, https, tls) for _ in range(ROUNDS)]
        crowded = [p99(crowd_ms(https, token, tls)) for _ in range(ROUNDS)]
    crowd = "500 idle connections, 500 of a byte a second and 100 stalled bodies"
    return [
        Row("posts of two labels for 1,000 hosts with a token, 32 connections, plain HTTP", [a for a, _ in rounds], "a second"),
        Row("the same over HTTPS", [b for _, b in rounds], "a second"),
        Row("ratio, HTTPS to plain HTTP", [b / a for a, b in rounds], "×", "≥ 0.5", lambda ratio: ratio >= 0.5),
        Row("a handshake with certificates on both sides, and a token issued, CPU of the receiver", handshakes, "ms", "≤ 2 ms", lambda value: value <= 2),
        Row(f"a post over HTTPS among {crowd}, p99", crowded, "ms", "≤ 50 ms", lambda value: value <= 50),
    ]


def redis_memory_bytes(port):
    """What Redis says it uses, of one whose answer ends with its connection."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"INFO memory\r\nQUIT\r\n")
        return int(re.search(rb"used_memory:(\d+)", b"".join(iter(lambda: client.recv(65536), b"")))[1])


def fill(port, hosts, labels):
    """Writes samples into every interval of both windows."""
    now = int(time.time())
    fields = ",".join(f"label-{label}={label * 1.37 + 35.1}" for label in range(labels))
    epochs = [now - 60 * minute for minute in range(60)] + [now - 3600 * hour for hour in range(1, 24)]
    with socket.create_connection(("127.0.0.1", port)) as client:
        for host in range(hosts):
            # Two of each, so that sums, least and most differ as those of real samples do.
            lines = [f"perf,host=full-{host} {fields} {epoch}\n" for epoch in epochs]
            body = "".join(lines + [line.replace("35.", "34.5") for line in lines]).encode()
            client.sendall(b"POST /write HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            if not (answer := client.recv(4096)).startswith(b"HTTP/1.1 204"):
                raise SystemExit(f"a body of lines was answered {answer}")


def summary_ms(port):
    """Milliseconds of each of 200 answers to GET /api/perf/full-0."""
    times = []
    with socket.create_connection(("127.0.0.1", port)) as client, client.makefile("rb") as answers:
        for _ in range(200):
            start = time.perf_counter()
            client.sendall(b"GET /api/perf/full-0 HTTP/1.1\r\nHost: bench\r\n\r\n")
            head = b"".join(iter(answers.readline, b"\r\n"))
            answers.read(int(re.search(rb"Content-Length: (\d+)", head)[1]))
            times.append((time.perf_counter() - start) * 1000)
    return times


def redis_rows():
    """A receiver on Redis beside one in memory, in turns; and a host of full windows in a Redis of its own."""
    with redis() as (_, redis_port), contextlib.ExitStack() as stack:
        stores = [[], ["--store", f"redis://127.0.0.1:{redis_port}"]]
        memory, shared = (stack.enter_context(receiver(*options))[1] for options in stores)
        for port in (memory, shared):
            posts_per_sec(port, 32)  # warm, and every series there is exists
        rounds = [[posts_per_sec(port, 32) for port in (memory, shared)] for _ in range(ROUNDS)]
    with redis() as (_, redis_port), receiver("--store", f"redis://127.0.0.1:{redis_port}") as (_, port):
        fill(port, 1, 10)
        times = summary_ms(port)
    with redis() as (_, redis_port), receiver("--store", f"redis://127.0.0.1:{redis_port}") as (_, port):
        fill(port, 1, 2)
        before = redis_memory_bytes(redis_port)
        fill(port, 1001, 2)
        per_host = (redis_memory_bytes(redis_port) - before) / 1000
    return [
        Row("posts of two labels for 1,000 hosts, 32 connections, with `--store redis://`", [b for _, b in rounds], "a second"),
        Row("ratio, `--store redis://`, Redis included, to memory", [b / a for a, b in rounds], "×", "≥ 0.3", lambda ratio: ratio >= 0.3),
        Row("`GET /api/perf/HOST` of 10 labels with full windows, through Redis", times, "ms", "≤ 5 ms", lambda value: value <= 5),
        Row("memory of Redis for a host of two labels, windows full", [per_host], "B"),
    ]


def bulk_lines(process, port):
    """Lines a second over one connection, and lines per CPU-second, in bodies of 1,000 for 20,000 hosts."""
    nanoseconds = int(time.time()) * 10**9
    requests = []
    for first in range(0, 20_000, 1000):
        hosts = range(first, first + 1000)
        body = "".join(f"perf,host=host-{host} cpu=4.98,mem=35.1 {nanoseconds}\n" for host in hosts).encode()
        requests.append(b"POST /write HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with socket.create_connection(("127.0.0.1", port)) as client:
        def post(request):
            client.sendall(request)
            answer = client.recv(4096)
            if not answer.startswith(b"HTTP/1.1 204"):
                raise SystemExit(f"a body of lines was answered {answer}")

        for request in requests * 2:  # warm, and every series there is exists
            post(request)
        # victoria-metrics goes on working when it has answered: both have the time for it.
        time.sleep(SETTLE_SEC)
        cpu, start, lines, elapsed = process_cpu_sec(process.pid), time.perf_counter(), 0, 0
        for request in itertools.cycle(requests):
            if elapsed >= LOAD_SEC:
                break
            post(request)
            lines, elapsed = lines + 1000, time.perf_counter() - start
        time.sleep(SETTLE_SEC)
        return lines / elapsed, lines / (process_cpu_sec(process.pid) - cpu)


def bulk_rows():
    """Each server is alone on the machine in its turn."""
    rounds = []
    for _ in range(ROUNDS):
        for server in (receiver, victoria_metrics):
            with server() as (process, port):
                rounds.append(bulk_lines(process, port))
    (ours, ours_cpu), (peer, peer_cpu) = zip(*rounds[::2]), zip(*rounds[1::2])
    ratios = [a / b for a, b in zip(ours_cpu, peer_cpu)]
    return [
        Row("lines of two fields for 20,000 hosts, 1,000 a `POST /write`, one connection, lizm", ours, "a second"),
        Row("the same, victoria-metrics", peer, "a second"),
        Row("the same lines, lizm", ours_cpu, "a CPU-second"),
        Row("the same lines, victoria-metrics", peer_cpu, "a CPU-second"),
        Row("ratio per CPU-second, lizm to victoria-metrics", ratios, "×", "≥ 8", lambda ratio: ratio >= 8),
    ]


@functools.cache
def load_program():
    """Builds `benches/load.rs`, and says where it is, so that it starts without the time that cargo takes."""
    command = ["cargo", "bench", "-q", "--bench", "load", "--features", "zeromq", "--no-run", "--message-format=json"]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    artifacts = [json.loads(line) for line in output.splitlines()]
    return next(built["executable"] for built in artifacts if built.get("target", {}).get("name") == "load")


def sent_by(load, *arguments):
    """Runs the load to its end, and says how much it has sent."""
    command = [load, *map(str, arguments)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.removeprefix("sent "))


def udp_round(load, rate):
    """Datagrams that were sent, those of them that were stored, and the seconds of CPU this took the receiver."""
    with intake(LIZM, "--udp", "127.0.0.1:0") as (process, _, address):
        sent = sent_by(load, "udp", address.removeprefix("udp://"), rate, LOAD_SEC)
        time.sleep(0.5)  # for what waits in the kernel
        cpu = process_cpu_sec(process.pid)
        return sent, values_stored(process), cpu


def udp_rows():
    load = load_program()
    per_cpu_sec, offered, lost = [], 0, 0
    for _ in range(ROUNDS):
        _, stored, cpu = udp_round(load, 0)
        per_cpu_sec.append(stored / cpu)
        sent, stored, _ = udp_round(load, UDP_RATE)
        if sent < 0.99 * UDP_RATE * LOAD_SEC:
            raise SystemExit(f"{sent} datagrams were sent in {LOAD_SEC} seconds, which is not {UDP_RATE} a second")
        offered, lost = offered + sent, lost + sent - stored
    fast = "datagrams of a line stored, offered as fast as it goes"
    at_rate = f"datagrams lost, of {offered:,} that came at {UDP_RATE:,} a second"
    return [
        Row(fast, per_cpu_sec, "a CPU-second", "≥ 250,000", lambda rate: rate >= 250_000),
        Row(at_rate, [lost], "datagrams", "0", lambda lost: lost == 0),
    ]


def samples_of(url, host):
    """How many samples a receiver has of `cpu` of a host, asked without the environment's proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/api/perf/{host}/by-hour:cpu") as answer:
        return sum(average["num-samples"] for summary in json.load(answer).values() for average in summary["averages"])


def zmq_round(load):
    """Messages a second, from the start of the sender until the receiver has them all."""
    with intake(LIZM_ZEROMQ, "--zmq", "tcp://127.0.0.1:*") as (process, url, endpoint):
        start = time.perf_counter()
        sent_by(load, "zmq", endpoint, ZMQ_MESSAGES)
        # Messages of one peer are stored in their order, and the last host has the last one.
        while samples_of(url, "host-999") < ZMQ_MESSAGES / 1000:
            if time.perf_counter() - start > 60:
                raise SystemExit("messages were lost")
            time.sleep(0.001)
        elapsed = time.perf_counter() - start
        if (stored := values_stored(process)) != ZMQ_MESSAGES:
            raise SystemExit(f"{stored} values were stored of {ZMQ_MESSAGES} messages")
        return ZMQ_MESSAGES / elapsed


def zmq_rows():
    load = load_program()
    rounds = [zmq_round(load) for _ in range(ROUNDS)]
    job = f"messages of a line by ZeroMQ, {ZMQ_MESSAGES:,} of one peer until all are stored"
    return [Row(job, rounds, "a second", "≥ 300,000", lambda rate: rate >= 300_000)]


def core_rows():
    """The figures of `benches/core.rs`."""
    output = subprocess.run(["cargo", "bench", "-q", "--bench", "core"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    figures = {}
    for line in output.splitlines():
        name, median, least, most = line.split()
        figures[name] = [float(least), float(median), float(most)]
    jobs = [
        ("record_ns", "record one value into an existing series, 1,000 hosts in turns", "ns", 150),
        ("get_ms", "`GET /api/perf/HOST` of 10 labels with full windows, in the server", "ms", 1),
        ("series_young_bytes", "memory of a series with one sample", "B", 400),
        ("series_full_bytes", "memory of a full series: 61 minutes, 25 hours, min and max", "B", 2700),
        ("hosts_100k_mb", "memory of 100,000 hosts of two labels, windows full, resident", "MB", 600),
        ("sweep_100k_hosts_ms", "a sweep of those hosts, 128 locks one after the other", "ms", None),
        ("restore_100k_sec", "restore those hosts from `--store DIR`", "s", 5),
        ("restore_memory_ratio", "most memory while restoring them, to that of the running store", "×", 1.5),
        ("token_us", "check a token of one host, and that it is for that host", "µs", 3),
        ("churn_disk_mb", "disk use after an hour of churn of 1,000 hosts", "MB", None),
        ("churn_disk_excess_mb", "the same beyond three times the live data", "MB", 268),
    ]
    rows = []
    for name, job, unit, most in jobs:
        values = figures[name] if figures[name][0] != figures[name][2] else figures[name][:1]
        rows.append(Row(job, values, unit, most and f"≤ {most:,} {unit}", most and (lambda value, most=most: value <= most)))
    return rows


def cpu_sec(pid):
    """CPU time of all threads, from the scheduler's nanoseconds."""
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def process_cpu_sec(pid):
    """CPU time of a process with that of its threads that have ended, in the kernel's hundredths of a second."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid):
    """Highest resident memory so far."""
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) * 1024 / 1e6


def monitor_rows():
    """A monitor that publishes by HTTP and one that does by UDP, in the same seconds."""
    with intake(LIZM, "--udp", "127.0.0.1:0") as (_, *urls), contextlib.ExitStack() as stack:
        command = [LIZM, "monitor", "--host", "bench", "--publish"]
        pids = [stack.enter_context(running([*command, url])).pid for url in urls]
        time.sleep(3)
        before = [cpu_sec(pid) for pid in pids]
        time.sleep(MONITOR_SEC)
        http, udp = ((cpu_sec(pid) - cpu) / MONITOR_SEC * 1000 for pid, cpu in zip(pids, before))
        memory = resident_mb(pids[0])
    return [
        Row("monitor, CPU a tick, publishing over loopback", [http], "ms", "≤ 1 ms", lambda value: value <= 1),
        Row("the same to `udp://`, in the same seconds", [udp], "ms", "≤ 1 ms", lambda value: value <= 1),
        Row("ratio, `udp://` to `http://`", [udp / http], "×", "≤ 0.5", lambda ratio: ratio <= 0.5),
        Row("monitor, resident memory", [memory], "MB", "≤ 4 MB", lambda value: value <= 4),
    ]


def start_rows():
    size_mb = os.path.getsize(LIZM) / 1e6
    times = []
    for _ in range(20):
        port = free_port()
        start = time.perf_counter()
        with running([LIZM, "receiver", "--bind", "127.0.0.1", "--port", str(port)]):
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as client:
                    client.sendall(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
                    if client.recv(64).startswith(b"HTTP/1.1 200"):
                        break
            times.append((time.perf_counter() - start) * 1000)
    return [
        Row("static binary", [size_mb], "MB", "≤ 6 MB", lambda value: value <= 6),
        Row("exec to first answer", times, "ms", "≤ 20 ms", lambda value: value <= 20),
    ]


def post_ms(client, head):
    """Milliseconds until a post is answered, of a head that lacks its length."""
    body = b'{"cpu": 1}'
    start = time.perf_counter()
    client.sendall(b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body))
    assert client.recv(1024).startswith(b"HTTP/1.1 200")
    return (time.perf_counter() - start) * 1000


def p99(times):
    return sorted(times)[int(len(times) * 0.99)]


def stall_rows():
    """A good client while 100 bodies stand still half-way."""
    with receiver() as (_, port), contextlib.ExitStack() as stalled:
        for _ in range(100):
            client = stalled.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(b"POST /api/perf/h/1 HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + 50_000 * b"x")
        with socket.create_connection(("127.0.0.1", port)) as client:
            head = b"POST /api/perf/h/%d HTTP/1.1\r\n" % time.time()
            times = [post_ms(client, head) for _ in range(5000)]
    return [Row("a post while 100 bodies stall half-way, p99 of 5,000", [p99(times)], "ms", "< 50 ms", lambda value: value < 50)]


def version(command):
    """What a command says of the version of its last or only program; the name alone where it says nothing."""
    with contextlib.suppress(FileNotFoundError):
        output = subprocess.run(command, capture_output=True, text=True)
        return (output.stdout + output.stderr).strip() or command[-1]
    return command[-1]


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())[1]
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) / 2**20
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    # Debian's victoria-metrics does not know its own version.
    peers = [["nginx", "-v"], ["redis-server", "--version"], ["dpkg-query", "-Wf", "${Package} ${Version}", "victoria-metrics"]]
    versions = ", ".join(map(version, peers))
    return f"{os.cpu_count()} × {model}, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}, {rustc}, {versions}"


JOBS = {
    "core": core_rows,
    "start": start_rows,
    "monitor": monitor_rows,
    "stall": stall_rows,
    "post": post_rows,
    "trust": trust_rows,
    "redis": redis_rows,
    "bulk": bulk_rows,
    "udp": udp_rows,
    "zmq": zmq_rows,
}


def write(table):
    (ROOT / "BENCHMARKS.md").write_text(
        "# Benchmarks\n\n"
        "Written by `make bench`, all in one run. A figure is the median of its rounds, with the least and the most; jobs\n"
        "with a peer ran in turns. Load and servers share the machine, which is what makes ratios of one run worth more\n"
        "than figures of two.\n\n"
        f"Machine: {machine()}.\nDate: {time.strftime('%Y-%m-%d')}.\n\n"
        f"| job | median | spread | bar | |\n|---|---|---|---|---|\n{table}\n\n"
        "Not comparable: nginx answers without reading what was posted into anything; it stands for what HTTP itself costs\n"
        "on this machine. victoria-metrics keeps every line, in a directory; lizm keeps averages of them, here in memory.\n"
    )


def main(only):
    rows = [row for job in only or JOBS for row in JOBS[job]()]
    table = "\n".join(row.markdown() for row in rows)
    if not only:
        write(table)
    print(table)
    if any(row.holds and not row.holds(row.median()) for row in rows):
        raise SystemExit("a bar does not hold")


parser = argparse.ArgumentParser(description="Measures lizm beside its peers and writes BENCHMARKS.md.")
parser.add_argument("static")
parser.add_argument("static_zeromq")
parser.add_argument("--only", action="append", choices=JOBS, help="print the rows of this job alone, and write nothing")
arguments = parser.parse_args()
LIZM, LIZM_ZEROMQ = arguments.static, arguments.static_zeromq
main(arguments.only)
