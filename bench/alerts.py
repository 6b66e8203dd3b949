"""Twenty rules over thousands of hosts: what a look costs, and what posts notice of it."""

import contextlib
import pathlib
import re
import socket
import tempfile
import threading
import time
from functools import partial

from figures import Row, in_turns, ratios
from load import Posts, end_wrk, fill, lines_request, send_lines
from servers import receiver, redis

HOSTS, HOSTS_OF_REDIS, LABELS = 10_000, 1000, 10
REPORT_EVERY_SEC = 10
WATCHED_SEC = 120
RUN_UP_SEC = 30  # until every rule has found its series
POSTED_SEC = 30
TESTS = ("> 90", "> 90 for 10m", "< 1 until > 5", "> 80 for 5m on host*")
RULES = [f"rule{n}: label-{n % LABELS} {TESTS[n % len(TESTS)]}" for n in range(16)]
RULES += ["peak: max(label-1, 5m) > 99", "gone: host down", "absent: no label-1 for 10m", "soon: forecast(label-2, 30m, 1h) > 99"]


def with_rules(*options):
    return receiver(*(part for rule in RULES for part in ("--alert", rule)), *options)


def cpu_of_alerts_ms(pid):
    """Milliseconds of CPU that the thread which judges the rules has taken."""
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text() == "alerts\n":
            return int((task / "schedstat").read_text().split()[0]) / 1e6
    raise SystemExit("no thread judges the rules")


def report(port, hosts, ends):
    """Each host reports its labels every ten seconds, until an event is set."""
    fields = ",".join(f"label-{label}={label + 40}" for label in range(LABELS))
    with socket.create_connection(("127.0.0.1", port)) as client:
        while not ends.is_set():
            due, now = time.monotonic() + REPORT_EVERY_SEC, int(time.time())
            for first in range(0, hosts, 100):
                names = (f"host-{host}" for host in range(first, first + 100))
                send_lines(client, lines_request(f"perf,host={name} {fields} {now}000000000\n" for name in names))
            ends.wait(max(0, due - time.monotonic()))


def looks_ms(server, hosts):
    """The CPU of judging in each second in which there was a look, and that of a minute."""
    process, port = server
    ends = threading.Event()
    reporter = threading.Thread(target=report, args=(port, hosts, ends))
    reporter.start()
    try:
        time.sleep(RUN_UP_SEC)
        seconds, before = [], cpu_of_alerts_ms(process.pid)
        for _ in range(WATCHED_SEC):
            time.sleep(1)
            now = cpu_of_alerts_ms(process.pid)
            seconds.append(now - before)
            before = now
    finally:
        ends.set()
        reporter.join()
    return seconds, sum(seconds) / (WATCHED_SEC / 60)


def rate(server):
    """Posts a second to hosts in turns, over a time in which there are some looks."""
    output = end_wrk(Posts(hosts=HOSTS).start(server[1], 32, POSTED_SEC))
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])


def alerts_rows():
    """In memory, in a directory and on Redis."""
    rows, what = [], f"{len(RULES)} rules over {HOSTS:,} hosts of {LABELS} labels"
    with tempfile.TemporaryDirectory() as directory:
        for name, options in (("memory", ()), ("`--store DIR`", ("--store", directory))):
            with with_rules(*options) as server:
                seconds, _ = looks_ms(server, HOSTS)
            rows.append(Row(f"the longest look of {what}, {name}", [max(seconds)], "ms of CPU", most=100))
    with redis() as (_, port), with_rules("--store", f"redis://127.0.0.1:{port}") as server:
        _, minute = looks_ms(server, HOSTS_OF_REDIS)
        rows.append(Row(f"a minute of {len(RULES)} rules over {HOSTS_OF_REDIS:,} hosts, Redis", [minute / 1000], "s of CPU", most=1))
    with contextlib.ExitStack() as held:
        rules = [f"rule{n}: {('cpu', 'mem')[n % 2]} {TESTS[n // 2 % len(TESTS)]}" for n in range(len(RULES))]
        options = [part for rule in rules for part in ("--alert", rule)]
        servers = [held.enter_context(receiver(*more)) for more in (options, ())]
        for server in servers:
            fill(server[1], HOSTS, minutes=1)
        with_them, without = in_turns(*(partial(rate, server) for server in servers))
        rows.append(Row(f"posts a second to {HOSTS:,} hosts beside {len(RULES)} rules, to those without", ratios(with_them, without), "×", least=0.95))
    return rows
