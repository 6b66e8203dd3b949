"""Debian's Chromium without a window, and a receiver with a past for it to look at."""

import json
import os
import subprocess
import urllib.request

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

# Lines of one POST /write; the receiver takes 10,000.
LINES_MAX = 10_000


def direct(url, body=None, method=None):
    """Asks for a URL, whatever proxy the environment names."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(urllib.request.Request(url, body, method=method))


def open_browser(width=1280, height=800, dark=False, phone=False, scale=1, motion=False):
    """A browser that keeps a log of its console and of its network."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    # A container has no user namespaces for the sandbox, and often little /dev/shm.
    for argument in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--lang=en-GB", "--hide-scrollbars",
                     "--no-proxy-server", *([] if motion else ["--force-prefers-reduced-motion"])]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
    metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": theme})
    return browser


def console_errors(browser):
    """What the console complains of since it was last asked: errors of the script, and what the policy has stopped."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def requests(browser):
    """The URLs asked for since this was last asked, in their order."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith("data:")]


class Receiver:
    """The binary, with what it keeps in memory."""

    def __init__(self, binary, *options):
        arguments = [binary, "receiver", "--port", "0", "--bind", "127.0.0.1", *options]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env={})
        self.url = self.process.stdout.readline().split()[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def cpu_sec(self):
        """Time its threads have run for so far."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def write(self, lines):
        """Takes lines of line protocol, as many as there are."""
        for start in range(0, len(lines), LINES_MAX):
            body = "\n".join(lines[start:start + LINES_MAX]).encode()
            direct(f"{self.url}/write?precision=s", body).read()

    def get(self, path):
        return direct(self.url + path).read()

    def head_of(self, path, encoding):
        """The headers of an answer in a content encoding."""
        request = urllib.request.Request(self.url + path, headers={"Accept-Encoding": encoding})
        return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).headers
