"""lizm and its peers as processes: started on free ports, ended with a block, and what they took of the machine."""

import contextlib
import ctypes
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIBC = ctypes.CDLL(None)
# The static binaries that are measured; run.py says where they are.
LIZM = LIZM_ZEROMQ = LIZM_BEFORE = None


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(arguments):
    """A process with its output thrown away, ended with the block."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def await_port(port):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.001)
    raise SystemExit(f"nothing listens on port {port}")


@contextlib.contextmanager
def receiver(*options):
    port = free_port()
    command = [LIZM, "receiver", "--bind", "127.0.0.1", "--port", str(port), "--log-level", "warning", *options]
    with running(command) as process:
        await_port(port)
        yield process, port


@contextlib.contextmanager
def intake(binary, option, address):
    """A receiver that takes datagrams or messages too: its process, its URL, and the address of its second way in."""
    command = [binary, "receiver", "--bind", "127.0.0.1", "--port", "0", option, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            addresses = []
            while len(addresses) < 2:
                line = process.stdout.readline()
                if not line:
                    raise SystemExit("the receiver has ended")
                addresses += re.findall(r"listening on (?:zmq )?([\w.:/]+)", line)
            yield process, *addresses
        finally:
            process.terminate()


def values_stored(process):
    """Ends a receiver of `intake`, and reads in its log how many values it has stored."""
    process.terminate()
    return int(re.search(r"Receiver stopped: (\d+) values stored", process.stdout.read())[1])


@contextlib.contextmanager
def nginx():
    """nginx as one process, which is its worker, that answers every request with 204."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder, "nginx.conf")
        config.write_text(
            f"master_process off; daemon off; pid {folder}/pid; error_log {folder}/error;\n"
            "events { worker_connections 20000; }\n"
            "http { access_log off; keepalive_requests 1000000000;\n"
            f"  client_body_temp_path {folder}/body; server {{ listen 127.0.0.1:{port}; location / {{ return 204; }} }} }}\n"
        )
        with running(["nginx", "-c", str(config)]) as process:
            await_port(port)
            yield process, port


@contextlib.contextmanager
def redis():
    """A Redis that keeps nothing on disk: its process and its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder]
        with running(command) as process:
            await_port(port)
            yield process, port


@contextlib.contextmanager
def victoria_metrics():
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        listen = ["-httpListenAddr", f"127.0.0.1:{port}", "-loggerLevel=ERROR"]
        with running(["victoria-metrics", "-storageDataPath", folder, *listen]) as process:
            await_port(port)
            yield process, port


def cpu_sec(pid):
    """CPU time of a process so far, with that of its threads that have ended, by the scheduler's nanoseconds."""
    clock = ctypes.c_int()
    if error := LIBC.clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise OSError(error, os.strerror(error))
    return time.clock_gettime(clock.value)


def memory_mb(pid, kind="VmHWM"):
    """Resident memory: the most so far, or with VmRSS what it is now."""
    return int(re.search(rf"{kind}:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) * 1024 / 1e6
