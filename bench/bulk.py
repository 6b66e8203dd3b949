"""Lines of line protocol in bulk, beside VictoriaMetrics."""

import itertools
import socket
import time

from figures import LOAD_SEC, Row, in_turns, ratios
from load import lines_request, send_lines
from servers import cpu_sec, memory_mb, receiver, victoria_metrics

SETTLE_SEC = 2


def bulk_round(server):
    """Lines a second over one connection, in bodies of 1,000 for 20,000 hosts, and a CPU-second; the CPU and the memory
    they took. The server is alone on the machine."""
    nanoseconds = int(time.time()) * 10**9
    groups = (range(first, first + 1000) for first in range(0, 20_000, 1000))
    requests = [lines_request(f"perf,host=host-{host} cpu=4.98,mem=35.1 {nanoseconds}\n" for host in hosts) for hosts in groups]

    with server() as (process, port), socket.create_connection(("127.0.0.1", port)) as client:
        for request in requests * 2:  # warm, and every series there is exists
            send_lines(client, request)
        # victoria-metrics goes on working when it has answered: both have the time for it.
        time.sleep(SETTLE_SEC)
        before, start, lines, elapsed = cpu_sec(process.pid), time.perf_counter(), 0, 0
        for request in itertools.cycle(requests):
            if elapsed >= LOAD_SEC:
                break
            send_lines(client, request)
            lines, elapsed = lines + 1000, time.perf_counter() - start
        time.sleep(SETTLE_SEC)
        cpu = cpu_sec(process.pid) - before
        return lines / elapsed, lines / cpu, cpu, memory_mb(process.pid)


def bulk_rows():
    ours, peer = (list(zip(*rounds)) for rounds in in_turns(lambda: bulk_round(receiver), lambda: bulk_round(victoria_metrics)))
    job = "lines of two fields for 20,000 hosts, 1,000 a `POST /write`, one connection, lizm"
    return [
        Row(job, ours[0], "a second", cpu_sec=ours[2], memory_mb=max(ours[3])),
        Row("the same, victoria-metrics", peer[0], "a second", cpu_sec=peer[2], memory_mb=max(peer[3])),
        Row("the same lines, lizm", ours[1], "a CPU-second"),
        Row("the same lines, victoria-metrics", peer[1], "a CPU-second"),
        Row("ratio per CPU-second, lizm to victoria-metrics", ratios(ours[1], peer[1]), "×", least=8),
    ]
