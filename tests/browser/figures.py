"""The figures of the page, each beside its bar: python3 tests/browser/figures.py BINARY [AXE]

The receiver, Debian's Chromium and all that it starts run on this machine. Each host has an hour of minutes behind it.
"""

import gzip
import os
import sys
import time

from browser import Receiver, open_browser

REFRESHES = 20
IDLE_SEC = 30

# Takes the time of a refresh: from the body of the answer to the end of the frame that shows it.
WATCH = """
window.refreshes = [];
Response.prototype.json = async function () {
  const text = await this.text();
  const start = performance.now();
  requestAnimationFrame(() => setTimeout(() => refreshes.push(performance.now() - start)));
  return JSON.parse(text);
};
"""
SLOW = {"offline": False, "latency": 300, "downloadThroughput": 200_000, "uploadThroughput": 200_000}
FAST = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
# Milliseconds from the begin of the navigation until rows are seen.
FIRST_ROWS = """
const done = arguments[0];
const look = () => document.querySelector("#rows .row") ? done(performance.now()) : requestAnimationFrame(look);
look();
"""
REFRESH = "/api/hosts?series=cpu,mem,disk&minutes=2&latest=disk:*,load1,load-per-core,net-in,net-out&labels=none"


def median(numbers):
    return sorted(numbers)[len(numbers) // 2]


def tell(what, figure, bar, unit):
    """Prints a figure beside its bar."""
    print(f"{'ok  ' if figure <= bar else 'OVER'} {what}: {figure:,.1f} {unit}, the bar is {bar:,} {unit}", flush=True)


def report(hosts, at, n):
    values = lambda host: f"cpu={(host * 7 + n * 13) % 997 / 10},mem={(host + n) % 900 / 10},disk={host % 88}.5,load1={host % 7}.25,load-per-core={host % 7 / 8},net-in={host * 1e4},net-out={host * 3e3}"
    return [f"perf,host=host-{host:04} {values(host)} {at}" for host in range(hosts)]


def fill(receiver, hosts):
    now = int(time.time())
    for minute in range(60, -1, -1):
        receiver.write(report(hosts, now - minute * 60, minute))


def cpu_sec_of_children(pid):
    """Time that a process and all that descends from it have run for."""
    children, ticks = {}, {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(fields[1]), []).append(int(entry))
        ticks[int(entry)] = int(fields[11]) + int(fields[12])
    waiting, total = [pid], 0
    while waiting:
        process = waiting.pop()
        total += ticks.get(process, 0)
        waiting += children.get(process, [])
    return total / os.sysconf("SC_CLK_TCK")


def idle(binary):
    """A page of 60 hosts that is looked at and left alone, with motion allowed."""
    with Receiver(binary) as receiver:
        fill(receiver, 60)
        browser = open_browser(motion=True)
        try:
            browser.get(receiver.url)
            browser.execute_async_script(FIRST_ROWS)
            time.sleep(10)
            driver = browser.service.process.pid
            before, start = cpu_sec_of_children(driver), time.monotonic()
            while time.monotonic() - start < IDLE_SEC:
                receiver.write(report(60, int(time.time()), int(time.time()) % 60))
                time.sleep(1)
            used = (cpu_sec_of_children(driver) - before) / (time.monotonic() - start)
            tell("an idle page of 60 hosts, all of Chromium", used * 100, 8, "% of a core")
        finally:
            browser.quit()


def first_rows(binary):
    with Receiver(binary) as receiver:
        fill(receiver, 500)
        tell("a refresh of 500 hosts on the wire, gzipped", len(gzip.compress(receiver.get(REFRESH), 6)) / 1000, 60, "kB")
        tell("the page itself, gzipped", int(receiver.head_of("/", "gzip")["Content-Length"]) / 1000, 25, "kB")
        browser = open_browser()
        try:
            browser.execute_cdp_cmd("Network.enable", {})
            browser.execute_cdp_cmd("Network.emulateNetworkConditions", SLOW)
            took = []
            for _ in range(5):
                browser.execute_cdp_cmd("Network.clearBrowserCache", {})
                browser.get("about:blank")
                browser.get(receiver.url)
                took.append(browser.execute_async_script(FIRST_ROWS))
            tell("first rows of 500 hosts over 1.6 Mbit/s and 300 ms", median(took) / 1000, 1.5, "s")
        finally:
            browser.quit()


def refresh(binary):
    with Receiver(binary) as receiver:
        fill(receiver, 1000)
        took, cpu = [], receiver.cpu_sec()
        for _ in range(REFRESHES):
            start = time.monotonic()
            receiver.get(REFRESH)
            took.append((time.monotonic() - start) * 1000)
        cpu = (receiver.cpu_sec() - cpu) / REFRESHES * 1000
        print(f"     a refresh of 1,000 hosts: {median(took):.1f} ms until it is here, {cpu:.1f} ms of the receiver's CPU")
        browser = open_browser()
        try:
            browser.get(receiver.url)
            browser.execute_async_script(FIRST_ROWS)
            browser.execute_script(WATCH)
            for sort in ["name", "cpu"]:
                browser.execute_script("choose({ sort: arguments[0], isReversed: false }); refreshes.length = 0", sort)
                for n in range(REFRESHES):
                    receiver.write(report(1000, int(time.time()), n))
                    browser.execute_async_script("refresh().then(() => setTimeout(arguments[0], 300))")
                times = browser.execute_script("return refreshes")
                tell(f"a refresh of 1,000 hosts by {sort}, answer to picture", median(times), 100, "ms")
        finally:
            browser.quit()


def accessible(binary, axe):
    """What axe-core finds on the list and on a host, light and dark."""
    with open(axe, encoding="utf-8") as file:
        script = file.read()
    found = 0
    with Receiver(binary) as receiver:
        fill(receiver, 60)
        for dark in [False, True]:
            browser = open_browser(dark=dark)
            try:
                for address, until in [("", "#rows .row"), ("#host=host-0001", ".card path.line")]:
                    browser.get("about:blank")
                    browser.get(f"{receiver.url}/{address}")
                    browser.execute_async_script(FIRST_ROWS.replace("#rows .row", until))
                    browser.execute_script(script)
                    found += len(browser.execute_async_script("axe.run(document).then(found => arguments[0](found.violations))"))
            finally:
                browser.quit()
    tell("what axe-core finds on the list and a host, light and dark", found, 0, "findings")


def main():
    binary, axe = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    first_rows(binary)
    refresh(binary)
    idle(binary)
    if axe:
        accessible(binary, axe)


main()
