"""What people see and do on the dashboard, in a browser: python3 tests/browser/page.py SCENE URL

Fails with a traceback. Each scene also fails where the console has anything to say, or where a request leaves the
place that the page was loaded from.
"""

import http.server
import json
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browser import console_errors, direct, open_browser, requests
from charts import families, ranges
from driving import Page, await_equal, await_true, get, page_of, plots, post
from fleet import columns, many

# What the default columns need besides minutes.
LATEST = "disk:*,load1,load-per-core,net-in,net-out"


def shown(label, average):
    """What a chart of one percentage says of an average of the JSON, but for when it was."""
    percent = lambda value: f"{value:.1f} %"
    low, high = percent(average["min"]), percent(average["max"])
    return f"{label} {percent(average.get('mean', average['avg']))}" + (f", {low} to {high}" if average["min"] != average["max"] else "")


def live(url):
    """A live host is listed and opened, its values are those of the JSON, and a new sample is seen."""
    minute = int(time.time()) // 60 * 60
    for ago, cpu in [(600, 10.4), (599, 20.24), (540, 30), (120, 99.6), (60, 4.98)]:
        post(url, "jarvis", {"cpu": cpu, "mem": cpu / 2, "disk /var": 71, "net-in": 2.5e6, "net-out": ago}, minute - ago + 5)
    for host, cpu in [("atlas", 80), ("web-10", 20), ("web-9", 30)]:
        post(url, host, {"cpu": cpu, "mem": 1})
    post(url, "greenhouse", {"temperature": 21.5})
    with page_of(url) as page:
        page.open()
        await_equal("the list", ["atlas", "greenhouse", "jarvis", "web-9", "web-10"], page.names)
        listed = {entry["host"]: entry for entry in get(url, "/api/hosts?series=cpu,mem,disk")["hosts"]}
        for row in page.browser.find_elements(By.CSS_SELECTOR, "#rows .row"):
            entry = listed[row.find_element(By.CSS_SELECTOR, ".name a").text]
            assert row.find_element(By.CSS_SELECTOR, ".state span").text == entry["state"]
            for label in ["cpu", "mem", "disk"]:
                means = [mean for mean in entry["series"].get(label, []) if mean is not None]
                value = row.find_element(By.CSS_SELECTOR, f".{label} .value").text
                assert value == (f"{means[-1]:.1f}" if means else "–"), (entry["host"], value)
        assert page.texts("#rows .row:nth-child(3) .in .value") == ["2.50 MB/s"], "jarvis has its network beside"
        await_equal("the labels of a host without the columns", ["temperature"], lambda: [text for text in page.texts("#rows small") if text])

        # Sorting, the whole thing by keyboard: a load is sorted from the highest down.
        page.find("th[data-sort=cpu] button").send_keys(Keys.ENTER)
        await_equal("the load", ["atlas", "web-9", "web-10"], lambda: page.names()[:3])
        assert page.find("th[data-sort=cpu]").get_attribute("aria-sort") == "descending"
        page.find("#filter").send_keys("WEB")
        await_equal("the filter", ["web-9", "web-10"], page.names)
        assert page.text("#list-status") == "2 of 5 hosts shown" and page.browser.current_url.endswith("#filter=WEB&sort=cpu")
        post(url, "web-11", {"cpu": 90})
        # It refreshes itself, and neither the filter nor the order nor the focus is lost.
        await_equal("the newcomer", ["web-11", "web-9", "web-10"], page.names)
        assert page.run("return document.activeElement.id") == "filter"
        page.find("#rows .row:nth-child(2) a").send_keys("")
        page.run("document.querySelector('#rows .row:nth-child(2) a').focus()")
        post(url, "web-10", {"cpu": 60})
        cpu_of_last = "return rows.get('web-10').values.cpu"
        await_true("the new number", lambda: page.run(cpu_of_last) > 30)
        assert page.names() == ["web-11", "web-9", "web-10"], "the order rests while the focus is in the list"
        page.run("document.activeElement.blur()")
        await_equal("another order", ["web-11", "web-10", "web-9"], page.names)
        page.run("document.querySelector('#rows .row:nth-child(3) a').focus()")
        assert page.run("return document.activeElement.textContent") == "web-9"
        page.browser.switch_to.active_element.send_keys(Keys.ENTER)
        await_equal("the host", "web-9", lambda: page.text("#host-title"))
        page.browser.back()
        await_equal("the list again", ["web-11", "web-10", "web-9"], page.names)
        page.find("#filter").send_keys(Keys.BACKSPACE * 3)
        await_true("everything", lambda: len(page.names()) == 6)

        # One request a refresh, of the list and of a host.
        page.find("#pause").click()
        await_true("the pause", lambda: page.text("#live-text").startswith("Paused at "))
        page.settle()
        [page.refresh() for _ in range(3)]
        assert page.settle() == [f"{url}/api/hosts?series=cpu,mem,disk&latest={LATEST}&minutes=2&labels=none"] * 3
        page.browser.find_element(By.LINK_TEXT, "jarvis").click()
        await_equal("the families", ["CPU", "Memory and swap", "Network in and out"], lambda: page.texts(".card h2"))
        assert page.texts("#constants li") == ["disk /var 71 all the time"], page.texts("#constants li")
        assert page.texts(".card:nth-child(3) .legend span") == ["net-in", "net-out"]
        assert page.texts(".card:nth-child(3) .legend b") == ["2.5 MB/s", "60 B/s"]
        page.settle()
        [page.refresh() for _ in range(3)]
        assert page.settle() == [f"{url}/api/hosts?host=jarvis"] * 3
        assert_charts(page, url, "jarvis", "hour")
        page.find("#ranges button[data-range=day]").click()
        await_equal("the range", "true", lambda: page.find("#ranges button[data-range=day]").get_attribute("aria-pressed"))
        assert page.browser.current_url.endswith("#host=jarvis&range=day")
        await_true("the day", lambda: "last day by hour" in plots(page)[0].get_attribute("aria-label"))
        assert_charts(page, url, "jarvis", "day")

        # A sample that comes now is seen after a while without anybody doing anything.
        page.find("#ranges button[data-range=hour]").click()
        await_true("the hour", lambda: "last hour by minute" in plots(page)[0].get_attribute("aria-label"))
        page.find("#pause").click()
        before = plots(page)[0].get_attribute("aria-valuetext")
        post(url, "jarvis", {"cpu": 55.5, "mem": 36})
        newest = get(url, "/api/perf/jarvis/by-minute:cpu")["summary:by-minute:cpu"]["averages"][-1]
        assert not before.endswith(shown("cpu", newest))
        await_true("the new sample", lambda: plots(page)[0].get_attribute("aria-valuetext").endswith(shown("cpu", newest)))
        assert page.texts(".tile dt")[:2] == ["CPU", "Memory"] and page.texts(".tile .newest")[:2] == ["55.5 %", "36.0 %"]
        page.find("#back").click()
        await_true("the list", page.names)
        title = page.browser.title
        assert title.startswith("6 hosts") and title.endswith(" · lizm"), title


