#!/usr/bin/env python3
"""Measures lizm beside its peers and writes BENCHMARKS.md; `make bench` runs it.

    run.py STATIC STATIC_ZEROMQ [--only JOB]...

Jobs with a peer run in turns, A B A B, in one run. Every figure is a median with the least and the most. With `--only`
the rows of those jobs are printed, and nothing is written. The jobs are in the modules beside this one.
"""

import argparse
import contextlib
import os
import pathlib
import platform
import re
import subprocess
import time

import servers
from bulk import bulk_rows
from core import core_rows, start_rows
from datagrams import udp_rows, zmq_rows
from monitor import monitor_rows
from posts import post_rows, stall_rows
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
    peers = [["nginx", "-v"], ["redis-server", "--version"], ["dpkg-query", "-Wf", "${Package} ${Version}", "victoria-metrics"]]
    versions = ", ".join(map(version, peers))
    return f"{os.cpu_count()} × {model}, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}, {rustc}, {versions}"


JOBS = {
    "core": core_rows,
    "start": start_rows,
    "monitor": monitor_rows,
    "stall": stall_rows,
    "post": post_rows,
    "trust": trust_rows,
    "redis": redis_rows,
    "bulk": bulk_rows,
    "udp": udp_rows,
    "zmq": zmq_rows,
}


def write(table):
    (ROOT / "BENCHMARKS.md").write_text(
        "# Benchmarks\n\n"
        "Written by `make bench`, all in one run. A figure is the median of its rounds, with the least and the most; jobs\n"
        "with a peer ran in turns. Load and servers share the machine, which is what makes ratios of one run worth more\n"
        "than figures of two.\n\n"
        f"Machine: {machine()}.\nDate: {time.strftime('%Y-%m-%d')}.\n\n"
        f"| job | median | spread | bar | |\n|---|---|---|---|---|\n{table}\n\n"
        "Not comparable: nginx answers without reading what was posted into anything; it stands for what HTTP itself costs\n"
        "on this machine. victoria-metrics keeps every line, in a directory; lizm keeps averages of them, here in memory.\n"
    )


def main(only):
    rows = [row for job in only or JOBS for row in JOBS[job]()]
    table = "\n".join(row.markdown() for row in rows)
    if not only:
        write(table)
    print(table)
    if any(row.holds and not row.holds(row.median()) for row in rows):
        raise SystemExit("a bar does not hold")


parser = argparse.ArgumentParser(description="Measures lizm beside its peers and writes BENCHMARKS.md.")
parser.add_argument("static")
parser.add_argument("static_zeromq")
parser.add_argument("--only", action="append", choices=JOBS, help="print the rows of this job alone, and write nothing")
arguments = parser.parse_args()
servers.LIZM, servers.LIZM_ZEROMQ = arguments.static, arguments.static_zeromq
main(arguments.only)
