"""The ways in that give no answer: UDP and ZeroMQ, with `benches/load.rs` as the sender."""

import functools
import json
import subprocess
import time
import urllib.request
from functools import partial

import servers
from figures import LOAD_SEC, ROUNDS, Row, in_turns, ratios
from servers import ROOT, cpu_sec, intake, memory_mb, values_stored

UDP_RATE = 125_000
ZMQ_MESSAGES = 2_000_000  # of 1,000 hosts in turns


@functools.cache
def load_program(feature="builtin"):
    """Builds `benches/load.rs`, and says where it is, so that it starts without the time that cargo takes.

    It has what its job needs and nothing else, and is not optimised as a whole: that would take minutes.
    """
    build = ["--bench", "load", "--profile", "release", "--no-default-features", "--features", feature]
    command = ["cargo", "bench", "-q", *build, "--no-run", "--message-format=json"]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    artifacts = [json.loads(line) for line in output.splitlines()]
    return next(built["executable"] for built in artifacts if built.get("target", {}).get("name") == "load")


def sent_by(load, *arguments):
    """Runs the load to its end, and says how much it has sent."""
    command = [load, *map(str, arguments)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.removeprefix("sent "))


def udp_round(load, rate):
    """Datagrams that were sent, those of them that were stored, and the CPU and the memory this took the receiver."""
    with intake(servers.LIZM, "--udp", "127.0.0.1:0") as (process, _, address):
        sent = sent_by(load, "udp", address.removeprefix("udp://"), rate, LOAD_SEC)
        time.sleep(0.5)  # for what waits in the kernel
        cpu, memory = cpu_sec(process.pid), memory_mb(process.pid)
        return sent, values_stored(process), cpu, memory


def udp_rows():
    load = load_program()
    fast, steady = in_turns(partial(udp_round, load, 0), partial(udp_round, load, UDP_RATE))
    _, stored, cpus, memories = zip(*fast)
    offered, kept = (sum(figures) for figures in list(zip(*steady))[:2])
    if offered < 0.99 * UDP_RATE * LOAD_SEC * ROUNDS:
        raise SystemExit(f"{offered} datagrams were sent in {ROUNDS} rounds, which is not {UDP_RATE:,} a second")
    job = "datagrams of a line stored, offered as fast as it goes"
    at_rate = f"datagrams lost, of {offered:,} that came at {UDP_RATE:,} a second"
    return [
        Row(job, ratios(stored, cpus), "a CPU-second", least=250_000, cpu_sec=cpus, memory_mb=max(memories)),
        Row(at_rate, [offered - kept], "datagrams", most=0, rounds=ROUNDS),
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
    load = load_program("zeromq")
    rounds = [zmq_round(load) for _ in range(ROUNDS)]
    job = f"messages of a line by ZeroMQ, {ZMQ_MESSAGES:,} of one peer until all are stored"
    return [Row(job, rounds, "a second", least=300_000)]
