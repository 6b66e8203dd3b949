"""Single posts: how many a second, and how long one takes."""

import contextlib
import re
import socket
import subprocess
import tempfile
import time

from figures import LOAD_SEC, ROUNDS, Row, p99
from servers import ROOT, nginx, receiver


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


def post_ms(client, head):
    """Milliseconds until a post is answered, of a head that lacks its length."""
    body = b'{"cpu": 1}'
    start = time.perf_counter()
    client.sendall(b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body))
    assert client.recv(1024).startswith(b"HTTP/1.1 200")
    return (time.perf_counter() - start) * 1000


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
