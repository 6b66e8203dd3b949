"""A receiver on Redis beside one in memory."""

import re
import socket
import time
from functools import partial

from figures import Row, in_turns, ratios
from load import lines_request, posts_per_sec, send_lines
from posts import beyond, cpu_us, rate_row, rates
from servers import cpu_sec, receiver, redis


def redis_memory_bytes(port):
    """What Redis says it uses, of one whose answer ends with its connection."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"INFO memory\r\nQUIT\r\n")
        return int(re.search(rb"used_memory:(\d+)", b"".join(iter(lambda: client.recv(65536), b"")))[1])


def fill_windows(port, hosts, labels):
    """Writes samples into every interval of both windows."""
    now = int(time.time())
    fields = ",".join(f"label-{label}={label * 1.37 + 35.1}" for label in range(labels))
    epochs = [now - 60 * minute for minute in range(60)] + [now - 3600 * hour for hour in range(1, 24)]
    with socket.create_connection(("127.0.0.1", port)) as client:
        for host in range(hosts):
            # Two of each, so that sums, least and most differ as those of real samples do.
            lines = [f"perf,host=full-{host} {fields} {epoch}\n" for epoch in epochs]
            send_lines(client, lines_request(lines + [line.replace("35.", "34.5") for line in lines]))


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


def posts_through(process, server, connections):
    """Posts a second, and the seconds of CPU that the server and Redis have each spent on all of them."""
    before = cpu_sec(process.pid)
    per_sec, cpu = posts_per_sec(server, connections)
    return per_sec, cpu, cpu_sec(process.pid) - before


def crowd_rows(http_server):
    """256 connections, whose commands gather to pipelines, by one of the two HTTP servers."""
    options = ["--http-server", http_server]
    with (
        redis() as (process, redis_port),
        receiver(*options) as memory,
        receiver(*options, "--store", f"redis://127.0.0.1:{redis_port}") as shared,
    ):
        for server in (memory, shared):
            posts_per_sec(server)  # warm, and every series there is exists
        in_memory, in_redis = in_turns(
            partial(posts_per_sec, memory, 256), partial(posts_through, process, shared, 256)
        )
    of_receiver = [(per_sec, cpu) for per_sec, cpu, _ in in_redis]
    of_redis = [(per_sec, cpu) for per_sec, _, cpu in in_redis]
    job = f"{http_server}: posts of two labels for 1,000 hosts with `--store redis://`, 256 connections"
    return [
        Row(job, rates(of_receiver), "a second", least=25_000),
        Row(f"{job}: CPU of the receiver a post beyond that with memory", beyond(of_receiver, in_memory), "µs", most=25),
        Row(f"{job}: CPU of Redis a post", cpu_us(of_redis), "µs", most=25),
    ]


def redis_rows():
    """A receiver on Redis beside one in memory, in turns; and a host of full windows in a Redis of its own."""
    with redis() as (_, redis_port), receiver() as memory, receiver("--store", f"redis://127.0.0.1:{redis_port}") as shared:
        servers = [memory, shared]
        for server in servers:
            posts_per_sec(server)  # warm, and every series there is exists
        in_memory, in_redis = in_turns(*(partial(posts_per_sec, server) for server in servers))
        posts = [
            rate_row("posts of two labels for 1,000 hosts, 32 connections, store in memory", memory, in_memory),
            rate_row("the same with `--store redis://`; CPU and memory without those of Redis", shared, in_redis),
        ]
    with redis() as (_, redis_port), receiver("--store", f"redis://127.0.0.1:{redis_port}") as (_, port):
        fill_windows(port, 1, 10)
        times = summary_ms(port)
    with redis() as (_, redis_port), receiver("--store", f"redis://127.0.0.1:{redis_port}") as (_, port):
        fill_windows(port, 1, 2)
        before = redis_memory_bytes(redis_port)
        fill_windows(port, 1001, 2)
        per_host = (redis_memory_bytes(redis_port) - before) / 1000
    return [
        *posts,
        Row("ratio, `--store redis://`, Redis included, to memory", ratios(rates(in_redis), rates(in_memory)), "×", least=0.3),
        *crowd_rows("tiny_http"),
        *crowd_rows("builtin"),
        Row("`GET /api/perf/HOST` of 10 labels with full windows, through Redis", times, "ms", most=5),
        Row("memory of Redis for a host of two labels, windows full", [per_host], "B"),
    ]
