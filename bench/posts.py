"""Single posts: how many a second, by connections, hosts and stores; what a connection takes; how long a post takes."""

import contextlib
import socket
import tempfile
import time
from functools import partial

from figures import LOAD_SEC, ROUNDS, Row, in_turns, p99, ratios
from load import LINES, SAMPLES, Posts, end_wrk, fill, posts_per_sec
from servers import memory_mb, nginx, receiver, victoria_metrics

CROWD = 2000
CROWD_KB_MOST = 32  # of memory a connection
# The least that lizm is to reach of victoria-metrics and of nginx, by connections.
LEAST = {1: (None, None), 32: (1.2, 0.55), 256: (None, None), CROWD: (0.9, None)}


def rates(rounds):
    return [per_sec for per_sec, _ in rounds]


def rate_row(job, server, rounds):
    return Row(job, rates(rounds), "a second", cpu_sec=[cpu for _, cpu in rounds], memory_mb=memory_mb(server[0].pid))


def cpu_us(rounds):
    """Microseconds of CPU that each round took for a post."""
    return [cpu * 1e6 / (per_sec * LOAD_SEC) for per_sec, cpu in rounds]


def beyond(rounds, others):
    """What a post took more of CPU in each round than in the round of another that was beside it."""
    return [ours - theirs for ours, theirs in zip(cpu_us(rounds), cpu_us(others))]


def post_rows():
    """lizm beside victoria-metrics and nginx, at each number of connections."""
    rows = []
    with receiver() as lizm, victoria_metrics() as peer, nginx() as bare:
        jobs = [(lizm, SAMPLES), (peer, LINES), (bare, SAMPLES)]
        for server, posts in jobs:
            posts_per_sec(server, 32, posts)  # warm, and every series there is exists
        for connections, (least_of_peer, least_of_bare) in LEAST.items():
            ours, theirs, bares = in_turns(*(partial(posts_per_sec, server, connections, posts) for server, posts in jobs))
            many = "1 connection" if connections == 1 else f"{connections:,} connections"
            rows += [
                rate_row(f"posts of two labels for 1,000 hosts, {many}, lizm", lizm, ours),
                rate_row("the same, victoria-metrics", peer, theirs),
                rate_row("the same, nginx with one worker and `return 204`", bare, bares),
                Row("ratio, lizm to victoria-metrics", ratios(rates(ours), rates(theirs)), "×", least=least_of_peer),
                Row("ratio, lizm to nginx", ratios(rates(ours), rates(bares)), "×", least=least_of_bare),
            ]
    return rows


def builtin_rows():
    """The builtin server beside nginx: CPU of the server a post, and posts a second, at each number of connections."""
    rows = []
    with receiver("--http-server", "builtin", "--trust-proxy", "127.0.0.1") as lizm, nginx() as bare:
        for server in (lizm, bare):
            posts_per_sec(server, 32, SAMPLES)  # warm, and every series there is exists
        for connections, least in {2: None, 32: 0.85, 256: None, CROWD: None}.items():
            ours, bares = in_turns(*(partial(posts_per_sec, server, connections, SAMPLES) for server in (lizm, bare)))
            job = f"builtin server to nginx, posts of two labels, {connections:,} connections"
            cpu = ratios(*([cpu / per_sec for per_sec, cpu in rounds] for rounds in (ours, bares)))
            rows += [
                Row(f"{job}: CPU of the server a post", cpu, "×", most=1.5),
                Row(f"{job}: posts a second", ratios(rates(ours), rates(bares)), "×", least=least),
            ]
    return rows


def crowd_kb():
    """Resident kilobytes that a receiver grows by for each connection of a crowd that posts."""
    with receiver() as (process, port):
        posts_per_sec((process, port))  # every series there is exists
        before = memory_mb(process.pid, "VmRSS")
        crowd = SAMPLES.start(port, CROWD, LOAD_SEC)
        time.sleep(LOAD_SEC / 2)
        during = memory_mb(process.pid, "VmRSS")
        end_wrk(crowd)
        return (during - before) * 1000 / CROWD


def crowd_rows():
    job = f"memory a connection, of {CROWD:,} that post, resident in lizm"
    return [Row(job, [crowd_kb() for _ in range(ROUNDS)], "KB", most=CROWD_KB_MOST)]


def growth_rows():
    """A receiver with few hosts beside one with many, of which each is posted to in its turn."""
    few, many = Posts(hosts=1000), Posts(hosts=100_000)
    with receiver() as small, receiver() as large:
        fill(small[1], 1000, minutes=1)
        fill(large[1], 100_000, minutes=1)
        of_few, of_many = in_turns(partial(posts_per_sec, small, 32, few), partial(posts_per_sec, large, 32, many))
        return [
            rate_row("posts of two labels for 1,000 hosts, 32 connections, lizm", small, of_few),
            rate_row("the same for 100,000 hosts", large, of_many),
            Row("ratio, 100,000 hosts to 1,000", ratios(rates(of_many), rates(of_few)), "×", least=0.8),
        ]


def store_rows():
    """A store in a directory beside one in memory, by each of the two HTTP servers."""
    return [row for server in ("tiny_http", "builtin") for row in server_store_rows(server)]


def server_store_rows(server):
    options = ["--http-server", server]
    with (
        tempfile.TemporaryDirectory() as directory,
        receiver(*options) as memory,
        receiver(*options, "--store", directory) as disk,
    ):
        servers = [memory, disk]
        for warmed in servers:
            posts_per_sec(warmed)  # warm, and every series there is exists
        in_memory, on_disk = in_turns(*(partial(posts_per_sec, measured) for measured in servers))
        job = f"posts of two labels for 1,000 hosts, 32 connections, {server}"
        beyond_memory = f"CPU of a post with `--store DIR` beyond that with memory, {server}"
        return [
            rate_row(f"{job}, store in memory", memory, in_memory),
            rate_row("the same with `--store DIR`", disk, on_disk),
            Row("ratio, `--store DIR` to memory", ratios(rates(on_disk), rates(in_memory)), "×", least=0.7),
            Row(beyond_memory, beyond(on_disk, in_memory), "µs", most=5),
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
    return [Row("a post while 100 bodies stall half-way, p99 of 5,000", [p99(times)], "ms", most=50, rounds=1)]
