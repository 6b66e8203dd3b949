"""The ways in that give no answer: UDP and ZeroMQ, with `benches/load.rs` as the sender."""

import functools
import json
import subprocess
import time
import urllib.request

import servers
from figures import LOAD_SEC, ROUNDS, Row
from servers import ROOT, intake, process_cpu_sec, values_stored

UDP_RATE = 125_000
ZMQ_MESSAGES = 2_000_000  # of 1,000 hosts in turns


@functools.cache
def load_program():
    """Builds `benches/load.rs`, and says where it is, so that it starts without the time that cargo takes."""
    command = ["cargo", "bench", "-q", "--bench", "load", "--features", "zeromq", "--no-run", "--message-format=json"]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    artifacts = [json.loads(line) for line in output.splitlines()]
    return next(built["executable"] for built in artifacts if built.get("target", {}).get("name") == "load")


def sent_by(load, *arguments):
    """Runs the load to its end, and says how much it has sent."""
    command = [load, *map(str, arguments)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.removeprefix("sent "))


def udp_round(load, rate):
    """Datagrams that were sent, those of them that were stored, and the seconds of CPU this took the receiver."""
    with intake(servers.LIZM, "--udp", "127.0.0.1:0") as (process, _, address):
        sent = sent_by(load, "udp", address.removeprefix("udp://"), rate, LOAD_SEC)
        time.sleep(0.5)  # for what waits in the kernel
        cpu = process_cpu_sec(process.pid)
        return sent, values_stored(process), cpu


def udp_rows():
    load = load_program()
    per_cpu_sec, offered, lost = [], 0, 0
    for _ in range(ROUNDS):
        _, stored, cpu = udp_round(load, 0)
        per_cpu_sec.append(stored / cpu)
        sent, stored, _ = udp_round(load, UDP_RATE)
        if sent < 0.99 * UDP_RATE * LOAD_SEC:
            raise SystemExit(f"{sent} datagrams were sent in {LOAD_SEC} seconds, which is not {UDP_RATE} a second")
        offered, lost = offered + sent, lost + sent - stored
    fast = "datagrams of a line stored, offered as fast as it goes"
    at_rate = f"datagrams lost, of {offered:,} that came at {UDP_RATE:,} a second"
    return [
        Row(fast, per_cpu_sec, "a CPU-second", "≥ 250,000", lambda rate: rate >= 250_000),
        Row(at_rate, [lost], "datagrams", "0", lambda lost: lost == 0),
    ]


def samples_of(url, host):
    """How many samples a receiver has of `cpu` of a host, asked without the environment's proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/api/perf/{host}/by-hour:cpu") as answer:
        return sum(average["num-samples"] for summary in json.load(answer).values() for average in summary["averages"])


def zmq_round(load):
    """Messages a second, from the start of the sender until the receiver has them all."""
    with intake(servers.LIZM_ZEROMQ, "--zmq", "tcp://127.0.0.1:*") as (process, url, endpoint):
        start = time.perf_counter()
        sent_by(load, "zmq", endpoint, ZMQ_MESSAGES)
        # Messages of one peer are stored in their order, and the last host has the last one.
        while samples_of(url, "host-999") < ZMQ_MESSAGES / 1000:
            if time.perf_counter() - start > 60:
                raise SystemExit("messages were lost")
            time.sleep(0.001)
        elapsed = time.perf_counter() - start
        if (stored := values_stored(process)) != ZMQ_MESSAGES:
            raise SystemExit(f"{stored} values were stored of {ZMQ_MESSAGES} messages")
        return ZMQ_MESSAGES / elapsed


def zmq_rows():
    load = load_program()
    rounds = [zmq_round(load) for _ in range(ROUNDS)]
    job = f"messages of a line by ZeroMQ, {ZMQ_MESSAGES:,} of one peer until all are stored"
    return [Row(job, rounds, "a second", "≥ 300,000", lambda rate: rate >= 300_000)]
