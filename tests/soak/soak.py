"""An hour of 1,000 posts a second with a fault every 30 seconds: soak.py LIZM [--minutes 60], as root.

Three receivers are posted to in equal parts. Their wall clock is libfaketime's, which takes a program that is linked
dynamically. `disk` keeps a directory on a small file system of its own; it is killed and started again. `memory` and `redis` are never started again, and suffer only what comes from outside, so that a slope of
their memory means something. Their windows are full from the beginning: the last hour and day are sent first. Then
come some minutes in which one fault follows the other, before the hour begins: an allocator keeps the most that it has
ever held, and has held the most of each fault by then, so that what memory still grows by is not that.

Each sender has hosts of its own and does as a monitor does: one request at a time, a key on each, and the same again
until it is answered. So in the end the summaries must have each post exactly once. A line a minute says how the
receivers are: latency is of posts that no fault was near, and of these none may have had to be sent again. A machine
that is busy with other things may have a disk that stands still by itself: a program that does nothing but write and
sync on the same file system says when, and that counts as a fault.
"""

import argparse
import collections
import contextlib
import dataclasses
import http.client
import json
import multiprocessing
import os
import queue
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

POSTS_PER_SEC = 1000
SENDERS = 4  # for each receiver
HOSTS = 30  # of each sender
LABELS = ("cpu", "mem", "disk /", "net eth0")
REHEARSAL_SEC = 300
MINUTES_MIN = 6
FAULT_EVERY_SEC = 30
FAULT_SEC = 5
CALM_SEC = 3  # after a fault, before latencies count again
RECOVERS_WITHIN_SEC = 30
DISK_BYTES = 512 << 20
SIPPERS = 100
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
DISK_SLOW_SEC = 0.3  # a sync that takes longer is of a disk that stands still
CLOCK_READ_SEC = 1  # how long libfaketime goes on by what its file has said

SLOPE_MAX_MB_PER_HOUR = 1.0
RESTARTED_MAX_MB = 256  # of the receiver that is started again, whose memory has no slope
LATENCY_DRIFT_MAX = 0.20
# Of 1,000: in three minutes all receivers stand still for five seconds once, and one of the three a few times more.
POSTS_PER_SEC_MIN = 950