def assert_charts(page, url, host, range):
    """Goes through the charts of cpu and mem by keyboard, and compares what they say with the JSON."""
    summaries = get(url, f"/api/perf/{host}")
    window = {"hour": "by-minute", "day": "by-hour"}[range]
    for label, plot in zip(["cpu", "mem"], plots(page)):
        averages = summaries[f"summary:{window}:{label}"]["averages"]
        plot.send_keys(Keys.HOME)
        for average in averages:
            said = plot.get_attribute("aria-valuetext")
            assert said.endswith(shown(label, average)), (label, window, said, average)
            start = page.run("const d = new Date(arguments[0] * 1000); return clockFormat.format(d)", average["start-sec"])
            assert f"{start} – " in said, (said, start)
            # All charts point at the same time, and say which.
            assert len(set(page.texts(".card time"))) == 1 and start in page.texts(".card time")[0], page.texts(".card time")
            plot.send_keys(Keys.ARROW_RIGHT)
        gaps = sum(a["end-sec"] != b["start-sec"] for a, b in zip(averages, averages[1:]))
        line = plot.find_element(By.CSS_SELECTOR, ".line").get_attribute("d")
        assert line.count("M") == gaps + 1, "a gap is left as a gap"
        plot.send_keys(Keys.ESCAPE)


