"""The core without a network, and the start of the static binary."""

import contextlib
import os
import socket
import subprocess
import time

import servers
from figures import Row
from servers import ROOT, free_port, running


def core_rows():
    """The figures of `benches/core.rs`."""
    command = ["cargo", "bench", "-q", "--bench", "core"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    figures = {}
    for line in output.splitlines():
        name, *values = line.split()
        figures[name] = [float(value) for value in values]
    jobs = [
        ("record_ns", "record one value into an existing series, 1,000 hosts in turns", "ns", 150),
        ("get_ms", "`GET /api/perf/HOST` of 10 labels with full windows, in the server", "ms", 1),
        ("series_young_bytes", "memory of a series with one sample", "B", 400),
        ("series_full_bytes", "memory of a full series: 61 minutes, 25 hours, min and max", "B", 2700),
        ("hosts_1000_2_mb", "memory of 1,000 hosts of two labels, windows full, resident", "MB", None),
        ("hosts_1000_10_mb", "the same of ten labels", "MB", None),
        ("hosts_10000_2_mb", "memory of 10,000 hosts of two labels, windows full, resident", "MB", None),
        ("hosts_10000_10_mb", "the same of ten labels", "MB", None),
        ("hosts_100000_2_mb", "memory of 100,000 hosts of two labels, windows full, resident", "MB", 600),
        ("hosts_100000_10_mb", "the same of ten labels", "MB", None),
        ("sweep_100k_hosts_ms", "a sweep of 100,000 hosts of two labels, 128 locks one after the other", "ms", None),
        ("restore_100k_sec", "restore those hosts from `--store DIR`", "s", 5),
        ("restore_memory_ratio", "most memory while restoring them, to that of the running store", "×", 1.5),
        ("token_us", "check a token of one host, and that it is for that host", "µs", 3),
        ("alerts_closed_ms", "evaluate 20 rules over 10,000 hosts of ten labels whose minute has closed", "ms of CPU", 100),
        ("alerts_unchanged_ms", "the same where no minute has closed since", "ms of CPU", None),
        ("churn_disk_mb", "disk use after an hour of churn of 1,000 hosts", "MB", None),
        ("churn_disk_excess_mb", "the same beyond three times the live data", "MB", 268),
    ]
    return [Row(job, figures[name], unit, most=most) for name, job, unit, most in jobs]


def start_rows():
    size_mb = os.path.getsize(servers.LIZM) / 1e6
    times = []
    for _ in range(20):
        port = free_port()
        start = time.perf_counter()
        with running([servers.LIZM, "receiver", "--bind", "127.0.0.1", "--port", str(port)]):
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as client:
                    client.sendall(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
                    if client.recv(64).startswith(b"HTTP/1.1 200"):
                        break
            times.append((time.perf_counter() - start) * 1000)
    return [
        Row("static binary, the one file of the image", [size_mb], "MB", most=6),
        Row("exec to first answer", times, "ms", most=10),
    ]