class Receiver:
    """A receiver that keeps its port when it is started again."""

    def __init__(self, name, lizm, store, directory):
        self.name, self.port = name, 0
        self.command = [lizm, "receiver", "--bind", "127.0.0.1", "--store", store]
        self.log, self.clock = directory / f"{name}.log", directory / f"{name}.clock"
        self.set_clock("+0")
        clock = {"FAKETIME_TIMESTAMP_FILE": str(self.clock), "FAKETIME_CACHE_DURATION": str(CLOCK_READ_SEC)}
        self.environment = os.environ | clock | {"LD_PRELOAD": FAKETIME, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        self.start()

    def start(self):
        with self.log.open("a") as log:
            self.process = subprocess.Popen([*self.command, "--port", str(self.port)], stdout=log, stderr=log, env=self.environment)

    def set_clock(self, offset):
        """Puts its wall clock ahead, or behind, by an offset such as +2d."""
        self.clock.write_text(offset + "\n")

    def await_listening(self):
        mark = "listening on http://127.0.0.1:"
        await_true(lambda: mark in self.log.read_text(), f"{self.name} to listen")
        self.port = int(self.log.read_text().rsplit(mark, 1)[1].split()[0])

    def is_well(self):
        try:
            return ask(self.port, "GET", "/health", timeout_sec=2)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def figures(self):
        """Resident memory in MB, descriptors, threads."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        descriptors = len(os.listdir(f"/proc/{self.process.pid}/fd"))
        return int(fields["VmRSS"].split()[0]) / 1024, descriptors, int(fields["Threads"])


class Redis:
    """A Redis that has written what it acknowledged, which outlives it: waiting for the disk, it would put writing off."""

    def __init__(self, directory):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)]
        self.command += ["--appendonly", "yes", "--appendfsync", "no", "--save", "", "--logfile", str(directory / "redis-server.log")]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)


def await_true(holds, what, within_sec=RECOVERS_WITHIN_SEC):
    until = time.monotonic() + within_sec
    while not holds():
        if time.monotonic() > until:
            sys.exit(f"soak: waited {within_sec} seconds in vain for {what}")
        time.sleep(0.1)


def ask(port, method, path, body=None, timeout_sec=30):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_sec)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Disk:
    """What a program that writes and syncs, over and over, knows of the file system."""

    def __init__(self, directory):
        self.path = directory / "canary"
        # When the sync that is under way began, 0 between two, and when the last slow one ended.
        self.began, self.slow_until = multiprocessing.Value("d", 0), multiprocessing.Value("d", 0)
        self.process = multiprocessing.Process(target=self.run, daemon=True)

    def start(self):
        self.process.start()

    def stop(self):
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def run(self):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while True:
            time.sleep(0.1)
            began = self.began.value = time.monotonic()
            # While it is full there is nothing to sync.
            with contextlib.suppress(OSError), self.path.open("wb", buffering=0) as file:
                file.write(b"x")
                os.fsync(file.fileno())
            if time.monotonic() - began > DISK_SLOW_SEC:
                self.slow_until.value = time.monotonic()
            self.began.value = 0

    def has_stood_still_since(self, since):
        began = self.began.value
        return self.slow_until.value > since or 0 < began < time.monotonic() - DISK_SLOW_SEC


def send(name, port, number, begun_sec, ends, is_faulted, disk, reports):
    """A sender: posts until `ends`, and reports what it saw, and at last how many posts each host has in each hour."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hosts = [f"{name}-{number}-{host}" for host in range(HOSTS)]
    posted = {host: collections.Counter() for host in hosts}
    fill_windows(port, hosts, posted, begun_sec)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    period_sec = 3 * SENDERS / POSTS_PER_SEC
    source, sequence, seen, due = f"{name}{number}", 0, Seen(), time.monotonic()
    reported = due
    while time.monotonic() < ends:
        host, epoch, sequence = hosts[sequence % HOSTS], int(time.time()), sequence + 1
        body = json.dumps({label: sequence % 100 for label in LABELS})
        began, is_calm = time.monotonic(), not is_faulted.value
        is_near = lambda: is_faulted.value or disk.has_stood_still_since(began)
        while True:
            try:
                headers = {"Idempotency-Key": f"{source}-{sequence}"}
                connection.request("POST", f"/api/perf/{host}/{epoch}", body, headers)
                answer = connection.getresponse()
                said = answer.read()
                if answer.status == 200:
                    break
                if answer.status not in (408, 503):
                    reports.put((name, "wrong", f"{answer.status} for {host} at {epoch}"))
                    return
                why = f"{answer.status} {said.decode(errors='replace').strip()}"
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                why = repr(error)
            seen.again += 1
            if is_calm and not is_near():
                seen.again_in_calm[f"{why} after {time.monotonic() - began:.1f} s"] += 1
            is_calm = False
            time.sleep(0.1)
        now = time.monotonic()
        posted[host][hour_of(epoch)] += 1
        seen.posts += 1
        if is_calm and not is_near():
            seen.latencies.append(now - began)
        if now - reported > 10:
            reports.put((name, "seen", seen))
            reported, seen = now, Seen()
        # What a fault has held up is not made up for: the rate stays what it is.
        due = max(due + period_sec, now - 1)
        time.sleep(max(0, due - now))
    reports.put((name, "seen", seen))
    reports.put((name, "posted", posted))


@dataclasses.dataclass
class Seen:
    """What senders saw: posts that were answered, how often one was sent again, and seconds until a calm one's answer."""

    posts: int = 0
    again: int = 0
    again_in_calm: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    latencies: list = dataclasses.field(default_factory=list)

    def add(self, more):
        self.posts += more.posts
        self.again += more.again
        self.again_in_calm += more.again_in_calm
        self.latencies += more.latencies


def hour_of(epoch):
    return (epoch - 1) // 3600


def fill_windows(port, hosts, posted, begun_sec):
    """Sends a sample of each minute of the last hour, and of each hour of the last day."""
    epochs = [begun_sec - 60 * minute for minute in range(61)] + [begun_sec - 3600 * hour for hour in range(2, 24)]
    for host in hosts:
        fields = ",".join(f"{label}=1".replace(" ", "\\ ") for label in LABELS)
        lines = "\n".join(f"perf,host={host} {fields} {epoch}" for epoch in epochs)
        status, answer = ask(port, "POST", "/write?precision=s", lines)
        assert status == 204, answer
        posted[host].update(map(hour_of, epochs))


class Faults:
    """The faults, in turns; each returns when it is over."""

    def __init__(self, receivers, redis, disk):
        self.receivers, self.redis, self.disk = receivers, redis, disk
        self.all = [self.kill, self.stop, self.fill_disk, self.take_descriptors, self.sip, self.lose_redis]
        self.all += [self.freeze_disk, self.put_clocks_ahead, self.fail_fsync, self.start_with_a_clock_behind]

    def bring_about(self, turn):
        """One of them, until all is well after it; gives its name."""
        fault = self.all[turn % len(self.all)]
        fault()
        for receiver in self.receivers.values():
            await_true(receiver.is_well, f"{receiver.name} to be well after {fault.__name__}")
        return fault.__name__

    def kill(self):
        disk = self.receivers["disk"]
        disk.process.kill()
        disk.process.wait()
        disk.start()

    def stop(self):
        for receiver in self.receivers.values():
            receiver.process.send_signal(signal.SIGSTOP)
        time.sleep(FAULT_SEC)
        for receiver in self.receivers.values():
            receiver.process.send_signal(signal.SIGCONT)

    def fill_disk(self):
        ballast = self.disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
            except OSError:
                time.sleep(FAULT_SEC)
        ballast.unlink()

    def freeze_disk(self):
        subprocess.run(["fsfreeze", "-f", self.disk], check=True)
        time.sleep(FAULT_SEC)
        subprocess.run(["fsfreeze", "-u", self.disk], check=True)

    def fail_fsync(self):
        """Every third call fails."""
        fails = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=1+3"]
        pid = str(self.receivers["disk"].process.pid)
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", *fails, "-p", pid])
        time.sleep(FAULT_SEC)
        tracer.terminate()
        tracer.wait()

    def put_clocks_ahead(self):
        self.with_clocks("+2d", lambda: None)

    def start_with_a_clock_behind(self):
        self.with_clocks("-1h", self.kill)

    def with_clocks(self, offset, fault):
        for receiver in self.receivers.values():
            receiver.set_clock(offset)
        time.sleep(CLOCK_READ_SEC)
        fault()
        time.sleep(FAULT_SEC)
        for receiver in self.receivers.values():
            receiver.set_clock("+0")
        time.sleep(CLOCK_READ_SEC)

    def take_descriptors(self):
        """Leaves room for four descriptors more, and takes it by connections, which stay."""
        before, clients = {}, []
        for receiver in self.receivers.values():
            pid = receiver.process.pid
            before[pid] = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (receiver.figures()[1] + 4, before[pid][1]))
            clients += [socket.create_connection(("127.0.0.1", receiver.port)) for _ in range(20)]
        time.sleep(FAULT_SEC)
        for pid, limits in before.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        for client in clients:
            client.close()

    def sip(self):
        """Asks for all there is of all hosts, and takes a few bytes a second."""
        clients = []
        for receiver in self.receivers.values():
            for _ in range(SIPPERS):
                client = socket.socket()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(("127.0.0.1", receiver.port))
                client.sendall(b"GET /api/hosts?series=cpu,mem HTTP/1.1\r\nHost: soak\r\n\r\n")
                client.setblocking(False)
                clients.append(client)
        for _ in range(FAULT_SEC):
            for client in clients:
                try:
                    client.recv(8)
                except OSError:
                    pass  # nothing there yet, or it was closed on
            time.sleep(1)
        for client in clients:
            client.close()

    def lose_redis(self):
        self.redis.process.kill()
        self.redis.process.wait()
        time.sleep(FAULT_SEC)
        self.redis.start()