def states(url):
    """What is said where there is nothing to see, and what is seen of a host of one sample."""
    with page_of(url) as page:
        page.browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Kathmandu"})
        page.open()
        await_equal("the empty receiver", "No host has reported yet", lambda: page.text("#list-blank h2"))
        assert page.text("#list-blank code").endswith(f" --publish {url}/api/perf")
        epoch = int(time.time()) // 3600 * 3600 - 3600
        post(url, "once", {"cpu": 8.4}, epoch + 1)
        await_equal("the first host", ["once"], page.names)
        assert page.text("#rows .state span") == "down"
        page.find("#filter").send_keys("<b>")
        await_equal("no match", "None of 1 host matches “<b>”.", lambda: page.text("#list-blank p"))
        page.find("#list-blank button").click()
        await_equal("all", ["once"], page.names)
        page.find("#chips button:nth-child(3)").click()
        await_equal("no match", "None of 1 host matches “is:up”.", lambda: page.text("#list-blank p"))
        page.browser.back()
        page.open("#host=once&range=day")
        await_true("the chart by hour", lambda: page.texts(".card") and "cpu" in plots(page)[0].get_attribute("aria-valuetext"))
        said = plots(page)[0].get_attribute("aria-valuetext")
        hour, minute = time.gmtime(epoch + 5 * 3600 + 45 * 60)[3:5]
        times = [f"{hour:02}:{minute}", f"{(hour + 11) % 12 + 1:02}:{minute}"]
        assert any(time in said for time in times), (said, times)
        assert said.endswith("cpu 8.4 %"), said
        page.open("#host=nobody")
        await_equal("a host that is gone", "This host is not known here", lambda: page.text("#host-blank h2"))
        assert page.text("#host-title") == "nobody" and not page.texts(".card")
        post(url, "nobody", {"cpu": 1})
        await_equal("the host that has come back", ["CPU"], lambda: page.texts(".card h2"))
        direct(f"{url}/api/perf/nobody", method="DELETE").read()
        await_equal("the host that was removed", "This host is not known here", lambda: page.text("#host-blank h2"))


def attention(url):
    """What is wrong is said first: hosts that are down, disks that fill, memory that runs out; and no more than that."""
    now = int(time.time())
    with page_of(url) as page:
        post(url, "well", {"cpu": 99, "mem": 50, "disk": 89.9})
        page.open()
        await_equal("the list", ["well"], page.names)
        assert not page.find("#attention").is_displayed()
        for minute in range(10):
            post(url, "nas", {"disk": 90 + minute * 0.5, "mem": 10}, now - (9 - minute) * 60)
        post(url, "leak", {"mem": 97, "cpu": 1})
        post(url, "gone", {"cpu": 95, "mem": 99, "disk": 99}, now - 1800)
        await_equal("what is wrong", ["gone down for 30 min", "leak memory 97.0 %", "nas disk 94.5 %, full in about 11 min"],
                    lambda: page.texts("#attention li"))
        assert page.names() == ["gone", "leak", "nas", "well"], "problems come first"
        assert page.texts("#rows .high") == ["97.0", "94.5", "99.0"], "a host that is down has no number that stands out"
        assert [cell.get_attribute("class") for cell in page.browser.find_elements(By.CSS_SELECTOR, "#strip i")] == [
            "severity-3", "severity-2", "severity-2", "severity-0"]
        for text, names in [("is:down", ["gone"]), ("disk>90", ["gone", "nas"]), ("mem<50 disk>90", ["nas"]), ("disk>90 n", ["gone", "nas"])]:
            page.run("choose({ filter: arguments[0] })", text)
            await_equal(text, names, page.names)
        page.find("#strip i:nth-child(3)").click()
        await_equal("the host of a cell of the strip", ["nas"], page.names)
        direct(f"{url}/write", b'lizm_tags,host=nas role="Store"\nlizm_tags,host=leak role="front"').read()
        page.run("choose({ filter: 'tag:role=store' })")
        await_equal("those with a tag", ["nas"], page.names)
        page.run("choose({ filter: 'tag:role', group: 'tag:role' })")
        await_equal("groups by the tag", ["front", "Store"], lambda: page.texts("#rows .group button"))
        page.run("choose({ filter: '', group: '' })")
        page.browser.find_element(By.LINK_TEXT, "leak").click()
        await_equal("the host", "leak", lambda: page.text("#host-title"))


