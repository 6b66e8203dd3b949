#!/usr/bin/env python3
"""Measures lizm beside its peers and writes BENCHMARKS.md; `make bench` runs it.

Jobs with a peer run in turns, A B A B, in one run. Every figure is a median with the least and the most.
"""

import contextlib
import os
import pathlib
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIZM = sys.argv[1]
ROUNDS = 5
LOAD_SEC = 5
MONITOR_SEC = 60


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


def posts_per_sec(port, connections):
    command = ["wrk", "-t2", f"-c{connections}", f"-d{LOAD_SEC}", "-s", str(ROOT / "bench/post.lua"), f"http://127.0.0.1:{port}"]
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


def resident_mb(pid):
    """Highest resident memory so far."""
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) * 1024 / 1e6


def monitor_rows():
    with receiver() as (_, port):
        command = [LIZM, "monitor", "--host", "bench", "--publish", f"http://127.0.0.1:{port}"]
        with running(command) as process:
            time.sleep(3)
            before = cpu_sec(process.pid)
            time.sleep(MONITOR_SEC)
            tick_ms = (cpu_sec(process.pid) - before) / MONITOR_SEC * 1000
            memory = resident_mb(process.pid)
    return [
        Row("monitor, CPU a tick, publishing over loopback", [tick_ms], "ms", "≤ 1 ms", lambda value: value <= 1),
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


def stall_rows():
    """A good client while 100 bodies stand still half-way."""
    def post_ms(client):
        body = b'{"cpu": 1}'
        start = time.perf_counter()
        client.sendall(b"POST /api/perf/h/%d HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (time.time(), len(body), body))
        assert client.recv(1024).startswith(b"HTTP/1.1 200")
        return (time.perf_counter() - start) * 1000

    with receiver() as (_, port), contextlib.ExitStack() as stalled:
        for _ in range(100):
            client = stalled.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(b"POST /api/perf/h/1 HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + 50_000 * b"x")
        with socket.create_connection(("127.0.0.1", port)) as client:
            times = sorted(post_ms(client) for _ in range(5000))
    p99 = times[int(len(times) * 0.99)]
    return [Row("a post while 100 bodies stall half-way, p99 of 5,000", [p99], "ms", "< 50 ms", lambda value: value < 50)]


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())[1]
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) / 2**20
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    versions = [
        subprocess.run(command, capture_output=True, text=True).stderr.strip() or command[0] for command in (["nginx", "-v"],)
    ]
    return f"{os.cpu_count()} × {model}, {memory:.0f} GiB, Linux {platform.release()}, {rustc}, {', '.join(versions)}"


def main():
    rows = core_rows() + start_rows() + monitor_rows() + stall_rows() + post_rows()
    table = "\n".join(row.markdown() for row in rows)
    (ROOT / "BENCHMARKS.md").write_text(
        "# Benchmarks\n\n"
        "Written by `make bench`, all in one run. A figure is the median of its rounds, with the least and the most; jobs\n"
        "with a peer ran in turns. Load and servers share the machine, which is what makes ratios of one run worth more\n"
        "than figures of two.\n\n"
        f"Machine: {machine()}.\nDate: {time.strftime('%Y-%m-%d')}.\n\n"
        f"| job | median | spread | bar | |\n|---|---|---|---|---|\n{table}\n\n"
        "Not comparable: nginx answers without reading what was posted into anything; it stands for what HTTP itself costs\n"
        "on this machine.\n"
    )
    print(table)
    if any(row.holds and not row.holds(row.median()) for row in rows):
        raise SystemExit("a bar does not hold")


main()
