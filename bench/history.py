"""History: the disk that a year takes, how long ranges take from there while posts come in, and a restart."""

import http.client
import os
import pathlib
import random
import re
import resource
import socket
import subprocess
import tempfile
import time

from datagrams import load_program
from figures import Row, p99
from fleet import BUILTIN
from load import lines_request
from servers import memory_mb, receiver

KEEP = "1m:1d,1h:90d,1d:2y"
MINUTE, HOUR, DAY = 60, 3600, 86_400
# The labels of a monitor, and to how many digits it measures each up to what.
LABELS = {
    "cpu": (1, 100), "mem": (1, 100), "swap": (1, 100), "disk": (1, 100), "load1": (2, 8), "load-per-core": (2, 4),
    "disk-free": (0, 10**12), "disk-read": (0, 10**8), "disk-write": (0, 10**8), "net-in": (0, 10**7), "net-out": (0, 10**7),
    "processes": (0, 500),
}  # fmt: skip
HOSTS = 100
RESTART_HOSTS = 834  # 10,008 series
POSTS_PER_SEC = 20_000
POST_HOSTS = 10_000  # a process has 20,000 descriptors in some places
POSTS_SEC = 30
ASKS = 400
CHECKPOINT_SEC = 30  # between two checkpoints of a receiver
RANGES = {
    "a year by day": "from=-366d&by=day",
    "a week by hour": "from=-7d&by=hour",
    "a day by minute": "from=-1d&by=minute",
}


def year(now):
    """An epoch in each interval that is kept of a year."""
    starts = (now - 365 * DAY, now - 90 * DAY, now - DAY, now)
    spans = zip(starts, starts[1:], (DAY, HOUR, MINUTE))
    return [epoch for first, end, interval in spans for epoch in range(first, end, interval)]


def put_lines(client, request):
    """Sends lines again while the disk is busy: twice in an interval is no matter here."""
    while True:
        client.sendall(request)
        answer = client.recv(4096)
        if answer.startswith(b"HTTP/1.1 204"):
            return
        if not answer.startswith(b"HTTP/1.1 503"):
            raise SystemExit(f"a body of lines was answered {answer}")
        time.sleep(0.1)


def fill_year(port, hosts, samples):
    """Posts so many samples into each interval of each label. Returns how many intervals of all windows have some."""
    now = int(time.time())
    epochs, measured = year(now), random.Random(1)
    with socket.create_connection(("127.0.0.1", port)) as client:
        for epoch in epochs:
            for second in range(samples):
                values = (f"{label}={measured.uniform(most / 2, most):.{digits}f}" for label, (digits, most) in LABELS.items())
                fields = ",".join(values)
                stamp = (epoch + second) * 10**9
                for first in range(0, hosts, 1000):
                    names = range(first, min(first + 1000, hosts))
                    put_lines(client, lines_request(f"perf,host=full-{host} {fields} {stamp}\n" for host in names))
    windows = ((DAY, 732 * DAY), (HOUR, 90 * DAY), (MINUTE, DAY))
    each = sum(len({(epoch - 1) // interval for epoch in epochs if epoch > now - span}) for interval, span in windows)
    return each * hosts * len(LABELS)


def disk_bytes(directory):
    """Blocks that the files of a directory take."""
    return sum(os.lstat(path).st_blocks * 512 for path in pathlib.Path(directory).rglob("*") if path.is_file())


def settle(directory):
    """Waits for two checkpoints that leave the disk as it is. Returns the bytes of it."""
    before, used = None, disk_bytes(directory)
    while before is None or abs(used - before) > 1 << 20:
        time.sleep(CHECKPOINT_SEC + 5)
        before, used = used, disk_bytes(directory)
    return used


def ask_ms(port, path):
    """The milliseconds of each of many answers, one after the other."""
    times, client = [], http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(ASKS):
        start = time.perf_counter()
        client.request("GET", path)
        body = client.getresponse().read()
        times.append((time.perf_counter() - start) * 1000)
        if b"averages" not in body:
            raise SystemExit(f"{path} was answered {body}")
        time.sleep(0.01)
    return times


def range_rows(port):
    """Ranges while hosts of their own post two samples a second each."""
    rows, taken, posted = [], [], []
    for what, query in RANGES.items():
        command = [load_program(), "posts", f"127.0.0.1:{port}", *map(str, (POST_HOSTS, POSTS_PER_SEC, POSTS_SEC))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as posts:
            time.sleep(POSTS_SEC / 4)
            start = time.monotonic()
            times = [p99(ask_ms(port, f"/api/perf/full-{host}/cpu?{query}")) for host in range(3)]
            taken.append(time.monotonic() - start)
            said = posts.communicate()[0]
        sent, errors = map(int, re.search(r"sent (\d+) errors (\d+)", said).groups())
        posted.append((sent - errors) / POSTS_SEC)
        rows.append(Row(f"{what} of one label from `--store DIR`, p99 while posts come in", times, "ms", most=20))
    return [*rows, Row("posts a second meanwhile that were answered well", posted, "a second")]


def disk_rows():
    with tempfile.TemporaryDirectory() as directory:
        options = ("--store", directory, "--keep", KEEP, *BUILTIN)
        with receiver(*options) as (_, port):
            intervals = fill_year(port, HOSTS, samples=2)
            used = settle(directory)
            job = f"disk of a year of {HOSTS} hosts of {len(LABELS)} labels by `{KEEP}`, an interval with samples"
            return [Row(job, [used / intervals], "B", most=32), *range_rows(port)]


def restart_rows():
    with tempfile.TemporaryDirectory() as directory:
        options = ("--store", directory, "--keep", KEEP)
        with receiver(*options) as (process, port):
            fill_year(port, RESTART_HOSTS, samples=1)
            settle(directory)
            before = memory_mb(process.pid, "VmRSS")
        start = time.monotonic()
        with receiver(*options) as (process, port):
            took = time.monotonic() - start
            settle(directory)
            after = memory_mb(process.pid, "VmRSS")
    series = f"{RESTART_HOSTS * len(LABELS):,} series a year old"
    return [
        Row(f"restart with {series} in `--store DIR`", [took], "s", most=5),
        Row("memory after it, to that of the receiver that was never restarted", [after / before], "×", most=1.2),
    ]


def history_rows():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return [*disk_rows(), *restart_rows()]
