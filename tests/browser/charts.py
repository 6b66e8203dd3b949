"""Scenes of a host's page: ranges, families, tiles, the cursor."""

import time

from selenium.webdriver.common.keys import Keys

from driving import await_equal, await_true, page_of, plots, post


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
