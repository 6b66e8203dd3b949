"""Lines of line protocol in bulk, beside VictoriaMetrics."""

import itertools
import socket
import time

from figures import LOAD_SEC, ROUNDS, Row
from servers import process_cpu_sec, receiver, victoria_metrics

SETTLE_SEC = 2


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
