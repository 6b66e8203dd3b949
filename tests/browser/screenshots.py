"""Pictures of the dashboard for people: python3 tests/browser/screenshots.py BINARY DIRECTORY

Phone and desktop, light and dark, the list, a host, and what is seen when there is nothing to see. The hosts have a
made-up day behind them. `dashboard.png` is the one of the README.
"""

import base64
import math
import os
import random
import sys
import time

from browser import Receiver, open_browser

# Name, usual cpu and mem in percent, and how long ago it reported last, in seconds.
HOSTS = [
    ("atlas", 34, 61, 0), ("build-1", 72, 48, 0), ("build-2", 88, 55, 0), ("cache-1", 12, 83, 0), ("cache-2", 11, 81, 0),
    ("db-primary", 41, 74, 0), ("db-replica", 18, 71, 0), ("edge-fra", 22, 38, 0), ("edge-sin", 27, 41, 45),
    ("app-leak-01", 21, 96.4, 0), ("backup-nas", 9, 31, 0), ("jarvis", 5, 35, 0), ("old-printer", 3, 22, 4000), ("web-1", 46, 52, 0), ("web-2", 44, 57, 0),
]
# Usual values of what a monitor measures besides, and of a service's own numbers.
MORE = {
    "net-in": 2.1e6, "net-out": 0.4e6, "disk-read": 3e5, "disk-write": 9e5, "load1": 0.8, "cpu-user": 9, "cpu-system": 4,
    "cpu-iowait": 2, "requests": 140, "requests\\,path\\=/login": 12, "requests\\,path\\=/search": 61, "queue_bytes": 7e4,
}
DISKS = {"backup-nas": 97.2, "db-primary": 81, "db-replica": 80, "jarvis": 64}


def day(name, cpu, mem, silent, now, rng):
    """Lines of a day: a sample a minute, and one every five seconds in the last hour."""
    ages = list(range(86400, 3600, -60)) + list(range(3600, -1, -5))
    burst, lines = 0.0, []
    for age in ages:
        second = now - age
        # A gap, as a reboot leaves one.
        if age < silent or name == "jarvis" and (2000 < age < 2500 or 50_000 < age < 58_000):
            continue
        tide = 1 + 0.45 * math.sin(second / 86400 * 2 * math.pi - 1.9) + 0.12 * math.sin(second / 700)
        burst = max(0.0, burst * 0.93 + (rng.random() < 0.02) * rng.uniform(10, 45))
        values = {
            "cpu": min(100, max(0, cpu * tide + burst + rng.gauss(0, 1 + cpu / 20))),
            "mem": min(100, max(0, mem + 3 * math.sin(second / 9000) + burst / 12 + rng.gauss(0, 0.2))),
        }
        values["disk"] = DISKS.get(name, 40) + (2.5 * (1 - age / 3600) if name == "backup-nas" and age < 3600 else 0)
        if name == "jarvis":
            values |= {label: usual * tide * rng.uniform(0.3, 1.7) for label, usual in MORE.items()}
            values["temp"], values["uptime"], values["threads"] = 51 + 6 * tide, 1e6 - age, 24
        fields = ",".join(f"{label}={value:.2f}" for label, value in values.items())
        lines.append(f"perf,host={name} {fields} {second}")
    return lines


def report(receiver):
    """One more sample of each host that still reports, so that it is up."""
    live = [(name, cpu, mem) for name, cpu, mem, silent in HOSTS if silent == 0]
    receiver.write([f"perf,host={name} cpu={cpu},mem={mem} {int(time.time())}" for name, cpu, mem in live])


def shoot(url, path, hover=None, **how):
    browser = open_browser(**how)
    try:
        browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Europe/Berlin"})
        browser.execute_cdp_cmd("Emulation.setLocaleOverride", {"locale": "en-GB"})
        browser.get(url)
        ready = "return document.querySelector('#live').className.includes('is-') && document.fonts.status === 'loaded'"
        deadline = time.monotonic() + 30
        while not browser.execute_script(ready):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} shows nothing")
        if hover:
            point = "const box = document.querySelector('.plot').getBoundingClientRect(); return [box.left + box.width * %s, box.top + 60]"
            x, y = browser.execute_script(point % hover)
            browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})
        picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture["data"]))
        print(f"{path}: {os.path.getsize(path)} bytes")
    finally:
        browser.quit()


def main():
    binary, directory = sys.argv[1:]
    desktop, phone = {"width": 1280, "height": 930}, {"width": 390, "height": 844, "phone": True}
    os.makedirs(directory, exist_ok=True)
    with Receiver(binary) as receiver, Receiver(binary) as empty:
        now, rng = int(time.time()), random.Random(8)
        for name, cpu, mem, silent in HOSTS:
            receiver.write(day(name, cpu, mem, silent, now, rng))
        receiver.write([f"perf,host=greenhouse temperature=21.5,humidity=64 {now - age}" for age in range(600, -1, -5)])
        receiver.write([f"perf,host=newcomer cpu=8.4,mem=19.2 {now}"])
        shoot(receiver.url, f"{directory}/dashboard.png", width=1200, height=720)
        for name, size in [("desktop", desktop), ("phone", phone)]:
            for theme in ["light", "dark"]:
                how = {**size, "dark": theme == "dark"}
                report(receiver)
                shoot(receiver.url, f"{directory}/dashboard-list-{name}-{theme}.png", **how)
                report(receiver)
                shoot(f"{receiver.url}/#host=jarvis", f"{directory}/dashboard-host-{name}-{theme}.png", hover=0.62, **how)
        shoot(f"{receiver.url}/#filter=nobody", f"{directory}/dashboard-no-match.png", **desktop)
        shoot(f"{receiver.url}/#host=newcomer", f"{directory}/dashboard-one-sample.png", **desktop)
        shoot(f"{receiver.url}/#host=gone", f"{directory}/dashboard-gone.png", **desktop)
        shoot(empty.url, f"{directory}/dashboard-empty.png", **desktop)


main()