def alerts(url, rules):
    """What fires by a rule is said first, and in the row; a host lists it with its threshold, and it can be silenced; what
    is over is listed too, and shaded where it was."""
    now = int(time.time())
    for ago in range(600, -1, -30):
        post(url, "web-1", {"queue": 50 + ago / 100, "cpu": 5}, now - ago)
        post(url, "web-2", {"queue": 5, "cpu": 5}, now - ago)
    await_true("the alert", lambda: get(url, "/api/hosts")["firing"])
    with page_of(url, width=1440) as page:
        page.open()
        await_true("what fires", lambda: (page.text("#attention li") or "").startswith("web-1 queue: queue 5"))
        assert page.names() == ["web-1", "web-2"] and page.texts("#rows small") == ["queue", ""], page.texts("#rows small")
        page.browser.find_element(By.LINK_TEXT, "web-1").click()
        await_true("the alert", lambda: page.texts("#host-alerts li"))
        assert "(> 20), since " in page.text("#host-alerts li"), page.text("#host-alerts li")
        await_true("its threshold", lambda: len(page.browser.find_elements(By.CSS_SELECTOR, ".threshold")) == 1)
        with open(rules, "w", encoding="utf-8") as file:
            file.write("busy: cpu > 1\n")
        await_true("what is over", lambda: page.text("#host-past summary") == "1 alert in the past")
        page.find("#host-past summary").click()
        assert page.text("#host-past li").startswith("queue: queue "), page.text("#host-past li")
        page.find("#ranges button[data-range=day]").click()
        # The other rule may fire by now, and is seen on another card.
        marks = "return [...document.querySelectorAll('.card')].find(card => card.querySelector('h2').textContent === 'queue').querySelectorAll('.fired, .threshold').length"
        await_equal("its time and its threshold", 2, lambda: page.run(marks))
        await_true("another alert", lambda: (page.text("#host-alerts li") or "").startswith("busy: cpu "))
        page.find("#host-alerts button").click()
        assert page.text("#forget-title") == "Silence busy on web-1?"
        page.find("#forget-yes").click()
        await_true("silence", lambda: (page.text("#host-alerts li") or "").endswith(", silenced"))
        assert not page.texts("#host-alerts button")


def accessible(url, axe):
    """axe-core finds nothing to complain of in any view: light, dark and in forced colours, wide and narrow."""
    with open(axe, encoding="utf-8") as file:
        script = file.read()
    now = int(time.time())
    for minute in range(20):
        values = {"cpu": 20 + minute, "cpu-user": 10, "cpu-system": minute, "mem": 40 + minute, "disk": 80 + minute, "disk:/var": 50, "net-in": minute * 1000,
                  "net-out": minute, "load1": minute / 10, "uptime": 1e5 + minute}
        post(url, "web-1", values, now - (19 - minute) * 60)
        post(url, "web-2", {**values, "disk": 30}, now - (19 - minute) * 60)
    post(url, "gone", {"cpu": 5, "mem": 10}, now - 1800)
    forced = [{"name": "forced-colors", "value": "active"}]
    for how in [{"width": 1440}, {"width": 1440, "dark": True}, {"width": 390, "phone": True}, {"width": 1440, "forced": True}]:
        is_forced = how.pop("forced", False)
        with page_of(url, **how) as page:
            if is_forced:
                page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": forced})

            def check(view):
                run = "const done = arguments[0]; axe.run(document).then(found => done(found.violations.map(v => [v.id, v.help, v.nodes.slice(0, 3).map(n => n.html + ' ' + n.failureSummary)])))"
                page.run(script)
                found = page.browser.execute_async_script(run)
                assert not found, (view, how, is_forced, json.dumps(found, indent=1))

            page.open()
            await_true("the list", lambda: page.run("return isHourKnown"))
            check("the list")
            page.run("choose({ group: 'name' })")
            check("groups")
            page.run("choose({ group: '', filter: 'nobody' })")
            check("no match")
            page.run("choose({ filter: '' }); $('columns').parentElement.open = true")
            check("the choice of columns")
            page.run("$('columns').parentElement.open = false; $('keys').showModal()")
            check("the keys")
            page.run("$('keys').close()")
            page.open("#host=web-1")
            await_true("the charts", lambda: len(page.texts(".card")) > 3)
            plots(page)[0].send_keys(Keys.HOME)
            check("a host")
            page.run("askToForget()")
            check("forgetting")
            page.run("$('forget-dialog').close()")
            page.open("#host=nobody")
            await_equal("a host that is gone", "This host is not known here", lambda: page.text("#host-blank h2"))
            check("an unknown host")


