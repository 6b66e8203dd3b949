"""Agents side by side: what a tick of a second takes of the CPU, and what they have of memory."""

import contextlib
import http.client
import pathlib
import socket
import subprocess
import tempfile
import threading
import time

import servers
from figures import Row
from servers import ROOT, await_port, cpu_sec, free_port, intake, memory_mb, running

AGENT_SEC = 600
TICK_SEC = 120
RUN_UP_SEC = 5

# As little as its plugins can do: one value of the CPU, the shares of memory, and the network.
COLLECTD = """
Hostname "bench"
FQDNLookup false
Interval 1
BaseDir "{folder}"
PIDFile "{folder}/pid"
LoadPlugin cpu
LoadPlugin memory
LoadPlugin network
<Plugin cpu>
  ReportByCpu false
  ReportByState false
  ValuesPercentage true
</Plugin>
<Plugin memory>
  ValuesAbsolute false
  ValuesPercentage true
</Plugin>
<Plugin network>
  Server "127.0.0.1" "{port}"
  MaxPacketSize 1024
</Plugin>
"""


class Sink:
    """A port that takes datagrams, and counts them."""

    def __init__(self):
        self.socket, self.count = socket.socket(type=socket.SOCK_DGRAM), 0
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.take, daemon=True).start()

    def take(self):
        while self.socket.recv(65536):
            self.count += 1


def scrape(port, end):
    """Asks an exporter once a second over one connection, as Prometheus does, until the end is set."""
    client, due = http.client.HTTPConnection("127.0.0.1", port), time.monotonic()
    while not end.wait(max(0, due - time.monotonic())):
        client.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
        answer = client.getresponse()
        if answer.status != 200 or not answer.read():
            raise SystemExit(f"an exporter answered {answer.status}")
        due += 1


@contextlib.contextmanager
def exporter(*options):
    """A node_exporter that is scraped."""
    port, end = free_port(), threading.Event()
    with running(["prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{port}", *options]) as process:
        await_port(port)
        scraper = threading.Thread(target=scrape, args=(port, end))
        scraper.start()
        try:
            yield process
        finally:
            end.set()
            scraper.join()


def agent_rows():
    """All agents in the same seconds."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        _, url, udp = stack.enter_context(intake(servers.LIZM, "--udp", "127.0.0.1:0"))
        sinks = [Sink(), Sink()]
        bare, config = pathlib.Path(folder, "bare"), pathlib.Path(folder, "collectd.conf")
        subprocess.run(["cc", "-O2", "-o", bare, ROOT / "bench/bare.c"], check=True)
        config.write_text(COLLECTD.format(folder=folder, port=sinks[0].port))

        def monitor(name, url, *options):
            return running([servers.LIZM, "monitor", "--host", name, "--publish", url, *options])

        monitors = {
            "http": monitor("http", url),
            "udp": monitor("udp", udp),
            "two_http": monitor("two-http", url, "--probes", "cpu,mem"),
            "two_udp": monitor("two-udp", udp, "--probes", "cpu,mem"),
        }
        peers = {
            "collectd": running(["collectd", "-f", "-C", str(config)]),
            "two_exporter": exporter("--collector.disable-defaults", "--collector.cpu", "--collector.meminfo"),
            "exporter": exporter(),
            "bare": running([str(bare), str(sinks[1].port)]),
        }
        agents = monitors | peers
        pids = {name: stack.enter_context(agent).pid for name, agent in agents.items()}
        time.sleep(RUN_UP_SEC)
        before = {name: cpu_sec(pid) for name, pid in pids.items()}
        time.sleep(AGENT_SEC)
        tick_ms = {name: (cpu_sec(pid) - before[name]) / AGENT_SEC * 1000 for name, pid in pids.items()}
        memory = {name: memory_mb(pid) for name, pid in pids.items()}
        if not all(sink.count for sink in sinks):
            raise SystemExit("an agent has sent nothing")

    def tick(job, name, most=None):
        return Row(job, [tick_ms[name]], "ms", most=most, cpu_sec=[tick_ms[name] * AGENT_SEC / 1000], memory_mb=memory[name])

    def ratio(job, name, other, most=None):
        return Row(job, [tick_ms[name] / tick_ms[other]], "×", most=most)

    return [
        tick(f"a tick of `lizm monitor`, CPU of one of {AGENT_SEC} in as many seconds, to `http://`", "http", most=1),
        tick("the same to `udp://`", "udp", most=1),
        tick("the same with `--probes cpu,mem`, to `http://`", "two_http"),
        tick("the same with `--probes cpu,mem`, to `udp://`", "two_udp"),
        tick("the same of collectd with its plugins cpu, memory and network", "collectd"),
        tick("the same of node_exporter with its collectors cpu and meminfo, scraped", "two_exporter"),
        tick("the same of node_exporter with its default collectors, scraped", "exporter"),
        tick("the same of a bare loop in C that reads two files and sends a datagram", "bare"),
        ratio("ratio, `udp://` to `http://`", "udp", "http", most=0.5),
        ratio("ratio of `--probes cpu,mem`, `udp://` to `http://`", "two_udp", "two_http", most=0.5),
        ratio("ratio of `--probes cpu,mem` to `udp://`, lizm to collectd", "two_udp", "collectd", most=1.0),
        ratio("the same with the default probes, lizm to collectd with two plugins", "udp", "collectd", most=1.0),
        ratio("ratio of `--probes cpu,mem` to `udp://`, lizm to node_exporter with cpu and meminfo", "two_udp", "two_exporter", most=0.25),
        ratio("ratio of `--probes cpu,mem` to `udp://`, lizm to the bare loop", "two_udp", "bare"),
        ratio("ratio of default probes to `http://`, lizm to node_exporter with its defaults", "http", "exporter", most=0.25),
        Row("memory of `lizm monitor`, the most of the four", [max(memory[name] for name in monitors)], "MB", most=4),
    ]


def tick_rows():
    """The default probes of this version and of the one before, three monitors of each in the same seconds."""
    if not servers.LIZM_BEFORE:
        return []
    with contextlib.ExitStack() as stack:
        _, url, _ = stack.enter_context(intake(servers.LIZM, "--udp", "127.0.0.1:0"))
        pids = {"now": [], "before": []}
        for n in range(3):
            for version, binary in (("now", servers.LIZM), ("before", servers.LIZM_BEFORE)):
                monitor = running([binary, "monitor", "--host", f"{version}-{n}", "--publish", url])
                pids[version].append(stack.enter_context(monitor).pid)
        time.sleep(RUN_UP_SEC)
        start = {pid: cpu_sec(pid) for pid in sum(pids.values(), [])}
        time.sleep(TICK_SEC)
        now, then = ([(cpu_sec(pid) - start[pid]) / TICK_SEC * 1000 for pid in of] for of in pids.values())
    job = f"a tick of `lizm monitor`, CPU of one of {TICK_SEC} in as many seconds, three monitors"
    return [
        Row(job, now, "ms", most=1),
        Row("the same of the version before, in the same seconds", then, "ms"),
        Row("ratio, this to that", [sum(now) / sum(then)], "×", most=1.15),
    ]
