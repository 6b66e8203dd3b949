"""What the scenes of the page have in common: a page that is driven, and a receiver that is told and asked."""

import json
import time
import urllib.parse
from contextlib import contextmanager

from selenium.webdriver.common.by import By

from browser import console_errors, direct, open_browser, requests

PATIENCE_SEC = 30


def get(url, path):
    return json.loads(direct(url + path).read())


def post(url, host, values, epoch=None):
    epoch = int(time.time()) if epoch is None else epoch
    name = urllib.parse.quote(host, safe="").replace(".", "%2E")
    direct(f"{url}/api/perf/{name}/{epoch}", json.dumps(values).encode()).read()


def write(url, lines):
    """Takes lines of line protocol."""
    direct(f"{url}/write?precision=s", "\n".join(lines).encode()).read()


def await_true(what, probe):
    deadline = time.monotonic() + PATIENCE_SEC
    while not (found := probe()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.02)
    return found


def await_equal(what, expected, probe):
    """Waits until `probe` gives what is expected, and else says what it gave."""
    deadline = time.monotonic() + PATIENCE_SEC
    while (found := probe()) != expected:
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: {found!r}, expected {expected!r}")
        time.sleep(0.02)


class Page:
    def __init__(self, browser, url):
        self.browser, self.url, self.asked = browser, url, []

    def open(self, address=""):
        self.browser.get(f"{self.url}/{address}")

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def find(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector):
        """What is written in the nodes that are seen, as the browser renders it."""
        script = "return [...document.querySelectorAll(arguments[0])].filter(n => n.checkVisibility()).map(n => n.textContent)"
        return self.run(script, selector)

    def text(self, selector):
        texts = self.texts(selector)
        return texts[0] if texts else None

    def names(self):
        return self.texts("#rows .name a")

    def refresh(self):
        """Does what the clock does, and waits for the end of it."""
        self.browser.execute_async_script("refresh().then(arguments[0])")

    def settle(self):
        """What has been asked for since this was last called."""
        asked = requests(self.browser)
        self.asked += asked
        return asked


@contextmanager
def page_of(url, **how):
    browser = open_browser(**{"motion": True, **how})
    try:
        page = Page(browser, url)
        yield page
        page.settle()
        errors = console_errors(browser)
        assert not errors, errors
        strays = [asked for asked in page.asked if not asked.startswith(f"{url}/")]
        assert page.asked and not strays, strays
    finally:
        browser.quit()


def plots(page):
    return page.browser.find_elements(By.CSS_SELECTOR, ".plot")