def away(url):
    """While the receiver is away the last picture stays with a notice; when it is back the page goes on.

    Whoever runs this stops the receiver on `stop`, starts it on `start`, and answers with a line.
    """
    def ask_for(what):
        print(what, flush=True)
        assert sys.stdin.readline().strip() == what

    browser = open_browser()
    try:
        page = Page(browser, url)
        post(url, "jarvis", {"cpu": 4.98})
        page.open()
        await_equal("the list", ["jarvis"], page.names)
        assert page.text("#notice") is None or page.text("#notice") == ""
        ask_for("stop")
        await_true("the notice", lambda: (page.text("#notice") or "").startswith("The receiver cannot be reached. What you see is as of "))
        assert page.names() == ["jarvis"] and page.text("#rows .cpu .value") == "5.0"
        assert page.texts("#rows .state span") == ["unknown"]
        age = page.text("#rows .age")
        await_true("an age that goes on", lambda: page.text("#rows .age") != age)
        page.browser.find_element(By.LINK_TEXT, "jarvis").click()
        await_equal("the host", "jarvis", lambda: page.text("#host-title"))
        await_equal("its state", "unknown", lambda: page.text("#host-facts .pill"))
        ask_for("start")
        await_equal("an empty receiver", "This host is not known here", lambda: page.text("#host-blank h2"))
        post(url, "jarvis", {"cpu": 7})
        await_equal("the host", ["7.0 %"], lambda: page.texts(".tile .newest"))
        assert not page.text("#notice") and page.text("#live-text").startswith("Live, ")
        page.find("#back").click()
        await_equal("the list", "7.0", lambda: page.text("#rows .cpu .value"))
        # That it could not connect is all that the console may have said.
        errors = [error for error in console_errors(browser) if "ERR_CONNECTION_" not in error and "ERR_EMPTY_RESPONSE" not in error]
        assert not errors, errors
        assert all(asked.startswith(f"{url}/") for asked in requests(browser))
    finally:
        browser.quit()


# What each would do if it were more than text: leave a mark, or be another address.
ATTACKS = [
    "<img src=x onerror={0}>", "<script>{0}<\\script>", "\"><svg onload={0}>", "' autofocus onfocus={0} '", "javascript:{0}",
    "${{{0}}}", "{{{{constructor.constructor('{0}')()}}}}", "</title><script>{0}</script>", "<iframe srcdoc='<script>{0}</script>'>",
    "]]><script>{0}</script>", "<template><script>{0}</script></template>", "<style>@import'//x.invalid/{0}'</style>",
    "<link rel=stylesheet href=//x.invalid/{0}>", "<base href=//x.invalid/{0}>", "<meta http-equiv=refresh content=0;url=//x.invalid/{0}>",
    "__proto__{0}", "&lt;img onerror={0}&gt;", "%3Cscript%3E{0}", "a&host=b#host={0}", "+ {0} +", "\u202e{0}\u2066", "<details open ontoggle={0}>",
    "\\u003cscript\\u003e{0}", "<marquee onstart={0}>", "<a href=javascript:{0}>x",
]
ODD = ["__proto__", "constructor", "toString", ".", "..", "%2e%2e", "?", "#", "&", " ", "\ufeff", "\u00e9\u0301", "\U0001f98e", "x" * 255,
       "\u202esivraj", "jarvis\u200b", "ja\u00adrvis", "jar\u2066vis", "\u3164jarvis", "\u05d0\u05d1"]

# What the page replaces of the characters of ODD and ATTACKS.
UNSEEN = "\ufeff\u202e\u200b\u00ad\u2066\u3164"


def hostile(url):
    """200 names of hosts and of labels that want to be more than text are text."""
    deeds = [f"window.hacked={n}" for n in range(8)]
    labels = [attack.format(deed) for deed in deeds for attack in ATTACKS][:200]
    hosts = [label.replace("/", "\u2215") for label in labels[:200 - len(ODD)]] + ODD
    assert len(set(hosts)) == 200 and len(set(labels)) == 200
    shown = {name: "".join("\ufffd" if c in UNSEEN else c for c in name) for name in hosts + labels}
    for host, label in zip(hosts, labels):
        post(url, host, {label: 1, "cpu": 2})
    with page_of(url) as page:
        page.open()
        await_true("all hosts", lambda: len(page.names()) == 200)
        assert sorted(page.names()) == sorted(shown[host] for host in hosts)
        elements = "return ['script', 'img', 'iframe', 'base', 'link', 'meta', 'style'].map(n => document.querySelectorAll(n).length)"
        before = page.run(elements)
        page.find("#pause").click()
        for host, label in zip(hosts, labels):
            page.run("document.querySelector('#rows').querySelectorAll('a').forEach(a => { if (a.textContent === arguments[0]) a.click() })", shown[host])
            await_equal("the host", shown[host], lambda: page.run("return document.querySelector('#host-title').textContent"))
            await_equal("the title", " ".join(f"{shown[host]} · lizm".split()), lambda: page.run("return document.title"))
            await_equal(f"the labels of {host}", {"cpu", shown[label]}, lambda: set(page.texts(".legend span")))
        page.open("#filter=" + urllib.parse.quote(labels[0]))
        await_equal("no match or one", [shown[labels[0]]], page.names)
        assert page.run(elements) == before
        assert page.run("return window.hacked === undefined && Object.prototype.hacked === undefined")