class Measured:
    """What was seen, minute by minute."""

    def __init__(self):
        self.minutes = []

    def add(self, receivers, seen, faults):
        minute = {name: (*receiver.figures(), seen[name]) for name, receiver in receivers.items()}
        self.minutes.append(minute)
        parts = []
        for name, (memory, descriptors, threads, saw) in minute.items():
            for why, count in saw.again_in_calm.items():
                print(f"{name} where no fault was near: {count} times {why}")
            p50, p99 = (percentile(saw.latencies, of) * 1000 for of in (50, 99))
            parts.append(
                f"{name} {memory:.1f} MB {descriptors} fds {threads} threads {saw.posts} posts {saw.again} again "
                f"p50 {p50:.2f} p99 {p99:.2f} ms"
            )
        print(f"minute {len(self.minutes)}: {'; '.join(parts)}; faults: {', '.join(faults)}", flush=True)

    def bars(self):
        """Holds what was seen against the bars, memory over the whole hour: the rehearsal was its warming up."""
        quarter = max(1, len(self.minutes) // 4)
        for name in self.minutes[0]:
            memory, descriptors, _, seen = zip(*(minute[name] for minute in self.minutes))
            if name == "disk":
                sentence = f"{name}: {min(memory):.1f} to {max(memory):.1f} MB, over its restarts"
                yield sentence, max(memory) < RESTARTED_MAX_MB
            else:
                slope, step = slope_per_hour(memory), rise_per_hour(memory)
                sentence = f"{name}: memory grows by {slope:.2f} MB an hour, by {step:.2f} from third to third"
                yield sentence, max(slope, step) < SLOPE_MAX_MB_PER_HOUR
            first, last = (statistics.median(part) for part in (descriptors[:quarter], descriptors[-quarter:]))
            yield f"{name}: {first:g} descriptors in the first quarter, {last:g} in the last", last <= first + 2
            medians = [percentile(saw.latencies, 50) * 1000 for saw in seen]
            first, last = (statistics.median(part) for part in (medians[:quarter], medians[-quarter:]))
            drift = last / first - 1
            sentence = f"{name}: median latency {first:.2f} ms in the first quarter, {last:.2f} in the last ({drift:+.0%})"
            yield sentence, drift <= LATENCY_DRIFT_MAX
            again = sum(saw.again_in_calm.total() for saw in seen)
            yield f"{name}: {again} posts had to be sent again where no fault was near", again == 0


def percentile(values, of):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * of // 100)] if ordered else float("nan")


def slope_per_hour(minutes):
    """The median of the slopes between all pairs (Theil and Sen): a few odd minutes do not bend it."""
    pairs = [(a, b) for a in range(len(minutes)) for b in range(a + 1, len(minutes))]
    return statistics.median((minutes[b] - minutes[a]) / (b - a) for a, b in pairs) * 60


def rise_per_hour(minutes):
    """From the median of the first third to that of the last: a step between them does not hide."""
    third = max(1, len(minutes) // 3)
    rise = statistics.median(minutes[-third:]) - statistics.median(minutes[:third])
    return rise / (len(minutes) - third) * 60


def lost_or_doubled(port, posted, now):
    """The hosts and hours of which the summaries do not have exactly what was answered 200."""
    wrong = []
    for host, hours in posted.items():
        _, body = ask(port, "GET", f"/api/perf/{host}")
        summaries = json.loads(body)
        for label in LABELS:
            averages = summaries.get(f"summary:by-hour:{label}", {"averages": []})["averages"]
            kept = {average["start-sec"] // 3600: average["num-samples"] for average in averages}
            expected = {hour: count for hour, count in hours.items() if hour >= (now - 86_400) // 3600}
            wrong += [(host, label, hour) for hour in kept | expected if kept.get(hour) != expected.get(hour)]
    return wrong


def soak(lizm, minutes, directory):
    disk = directory / "disk"
    disk.mkdir()
    image = directory / "image"
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, disk], check=True)
    started, receivers, canary = [], {}, Disk(disk)
    try:
        redis = Redis(directory)
        started.append(redis)
        stores = {"disk": str(disk / "store"), "memory": "memory", "redis": f"redis://127.0.0.1:{redis.port}"}
        for name, store in stores.items():
            receivers[name] = Receiver(name, lizm, store, directory)
            started.append(receivers[name])
        for receiver in receivers.values():
            receiver.await_listening()
            await_true(receiver.is_well, f"{receiver.name} to be well")
        is_faulted, reports = multiprocessing.Value("b", 0), multiprocessing.Queue()
        begun_sec, begins = int(time.time()), time.monotonic() + REHEARSAL_SEC
        ends = begins + 60 * minutes
        canary.start()
        for name, receiver in receivers.items():
            for number in range(SENDERS):
                arguments = (name, receiver.port, number, begun_sec, ends, is_faulted, canary, reports)
                multiprocessing.Process(target=send, args=arguments, daemon=True).start()
        faults = Faults(receivers, redis, disk)
        # The windows are being filled, which no fault is to cut short.
        time.sleep(FAULT_EVERY_SEC)
        is_faulted.value = 1
        turn = 0
        while time.monotonic() < begins:
            faults.bring_about(turn)
            turn += 1
        time.sleep(CALM_SEC)
        is_faulted.value = 0
        return watch(receivers, faults, is_faulted, reports, ends)
    finally:
        canary.stop()
        for each in started:
            each.process.kill()
            each.process.wait()
        subprocess.run(["umount", disk], check=True)


def watch(receivers, faults, is_faulted, reports, ends):
    """Brings the faults about, gathers what is reported, and says which bars do not hold."""
    with contextlib.suppress(queue.Empty):
        while True:
            name, kind, what = reports.get(timeout=0.5)
            if kind != "seen":
                sys.exit(f"soak: {name} was answered {what} before the hour began")
    measured, seen, brought_about = Measured(), collections.defaultdict(Seen), []
    posted, wrong, turn, posts = {name: {} for name in receivers}, [], 0, 0
    senders_done, began = 0, time.monotonic()
    next_fault = began + FAULT_EVERY_SEC
    while senders_done < SENDERS * len(receivers):
        while not reports.empty() or time.monotonic() > ends:
            name, kind, what = reports.get(timeout=120)
            if kind == "seen":
                seen[name].add(what)
                posts += what.posts
            elif kind == "posted":
                posted[name] |= what
            else:
                wrong.append(f"{name} was answered {what}")
            senders_done += kind != "seen"
            if senders_done == SENDERS * len(receivers):
                break
        if FAULT_EVERY_SEC <= ends - time.monotonic() and time.monotonic() >= next_fault:
            # A minute ends with the calm before every second fault.
            if turn % 2 == 1:
                measured.add(receivers, seen, brought_about)
                seen.clear()
                brought_about.clear()
            is_faulted.value = 1
            brought_about.append(faults.bring_about(turn))
            time.sleep(CALM_SEC)
            is_faulted.value = 0
            turn, next_fault = turn + 1, next_fault + FAULT_EVERY_SEC
        time.sleep(0.2)
    now, bars = int(time.time()), list(measured.bars())
    for name, hosts in posted.items():
        count = sum(sum(hours.values()) for hours in hosts.values())
        differing = lost_or_doubled(receivers[name].port, hosts, now)
        bars.append((f"{name}: {count} posts were answered 200, and {len(differing)} hours of series differ", not differing))
    bars += [(sentence, False) for sentence in wrong]
    rate = posts / (ends - began)
    bars.append((f"{rate:.0f} posts a second were answered", rate >= POSTS_PER_SEC_MIN))
    for sentence, holds in bars:
        print(f"{'holds' if holds else 'FAILS'}: {sentence}")
    print(f"{turn} faults")
    return all(holds for _, holds in bars)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lizm")
    parser.add_argument("--minutes", type=int, default=60)
    options = parser.parse_args()
    if options.minutes < MINUTES_MIN:
        parser.error(f"--minutes must be {MINUTES_MIN} or more, so that there are quarters to compare")
    directory = Path(tempfile.mkdtemp(prefix="lizm-soak-"))
    if not soak(options.lizm, options.minutes, directory):
        sys.exit(f"soak: a bar does not hold; the logs are in {directory}")
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
