"""Tokens, certificates and HTTPS: what they cost, and what a crowd of bad clients costs a good one."""

import contextlib
import select
import socket
import ssl
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import servers
from figures import ROUNDS, Row, in_turns, p99, ratios
from load import Posts, end_wrk, posts_per_sec
from posts import post_ms, rate_row, rates
from servers import ROOT, await_port, cpu_sec, free_port, receiver

HANDSHAKES = 200
CROWD_THREADS = 8  # which make the connections of a crowd
CROWD_SEC = 4  # within the five that the HTTPS server waits for a head, so that no connection of the crowd is ended


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
        # Its crowd has one address, and more connections than that may have by default.
        options = ["--http-server", "builtin", "--max-connections-per-address", "2000", "--tls-port", str(https)]
        with receiver(*options, *certificate, "--trust", ca, "--token-key", key) as (process, plain):
            await_port(https)
            command = [servers.LIZM, "token", "--host", "*.example.org", "--token-key", key]
            token = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
            yield process, plain, https, token, tls


def tls_client(tls, port):
    """A connection with its handshake done, never a resumed one."""
    return tls.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1")


def handshake_ms(process, port, tls):
    """CPU of the receiver for a connection on which the owner of a certificate asks for a token, as its monitor does.

    Only the answer shows that the receiver has verified the certificate.
    """
    before = cpu_sec(process.pid)
    for _ in range(HANDSHAKES):
        with tls_client(tls, port) as client:
            client.sendall(b"POST /api/token HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            if not (answer := client.recv(4096)).startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"the owner of a certificate was answered {answer}")
    return (cpu_sec(process.pid) - before) / HANDSHAKES * 1000


def crowd_ms(port, token, tls):
    """Milliseconds of each post of a good client among idle, slow and stalled ones, for as long as all of them last."""
    request = f"POST /api/perf/h.example.org/{int(time.time())} HTTP/1.1\r\nHost: bench\r\n"
    head = f"{request}Authorization: Bearer {token}\r\n".encode()
    with contextlib.ExitStack() as stack:
        with ThreadPoolExecutor(CROWD_THREADS) as threads:
            connected = list(threads.map(partial(tls_client, tls), [port] * (1100 + 1)))
        *crowd, good = map(stack.enter_context, connected)
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
    """HTTPS beside plain HTTP of the same receiver; both need a token."""
    with guarded_receiver() as (process, plain, https, token, tls):
        servers = [((process, plain), 32, Posts(token=token)), ((process, https), 32, Posts(scheme="https", token=token))]
        for (_, port), connections, posts in servers:
            end_wrk(posts.start(port, connections, 1))  # warm, and every series there is exists
        on_plain, on_https = in_turns(*(partial(posts_per_sec, *server) for server in servers))
        posts = [
            rate_row("posts of two labels for 1,000 hosts with a token, 32 connections, plain HTTP", (process, plain), on_plain),
            rate_row("the same over HTTPS", (process, https), on_https),
        ]
        handshakes = [handshake_ms(process, https, tls) for _ in range(ROUNDS)]
        crowded = [p99(crowd_ms(https, token, tls)) for _ in range(ROUNDS)]
    crowd = "500 idle connections, 500 of a byte a second and 100 stalled bodies"
    return [
        *posts,
        Row("ratio, HTTPS to plain HTTP", ratios(rates(on_https), rates(on_plain)), "×", least=0.7),
        Row("a handshake with certificates on both sides, and a token issued, CPU of the receiver", handshakes, "ms", most=2),
        Row(f"a post over HTTPS among {crowd}, p99", crowded, "ms", most=50),
    ]
