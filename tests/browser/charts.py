"""Scenes of a host's page: ranges, families, tiles, the cursor."""

import re
import time

from selenium.webdriver.common.keys import Keys

from driving import await_equal, await_true, page_of, plots, post, write


def ranges(url):
    """A host over a day, a week, 90 days and a year: by what is kept, with as many times below as there is room for."""
    now = int(time.time())
    for days in range(400, 0, -1):
        post(url, "jarvis", {"cpu": 10 + days % 7, "top-cpu:old": 90}, now - days * 86400)
    for minute in range(120, -1, -1):
        post(url, "jarvis", {"cpu": minute / 2, "mem": 50 + minute / 10, "top-cpu:rustc": 40, "top-cpu:sh": minute, "top-mem:ld": 3e9}, now - minute * 60)
    with page_of(url, width=1440) as page:
        page.browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "America/New_York"})
        page.open("#host=jarvis")
        await_equal("the families", ["CPU", "Memory and swap"], lambda: page.texts(".card h2"))
        plots(page)[0].send_keys(Keys.HOME)
        assert page.texts(".busiest") == ["Busiest: sh 59 %, rustc 40 %", "Busiest: ld 3 GB"] or page.texts(".busiest")[0].startswith("Busiest: sh "), page.texts(".busiest")
        for shown, by, intervals in [("day", "minute", None), ("week", "hour", None), ("90d", "day", 90), ("year", "day", 366)]:
            page.find(f"#ranges button[data-range='{shown}']").click()
            title = {"90d": "90 days"}.get(shown, shown)
            await_true(shown, lambda: f"last {title} by " in plots(page)[0].get_attribute("aria-label"))
            label = plots(page)[0].get_attribute("aria-label")
            assert f"last {title} by " in label, label
            boxes = page.run("return [...document.querySelector('.plot svg').querySelectorAll('text')].filter(t => t.getAttribute('y') > 165).map(t => t.getBoundingClientRect().toJSON())")
            assert len(boxes) >= 2, (shown, boxes)
            assert all(a["right"] + 4 < b["left"] for a, b in zip(boxes, boxes[1:])), (shown, boxes)
            if intervals:
                count = int(plots(page)[0].get_attribute("aria-valuemax")) + 1
                assert abs(count - intervals) <= 2, (shown, count)
        assert page.browser.current_url.endswith("#host=jarvis&range=year")


