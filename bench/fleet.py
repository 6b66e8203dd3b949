"""The builtin server and a fleet: thousands of hosts with a connection each, and readers while a store stands still."""

import contextlib
import http.client
import os
import pathlib
import re
import resource
import socket
import subprocess
import tempfile
import time
from functools import partial
from signal import SIGCONT, SIGSTOP

from datagrams import load_program
from figures import Row
from servers import cpu_sec, memory_mb, nginx, receiver, redis

FLEET = 18_000
FLEET_SEC = 60
BUILTIN = ("--http-server", "builtin", "--trust-proxy", "127.0.0.1", "--max-connections", "20000")
STALL_CLIENTS = 300
STALL_SEC = 10
DISK_BYTES = 256 << 20


def fleet_round(server):
    """Errors, the p99 in milliseconds, and microseconds of the server's CPU a post."""
    process, port = server
    before = cpu_sec(process.pid)
    command = [load_program(), "posts", f"127.0.0.1:{port}", str(FLEET), str(FLEET), str(FLEET_SEC)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    sent, errors, p99 = re.search(r"sent (\d+) errors (\d+) p50 \S+ p99 (\S+)", said).groups()
    return int(errors), float(p99), (cpu_sec(process.pid) - before) / int(sent) * 1e6


def idle_kb():
    """Resident kilobytes of an idle connection that has posted once."""
    with receiver(*BUILTIN) as (process, port), contextlib.ExitStack() as held:
        before = memory_mb(process.pid, "VmRSS")
        head = b"POST /api/perf/h/%d HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n" % time.time()
        for _ in range(FLEET):
            client = held.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(head + b'{"cpu":1}')
            assert client.recv(1024).startswith(b"HTTP/1.1 200")
        return (memory_mb(process.pid, "VmRSS") - before) * 1000 / FLEET


def fleet_rows():
    """Servers with a post a second of each host, and a crowd that says nothing."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with receiver(*BUILTIN) as lizm, nginx() as bare:
        (errors, p99, cpu), (_, bare_p99, bare_cpu) = fleet_round(lizm), fleet_round(bare)
    job = f"builtin server, {FLEET:,} connections of a post a second each, {FLEET_SEC} s"
    return [
        Row(f"{job}: errors", [errors], "", most=0),
        Row("the same: p99", [p99], "ms", most=20),
        Row("the same, nginx: p99", [bare_p99], "ms"),
        Row("the same: CPU of the server a post, to nginx", [cpu / bare_cpu], "×", most=1.5),
        Row(f"memory of an idle connection, of {FLEET:,}, builtin server, resident", [idle_kb()], "KB", most=2),
    ]


def slowest_ms(port, seconds):
    """The longest wait for each of three answers, asked in turns."""
    paths, longest, until = ("/health", "/", "/api/perf/other"), {}, time.monotonic() + seconds
    while time.monotonic() < until:
        for path in paths:
            began = time.monotonic()
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            client.request("GET", path)
            client.getresponse().read()
            client.close()
            longest[path] = max(longest.get(path, 0), (time.monotonic() - began) * 1000)
    return [longest[path] for path in paths]


def stalled_ms(store, stall, go_on):
    """The same, while hundreds of clients post to a store that stands still."""
    with receiver(*BUILTIN, "--store", store) as (_, port):
        command = [load_program(), "posts", f"127.0.0.1:{port}", str(STALL_CLIENTS), str(STALL_CLIENTS), str(STALL_SEC)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as posts:
            time.sleep(STALL_SEC / 4)
            stall()
            try:
                return slowest_ms(port, STALL_SEC / 2)
            finally:
                go_on()
                posts.wait()


@contextlib.contextmanager
def small_disk():
    """A file system of its own, as root."""
    with tempfile.TemporaryDirectory() as folder:
        image, disk = pathlib.Path(folder, "image"), pathlib.Path(folder, "disk")
        image.write_bytes(b"")
        os.truncate(image, DISK_BYTES)
        disk.mkdir()
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, disk], check=True)
        try:
            yield disk
        finally:
            subprocess.run(["umount", disk], check=True)


def standstill_rows():
    """Readers while a disk is frozen, and while a Redis is stopped."""
    rows = []
    with small_disk() as disk, redis() as (process, port):
        def freeze(flag):
            subprocess.run(["fsfreeze", flag, disk], check=True)

        for what, store, stall, go_on in (
            ("a frozen disk", f"{disk}/store", partial(freeze, "-f"), partial(freeze, "-u")),
            ("a stopped Redis", f"redis://127.0.0.1:{port}", *(partial(process.send_signal, s) for s in (SIGSTOP, SIGCONT))),
        ):
            times = stalled_ms(store, stall, go_on)
            for path, ms in zip(("`/health`", "the page", "another host"), times):
                rows.append(Row(f"{path}, the slowest while {STALL_CLIENTS} clients post to {what}", [ms], "ms", most=100))
    return rows