class Proxy(http.server.BaseHTTPRequestHandler):
    """A proxy that has the receiver under /lizm/ and nothing elsewhere."""

    protocol_version = "HTTP/1.1"
    receiver = ""

    def do_GET(self):
        if not self.path.startswith("/lizm/"):
            return self.send_error(404)
        try:
            answer = direct(self.receiver + self.path.removeprefix("/lizm"))
        except urllib.error.HTTPError as error:
            answer = error
        body = answer.read()
        self.send_response(answer.status)
        for name in ["Content-Type", "Content-Security-Policy", "Date"]:
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def subpath(url):
    """Behind a proxy under a path of its own the page works as it does elsewhere."""
    Proxy.receiver = url
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/lizm"
    post(url, "jarvis", {"cpu": 4.98})
    with page_of(base, width=390, phone=True, dark=True) as page:
        page.open()
        await_true("the last hour", lambda: page.run("return isHourKnown"))
        page.find("#rows a").click()
        await_equal("the host", ["CPU"], lambda: page.texts(".card h2"))
        assert page.run("return document.documentElement.scrollWidth") == 390, "a phone need not scroll sideways"
        assert page.settle() == [f"{base}/", f"{base}/api/hosts?latest=cpu,mem,disk,{LATEST}&labels=none",
                                 f"{base}/api/hosts?series=cpu,mem,disk&latest={LATEST}", f"{base}/api/hosts?host=jarvis"]


def forget(url, secured, operator):
    """A host is forgotten when that is confirmed, by an operator's token where one is needed."""
    post(url, "jarvis", {"cpu": 1})
    hosts = lambda of: [entry["host"] for entry in get(of, "/api/hosts")["hosts"]]
    with page_of(url) as page:
        page.open("#host=jarvis")
        await_equal("the host", ["CPU"], lambda: page.texts(".card h2"))
        page.find("#forget").click()
        assert page.text("#forget-title") == "Forget jarvis?"
        page.find("#forget-no").click()
        assert hosts(url) == ["jarvis"] and not page.find("#forget-dialog").is_displayed()
        page.find("#forget").click()
        page.find("#forget-yes").click()
        await_equal("the list", "No host has reported yet", lambda: page.text("#list-blank h2"))
        assert hosts(url) == []
    with page_of(secured) as page:
        page.open("#host=jarvis")
        await_equal("the host", ["CPU"], lambda: page.texts(".card h2"))
        page.find("#forget").click()
        assert not page.find("#forget-token").is_displayed()
        page.find("#forget-yes").click()
        await_true("the question for a token", lambda: page.find("#forget-token").is_displayed())
        page.find("#forget-token").send_keys("wrong" + Keys.ENTER)
        await_true("the refusal", lambda: "token: " in page.text("#forget-trouble"))
        page.find("#forget-no").click()
        page.find("#forget").click()
        assert page.find("#forget-token").get_property("value") == "", "a token is kept nowhere"
        page.find("#forget-yes").click()
        await_true("the question for a token", lambda: page.find("#forget-token").is_displayed())
        page.find("#forget-token").send_keys(operator)
        page.find("#forget-yes").click()
        await_equal("the list", "No host has reported yet", lambda: page.text("#list-blank h2"))
        assert hosts(secured) == []
        # Chromium tells of the answers 401 by itself.
        assert all(" 401 " in error for error in console_errors(page.browser))


if __name__ == "__main__":
    scenes = {scene.__name__: scene for scene in [live, states, attention, alerts, ranges, families, columns, many, accessible, away, hostile, subpath, forget]}
    scenes[sys.argv[1]](*sys.argv[2:])
