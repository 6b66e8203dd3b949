"""Pictures of the dashboard for people: python3 tests/browser/screenshots.py BINARY DIRECTORY

Every view, wide and narrow, light and dark, of hosts with a made-up past, and what is seen where there is nothing to see.
`list-1440-light.png` is the one of the README.
"""

import base64
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time

from browser import Receiver, open_browser

WIDTHS = {1440: 900, 1024: 768, 390: 844, 320: 640}

# Name, usual cpu and mem in percent, and how long ago it reported last, in seconds.
NAMED = [
    ("atlas", 34, 61, 0), ("db-primary", 41, 74, 0), ("db-replica", 18, 71, 0), ("edge-fra", 22, 38, 0), ("edge-sin", 27, 41, 45),
    ("app-leak-01", 21, 99, 0), ("backup-nas", 9, 31, 0), ("jarvis", 5, 35, 0), ("mail-gw-02", 3, 22, 1260),
]
KINDS = [("web", 44, 52), ("build", 71, 48), ("cache", 12, 82), ("queue", 25, 40), ("search", 38, 66), ("app", 30, 45)]
# Usual values of what a monitor measures besides, and of a service's own numbers.
MORE = {
    "disk-read": 3e5, "disk-write": 9e5, "cpu-user": 9, "cpu-system": 4, "cpu-iowait": 2,
    "requests": 140, "requests\\,path\\=/login": 12, "requests\\,path\\=/search": 61, "queue_bytes": 7e4,
}
DISKS = {"backup-nas": 97.2, "db-primary": 81, "db-replica": 80, "jarvis": 64}


def fleet(count):
    """As many hosts: those with names first, then some of each kind."""
    more = [(f"{kind}-{n:02}", cpu, mem, 0) for n in range(1, 100) for kind, cpu, mem in KINDS]
    return (NAMED + more)[:count]


def past(host, now, rng, ages):
    """Lines of a host's past, a sample for each age."""
    name, cpu, mem, silent = host
    rise, burst, lines = random.Random(name).uniform(0.8, 1.2), 0.0, []
    for age in ages:
        second = now - age
        # A gap, as a reboot leaves one.
        if age < silent or name == "jarvis" and (2000 < age < 2500 or 50_000 < age < 58_000):
            continue
        tide = rise * (1 + 0.3 * math.sin(second / 86400 * 2 * math.pi - 1.9) + 0.12 * math.sin(second / 700 + rise))
        burst = max(0.0, burst * 0.93 + (rng.random() < 0.02) * rng.uniform(10, 45))
        busy = min(100, max(0, cpu * tide + burst + rng.gauss(0, 1 + cpu / 20)))
        values = {
            "cpu": busy, "mem": min(100, max(0, mem + 3 * math.sin(second / 9000) + burst / 12 + rng.gauss(0, 0.2))),
            "disk": DISKS.get(name, 25 + 40 * rise % 50) + (2.5 * (1 - age / 3600) if name == "backup-nas" and age < 3600 else 0),
            "load1": busy / 25, "load-per-core": busy / 100, "net-in": 3e5 * rise * busy, "net-out": 7e4 * rise * busy, "uptime": (1e6 * rise - age) % 2e6,
        }
        if name == "jarvis":
            values |= {label: usual * tide * rng.uniform(0.3, 1.7) for label, usual in MORE.items()}
            values["temp"], values["threads"] = 51 + 6 * tide, 24
        fields = ",".join(f"{label}={value:.2f}" for label, value in values.items())
        lines.append(f"perf,host={name} {fields} {second}")
    return lines


def fill(receiver, count):
    """Gives a receiver so many hosts with an hour behind them, and of one a day."""
    now, rng = int(time.time()) // 5 * 5, random.Random(8)
    for host in fleet(count):
        ages = list(range(86400, 3600, -60)) + list(range(3600, -1, -5)) if host[0] == "jarvis" else range(3600, -1, -60)
        receiver.write(past(host, now, rng, ages))


# Rules of which some fire, and one that has fired and is over when its line is gone.
RULES = "disk: disk > 90 for 5m\nmemory: mem > 95 for 5m; severity critical\ngone: host down\n"
OVER = "busy: cpu > 15 for 1m on app-leak-01\n"


