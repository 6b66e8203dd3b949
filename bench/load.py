"""The load: single posts and questions by wrk, over kept connections, and lines in bulk over one."""

import contextlib
import re
import socket
import subprocess
import time

from figures import LOAD_SEC
from servers import ROOT, cpu_sec

RUN_UP_SEC = 1  # how long a load has run before what is beside it is measured
MS = {"us": 0.001, "ms": 1, "s": 1000}


class Posts:
    """What a form of single posts is: to hosts in turns, with a token where one is needed."""

    def __init__(self, form="sample", hosts=1000, scheme="http", token=""):
        self.scheme, self.arguments = scheme, [form, str(hosts), *filter(None, [token])]

    def start(self, port, connections, seconds):
        script = ["-s", str(ROOT / "bench/posts.lua"), f"{self.scheme}://127.0.0.1:{port}", "--", *self.arguments]
        return start_wrk(connections, seconds, *script)


SAMPLES, LINES = Posts(), Posts("line")


def start_wrk(connections, seconds, *arguments):
    # A crowd of connections may wait for longer than wrk's two seconds, which it would count as a failure.
    command = ["wrk", f"-t{min(2, connections)}", f"-c{connections}", f"-d{seconds}", "--timeout", "30s", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end_wrk(wrk):
    """What a wrk says at its end; every request must have been answered well."""
    output, _ = wrk.communicate()
    if wrk.returncode or "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"requests failed:\n{output}")
    return output


def posts_per_sec(server, connections=32, posts=SAMPLES):
    """Posts a second, and the seconds of CPU that the server has spent on all of them."""
    process, port = server
    before = cpu_sec(process.pid)
    output = end_wrk(posts.start(port, connections, LOAD_SEC))
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]), cpu_sec(process.pid) - before


@contextlib.contextmanager
def ingest(port, posts, connections=32):
    """Posts as fast as they go, which outlast what is done meanwhile within LOAD_SEC."""
    wrk = posts.start(port, connections, LOAD_SEC + 2 * RUN_UP_SEC)
    time.sleep(RUN_UP_SEC)
    yield
    end_wrk(wrk)


def answer_ms(port, path):
    """The median and the p99 of the milliseconds until an answer has come, asked for LOAD_SEC over one connection."""
    output = end_wrk(start_wrk(1, LOAD_SEC, "--latency", f"http://127.0.0.1:{port}{path}"))
    shares = {share: float(time) * MS[unit] for share, time, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)\n", output)}
    return shares["50"], shares["99"]


def lines_request(lines):
    body = "".join(lines).encode()
    return b"POST /write HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def send_lines(client, request):
    client.sendall(request)
    if not (answer := client.recv(4096)).startswith(b"HTTP/1.1 204"):
        raise SystemExit(f"a body of lines was answered {answer}")


def fill(port, hosts, minutes):
    """A sample of each of the last so many minutes, of each of the hosts that are posted to."""
    now = int(time.time())
    with socket.create_connection(("127.0.0.1", port)) as client:
        for minute in reversed(range(minutes)):
            nanoseconds = (now - 60 * minute) * 10**9
            for first in range(0, hosts, 1000):
                names = (f"host-{host}.example.org" for host in range(first, min(first + 1000, hosts)))
                send_lines(client, lines_request(f"perf,host={name} cpu=4.98,mem=35.1 {nanoseconds}\n" for name in names))
