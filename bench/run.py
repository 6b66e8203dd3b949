#!/usr/bin/env python3
"""Measures lizm beside its peers and writes BENCHMARKS.md; `make bench` runs it.

    run.py STATIC STATIC_ZEROMQ [--before BINARY] [--only JOB]...

Jobs with a peer run in turns, A B A B, in one run of about 45 minutes. Every figure is a median with the least and the
most. With `--only` the rows of those jobs are printed, and nothing is written. With `--before`, the binary of the
version before, the job `tick` compares what a tick of both takes. The jobs are in the modules beside this one.
"""

import argparse
import contextlib
import os
import pathlib
import platform
import re
import resource
import subprocess
import time

import servers
from agents import agent_rows, tick_rows
from alerts import alerts_rows
from answers import get_rows, lookup_rows
from bulk import bulk_rows
from core import core_rows, start_rows
from datagrams import udp_rows, zmq_rows
from figures import HEAD
from fleet import fleet_rows, standstill_rows
from history import history_rows
from posts import builtin_rows, crowd_rows, growth_rows, post_rows, stall_rows, store_rows
from servers import ROOT
from shared import redis_rows
from trust import trust_rows


def version(command):
    """What a command says of the version of its last or only program; the name alone where it says nothing."""
    with contextlib.suppress(FileNotFoundError):
        output = subprocess.run(command, capture_output=True, text=True)
        return (output.stdout + output.stderr).strip() or command[-1]
    return command[-1]


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())[1]
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) / 2**20
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    # Debian's victoria-metrics does not know its own version.
    packages = ["victoria-metrics", "prometheus-node-exporter", "collectd-core"]
    of_packages = [["dpkg-query", "-Wf", "${Package} ${Version}", package] for package in packages]
    versions = ", ".join(map(version, [["nginx", "-v"], ["redis-server", "--version"], *of_packages]))
    return f"{os.cpu_count()} × {model}, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}, {rustc}, {versions}"


JOBS = {
    "core": core_rows,
    "start": start_rows,
    "agent": agent_rows,
    "tick": tick_rows,
    "post": post_rows,
    "builtin": builtin_rows,
    "crowd": crowd_rows,
    "fleet": fleet_rows,
    "standstill": standstill_rows,
    "growth": growth_rows,
    "store": store_rows,
    "stall": stall_rows,
    "get": get_rows,
    "lookup": lookup_rows,
    "trust": trust_rows,
    "redis": redis_rows,
    "alerts": alerts_rows,
    "bulk": bulk_rows,
    "history": history_rows,
    "udp": udp_rows,
    "zmq": zmq_rows,
}


def write(table, minutes):
    (ROOT / "BENCHMARKS.md").write_text(
        "# Benchmarks\n\n"
        f"Written by `make bench`, all in one run of {minutes:.0f} minutes. A figure is the median of its rounds, with the least\n"
        "and the most; jobs with a peer ran in turns, A B A B. A round of a load lasts five seconds, and those of single posts\n"
        "come from two threads of wrk. Load and servers share the machine, which is what makes ratios of one run worth more\n"
        "than figures of two. CPU is what a round took of the server, and memory the most that was resident of it by then.\n\n"
        f"Machine: {machine()}.\nDate: {time.strftime('%Y-%m-%d')}.\n\n{table}\n\n{NOT_COMPARABLE}"
    )


NOT_COMPARABLE = """\
## What is not comparable

- nginx answers without reading what was posted into anything; it stands for what HTTP itself costs on this machine.
- victoria-metrics keeps every sample, in a directory; lizm keeps averages of them, in memory where nothing else is said.
- A single post is JSON to the host's own path for lizm, and a line to `/write` for victoria-metrics.
- `query_range` of victoria-metrics gives any hour; `GET /api/perf/HOST` gives the last hour by minute and the last day by
  hour. Both had one sample a minute, which spares victoria-metrics most of what agents send. Each was asked under its own
  full ingest, and lizm took in more meanwhile.
- The memory of a connection is that of the process; what the kernel holds for its socket comes on top for everybody.
- collectd does the least that its plugins can: one value of the CPU and the shares of memory. It gathers what it
  has in datagrams of 1,024 bytes, the least it offers, and so sends one every few seconds, where lizm sends one a second.
  The like comparison with it is that of `--probes cpu,mem` to `udp://`: the same files read, and a datagram sent unanswered.
- node_exporter waits to be asked, and leaves it to who asks to make a value of what it counts; the asking is not in its
  CPU. With its defaults it reads far more than lizm's default probes do.
- Agents had one round of ten minutes, all of them in the same seconds.
"""


def main(only):
    start = time.monotonic()
    # Descriptors for crowds of connections, those of wrk too; receivers see to their own.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    rows = [row for job in only or JOBS for row in JOBS[job]()]
    table = "\n".join([HEAD, *(row.markdown() for row in rows)])
    if not only:
        write(table, (time.monotonic() - start) / 60)
    print(table)
    if any(row.holds() is False for row in rows):
        raise SystemExit("a bar does not hold")


parser = argparse.ArgumentParser(description="Measures lizm beside its peers and writes BENCHMARKS.md.")
parser.add_argument("static")
parser.add_argument("static_zeromq")
parser.add_argument("--before", help="the binary of the version before, to compare with")
parser.add_argument("--only", action="append", choices=JOBS, help="print the rows of this job alone, and write nothing")
arguments = parser.parse_args()
servers.LIZM, servers.LIZM_ZEROMQ, servers.LIZM_BEFORE = arguments.static, arguments.static_zeromq, arguments.before
main(arguments.only)