def families(url):
    """60 labels are four screens: a chart a family, with its greatest eight; what is constant is text; tiles say the most
    asked numbers; and one cursor, by touch too, is on all charts."""
    now, parts = int(time.time()), ["cpu-user", "cpu-system", "cpu-iowait", "cpu-steal"]
    lines = []
    for ago in range(3000, -1, -60):
        n = ago // 60
        values = {"cpu": 20 + n % 7, "mem": 50 + n % 3, "swap": n % 2, "load1": 1 + n % 4, "temp:a": 40 + n % 5, "uptime": 9e5 - ago}
        values |= {part: 2 + n % 3 + place for place, part in enumerate(parts)}
        values |= {f"disk:/d{d:02}": 10 + d + n % 2 for d in range(12)} | {f"{way}:eth0": 1e6 * (1 + n % 3) for way in ["net-in", "net-out"]}
        values |= {"disk-read": 1e5 + n, "disk-write": 2e5 + n} | {f"jobs\\,queue\\=q{q}": q + n % 2 for q in range(12)}
        values |= {f"limit{c}": c for c in range(10)} | {f"own{c}": c + n % 3 for c in range(12)}
        lines.append("perf,host=web-1 " + ",".join(f"{label}={value}" for label, value in values.items()) + f" {now - ago}")
    # It has reported its load alone ten minutes ago; and another host reports every five minutes.
    lines += [f"perf,host=old load1=3 {now - 600}", f"perf,host=old cpu=5 {now}"]
    lines += [f"perf,host=slow cpu={ago // 300} {now - ago}" for ago in range(3000, -1, -300)]
    lines += ['lizm_tags,host=web-1 role="front"', f"perf,host=web-1 mem=50 {now + 30}"]
    write(url, lines)
    with page_of(url, width=1440, height=900) as page:
        page.open("#host=web-1")
        await_true("the charts", lambda: page.texts(".card"))
        assert page.run("return labelsOf(told.summaries).length") == 60
        assert page.texts(".card h2")[:8] == ["CPU", "CPU by kind", "Memory and swap", "File systems", "Network in and out eth0",
                                              "Disk reads and writes", "Load", "Temperature"], page.texts(".card h2")
        assert page.run("return document.documentElement.scrollHeight") <= 4 * 900
        assert page.texts("#constants li") == [f"limit{c} {c} all the time" for c in range(10)]
        facts = page.texts("#host-facts span")
        assert {"up", "60 labels", "up for 10 d 10 h", "role=front"} < set(facts) and any(fact.startswith("collecting since ") for fact in facts), facts
        assert any(fact.startswith("clock ") and fact.endswith(" s ahead") for fact in facts), facts
        assert page.find("#host-facts a").get_attribute("href") == f"{url}/api/perf/web-1"
        numbers = ["0.0000027", "0.25", "1500", "2.5e9"]
        assert page.run("return arguments[0].map(n => numberOf('jobs', Number(n)))", numbers) == ["2.7e-6", "0.25", "1.5 k", "2.5 G"]
        assert page.texts(".tile dt") == ["CPU", "Memory", "Load"], page.texts(".tile dt")
        assert page.text(".tile .newest") == "20.0 %" and page.text(".tile .rest").startswith("average 22.9 %\npeak 26.0 % at "), page.texts(".tile dd")
        card = lambda title: page.browser.find_elements("xpath", f"//article[.//h2='{title}']")[0]
        count = lambda title, part: len(card(title).find_elements("css selector", part))
        for title in ["File systems", "jobs"]:
            assert count(title, ".legend li") == 8 and card(title).find_element("css selector", ".more").text == "and 4 more"
            card(title).find_element("css selector", ".more").click()
            assert count(title, ".legend li") == 12 and card(title).find_element("css selector", ".more").text == "Show fewer"
        assert count("CPU by kind", ".stack") == 4 and count("CPU", ".band") == 1
        times = lambda: set(page.texts(".card time"))
        box = plots(page)[0].rect
        touch = lambda kind, points: page.browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.run("scrollTo(0, 0)")
        touch("touchStart", [{"x": box["x"] + box["width"] / 2, "y": box["y"] + 60}])
        touch("touchEnd", [])
        await_equal("one time above all charts, which stays", 1, lambda: len(times() - {""}))
        assert len(page.texts(".card time")) == len(page.texts(".card"))

        # A percentage is drawn to 100, and a load from 0, where it is not fitted.
        ticks = lambda title: page.run("return [...arguments[0].querySelectorAll('svg text')].map(text => text.textContent)", card(title))
        for title, tick in [("CPU", "100 %"), ("Load", "0")]:
            button = card(title).find_element("css selector", ".fit")
            page.run("arguments[0].scrollIntoView()", card(title))
            await_true(f"the scale of {title}", lambda: tick in ticks(title))
            button.click()
            assert tick not in ticks(title) and button.get_attribute("aria-pressed") == "true", ticks(title)
        # A minute may end before the page asks again: each look comes with a sample.
        await_equal("the running interval, which is hollow", 1, lambda: post(url, "web-1", {"cpu": 20}) or count("CPU", ".running"))
        for width in [1280, 1024, 390, 320]:
            page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700})
            page.run("scrollTo(0, 0)")
            at_foot = """const plot = document.querySelector('.plot'), foot = plot.clientHeight - 12;
              return [...plot.querySelectorAll('text')].filter(t => t.getAttribute('y') > foot).map(t => t.getBoundingClientRect().toJSON())"""
            await_true(f"a page of {width}", lambda: page.run("return document.documentElement.scrollWidth <= arguments[0]", width))
            await_true("times below", lambda: len(page.run(at_foot)) >= 2)
            boxes = page.run(at_foot)
            assert all(a["right"] + 4 < b["left"] for a, b in zip(boxes, boxes[1:])), (width, boxes)
        page.open("#host=slow")
        await_true("a line", lambda: page.texts(".card") and count("CPU", ".line"))
        assert card("CPU").find_element("css selector", ".line").get_attribute("d").count("M") == 1, "five minutes are no gap"
        page.open("#host=old")
        await_equal("what is old", ["5.0 %", "3.00"], lambda: page.texts(".tile .newest"))
        # From the end of its minute on, and the scene takes a while.
        assert re.fullmatch("as of (9|1[0-4]) min ago", page.texts(".tile .rest")[1]), page.texts(".tile .rest")
        page.browser.execute_cdp_cmd("Network.enable", {})
        slow = {"offline": False, "latency": 3000, "downloadThroughput": -1, "uploadThroughput": -1}
        page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
        page.browser.get(f"{url}/#host=slow")
        assert page.find("#skeleton").is_displayed(), "what is loaded has a skeleton"