def fill_with_alerts(receiver, rules):
    """Gives it 60 hosts with tags, of which one has a year behind it and a command that leaks, and waits for the alerts."""
    now, rng = int(time.time()) // 5 * 5, random.Random(8)
    fill(receiver, 60)
    role = lambda host: "edge" if "-gw-" in host or "edge" in host else host.split("-")[0]
    receiver.write([f'lizm_tags,host={host} role="{role(host)}",zone="{"ab"[n % 2]}"' for n, (host, *_) in enumerate(fleet(60))])
    leak = next(host for host in fleet(60) if host[0] == "app-leak-01")
    receiver.write(past(leak, now, rng, range(86400 * 365, 86400, -86400 // 4)))
    tops = lambda age: f"top-cpu:java={12 + 6 * math.sin(age / 300):.1f},top-cpu:nginx=4.2,top-cpu:sshd=0.1,top-mem:java={2.1e9 - age * 2e5:.0f},top-mem:nginx=8.1e7"
    receiver.write([f"perf,host=app-leak-01 {tops(age)} {now - age}" for age in range(3600, -1, -60)])
    await_history(receiver, lambda events: len(events) >= 3)
    with open(rules, "w", encoding="utf-8") as file:
        file.write(RULES)
    await_history(receiver, lambda events: any(event["state"] == "resolved" for event in events))


def await_history(receiver, is_so):
    deadline = time.monotonic() + 60
    while not is_so(events := json.loads(receiver.get("/api/alerts?history=1"))["history"]):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the alerts are not so: {events}")
        time.sleep(0.2)


def report(receiver, count):
    """One more sample of each host that still reports, so that it is up."""
    now, rng = int(time.time()) // 5 * 5, random.Random(9)
    receiver.write([line for host in fleet(count) if host[3] == 0 for line in past(host, now, rng, [0])])


class Camera:
    """One browser, which looks at pages in any size and theme."""

    def __init__(self, directory):
        self.browser, self.directory = open_browser(), directory
        self.tell("Emulation.setTimezoneOverride", timezoneId="Europe/Berlin")
        self.tell("Emulation.setLocaleOverride", locale="en-GB")

    def tell(self, command, **arguments):
        return self.browser.execute_cdp_cmd(command, arguments)

    def look(self, width, dark=False):
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=WIDTHS[width], deviceScaleFactor=1, mobile=width < 700)
        self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def open(self, url, until="document.querySelector('#live').className.includes('is-') && (view.host !== null || isHourKnown || !rows.size)"):
        self.browser.get("about:blank")
        self.browser.get(url)
        self.await_true(until)

    def await_true(self, condition):
        deadline = time.monotonic() + 30
        while not self.browser.execute_script(f"return Boolean({condition})"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{condition} is not so")

    def hover(self, share):
        """Points at a place of the first chart."""
        point = "const box = document.querySelector('.plot').getBoundingClientRect(); return [box.left + box.width * %s, box.top + 60]"
        x, y = self.browser.execute_script(point % share)
        self.tell("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def shoot(self, name):
        picture = self.tell("Page.captureScreenshot", format="png")
        path = f"{self.directory}/{name}.png"
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture["data"]))
        subprocess.run(["pngquant", "--force", "--skip-if-larger", "--output", path, "128", path], check=False)
        print(f"{path}: {os.path.getsize(path)} bytes")


def main():
    binary, directory = sys.argv[1:]
    os.makedirs(directory, exist_ok=True)
    camera = Camera(directory)
    try:
        with Receiver(binary) as receiver, Receiver(binary) as empty:
            fill(receiver, 60)
            for width in WIDTHS:
                for theme in ["light", "dark"]:
                    report(receiver, 60)
                    camera.look(width, theme == "dark")
                    camera.open(receiver.url)
                    camera.shoot(f"list-{width}-{theme}")
                    camera.open(f"{receiver.url}/#host=jarvis", "document.querySelector('.card path.line')")
                    if width > 700:
                        camera.hover(0.62)
                    camera.shoot(f"host-{width}-{theme}")
            camera.look(1440)
            report(receiver, 60)
            for name, address in [("groups", "#group=name"), ("columns", "#columns=cpu,disk,temp,uptime&sort=uptime"),
                                  ("no-match", "#filter=nobody"), ("gone", "#host=nobody"), ("day", "#host=jarvis&range=day")]:
                camera.open(f"{receiver.url}/{address}")
                camera.shoot(name)
            camera.open(empty.url)
            camera.shoot("empty")
            camera.open(receiver.url)
            camera.browser.execute_script("$('keys').showModal()")
            camera.shoot("keys")
            camera.open(receiver.url)
            receiver.process.kill()
            camera.await_true("document.body.classList.contains('is-old')")
            camera.shoot("away")
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as rules:
            rules.write(RULES + OVER)
            rules.flush()
            with Receiver(binary, "--keep", "1m:1d,1h:90d,1d:2y", "--alerts", rules.name) as receiver:
                fill_with_alerts(receiver, rules.name)
                report(receiver, 60)
                camera.open(f"{receiver.url}/#group=tag:role")
                camera.shoot("alerts")
                for range, hover in [("hour", 0.7), ("year", 0.5)]:
                    camera.open(f"{receiver.url}/#host=app-leak-01&range={range}", "document.querySelector('.card path.line')")
                    camera.hover(hover)
                    camera.shoot(f"alerts-{range}")
                camera.browser.get("about:blank")
                camera.tell("Network.enable")
                camera.tell("Network.emulateNetworkConditions", offline=False, latency=3000, downloadThroughput=-1, uploadThroughput=-1)
                camera.browser.get(receiver.url)
                camera.await_true("!document.querySelector('#skeleton').hidden")
                camera.shoot("loading")
                camera.tell("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
        for count in [1, 500]:
            with Receiver(binary) as receiver:
                fill(receiver, count)
                camera.open(receiver.url)
                camera.shoot(f"list-{count}-hosts")
    finally:
        camera.browser.quit()


main()
