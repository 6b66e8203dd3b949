"""What a refresh of the dashboard costs with many hosts: python3 tests/browser/refresh.py BINARY [HOSTS]

Each host has an hour of cpu and mem behind it, and reports once between two refreshes. It prints the receiver's part,
and the browser's: from the last byte of the answer to the picture, parsing, layout and painting included.
"""

import gzip
import sys
import time

from browser import Receiver, open_browser

REFRESHES = 20

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
# Milliseconds from the begin of the navigation until rows are seen.
FIRST_ROWS = """
const done = arguments[0];
const look = () => document.querySelector("#rows .row") ? done(performance.now()) : requestAnimationFrame(look);
look();
"""


def median(numbers):
    return sorted(numbers)[len(numbers) // 2]


def main():
    binary, hosts = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    with Receiver(binary) as receiver:
        now = int(time.time())
        report = lambda at, n: [f"perf,host=host-{host:04} cpu={(host * 7 + n * 13) % 997 / 10},mem={(host + n) % 1000 / 10} {at}" for host in range(hosts)]
        for minute in range(60, -1, -1):
            receiver.write(report(now - minute * 60, minute))
        path = "/api/hosts?series=cpu,mem,disk&minutes=2&latest=disk:*,load1,net-in,net-out&labels=none"
        answer, took, cpu = receiver.get(path), [], receiver.cpu_sec()
        for _ in range(REFRESHES):
            start = time.monotonic()
            receiver.get(path)
            took.append((time.monotonic() - start) * 1000)
        cpu = (receiver.cpu_sec() - cpu) / REFRESHES * 1000
        print(f"{hosts} hosts, GET {path}: {len(answer)} bytes ({len(gzip.compress(answer, 1))} packed), "
              f"{median(took):.1f} ms until it is here, {cpu:.1f} ms of the receiver's CPU")
        browser = open_browser()
        try:
            browser.execute_cdp_cmd("Network.enable", {})
            browser.execute_cdp_cmd("Network.emulateNetworkConditions", SLOW)
            browser.get(receiver.url)
            took = browser.execute_async_script(FIRST_ROWS)
            print(f"first rows over 1.6 Mbit/s and 300 ms: {took:.0f} ms")
            browser.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1})
            browser.execute_script(WATCH)
            for sort in ["name", "cpu"]:
                browser.execute_script("choose({ sort: arguments[0], isReversed: false }); refreshes.length = 0", sort)
                for n in range(REFRESHES):
                    receiver.write(report(int(time.time()), n))
                    browser.execute_async_script("refresh().then(() => setTimeout(arguments[0], 300))")
                times = browser.execute_script("return refreshes")
                rows = browser.execute_script("return document.querySelectorAll('#rows .row').length")
                print(f"{rows} rows sorted by {sort}, {len(times)} refreshes in Chromium: "
                      f"median {median(times):.0f} ms, slowest {max(times):.0f} ms")
        finally:
            browser.quit()


main()
