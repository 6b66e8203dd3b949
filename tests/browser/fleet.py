"""Scenes of the list of hosts: columns, groups, keys, and many hosts."""

import time

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from driving import await_equal, await_true, page_of, post, write


def columns(url):
    """Columns are chosen and are in the address; hosts are grouped, filtered and sorted by any of them; keys do it all."""
    for host, load in [("web-1", 1), ("web-2", 2.5), ("db-1", 0.5), ("db-2", 9)]:
        post(url, host, {"cpu": 10 * load, "mem": 50, "disk": 20, "disk:/var": 20 + 8 * load, "load1": load, "load-per-core": load / 10, "temp:a": 40, "temp:b": 45})
    key = lambda keys: page.browser.switch_to.active_element.send_keys(keys)
    with page_of(url, width=1440) as page:
        page.open("#columns=disk,load,temp&sort=load")
        await_equal("the columns", ["State", "Host", "Disk", "Load", "Temperature", "Last report"], lambda: page.texts("thead button"))
        await_equal("by load", ["db-2", "web-2", "web-1", "db-1"], page.names)
        assert page.texts("#rows .disk .value") == ["92.0", "40.0", "28.0", "24.0"], "the fullest file system counts"
        assert page.texts("#rows .temp .value") == ["45.0 °C"] * 4
        assert page.run("return [...document.querySelectorAll('#rows .load meter')].map(meter => meter.value)") == [90, 25, 10, 5]
        assert page.texts("#attention li") == ["db-2 disk /var 92.0 %"]
        page.find(".choices summary").click()
        page.find("#columns input[value=cpu]").click()
        await_equal("one more", ["State", "Host", "CPU", "Disk", "Load", "Temperature", "Last report"], lambda: page.texts("thead button"))
        assert page.browser.current_url.endswith("#sort=load&columns=cpu%2Cdisk%2Cload%2Ctemp")
        await_true("its values", lambda: page.texts("#rows .cpu .value")[0] == "90.0")
        page.run("choose({ filter: 'load>2' })")
        await_equal("the filter", ["db-2", "web-2"], page.names)
        page.run("choose({ filter: '', sort: 'problems' })")

        # The list is one tab stop, in which keys move.
        page.run("$('columns').parentElement.open = false; document.activeElement.blur()")
        assert page.run("return document.querySelectorAll('#rows [tabindex=\"0\"]').length") == 1
        key("j")
        focused = lambda: page.run("return document.activeElement.textContent")
        assert focused() == "db-2", focused()
        key("jj")
        assert focused() == "web-1", focused()
        key("k")
        assert focused() == "db-1", focused()
        key("g")
        await_equal("groups", ["db", "web"], lambda: page.texts("#rows .group button"))
        assert page.texts("#rows .facts") == ["2 hosts · up · 1 problem · CPU 47.5 % · Disk 58.0 %", "2 hosts · up · CPU 17.5 % · Disk 34.0 %"]
        page.find("#rows .group button").click()
        await_equal("one is closed", ["web-1", "web-2"], page.names)
        page.find("#rows .group button").click()
        key("g")
        await_equal("no groups", ["db-2", "db-1", "web-1", "web-2"], page.names)
        key("!")
        await_equal("problems only", ["db-2"], page.names)
        key("!")
        key("s")
        await_equal("by name", ["db-1", "db-2", "web-1", "web-2"], page.names)
        key("S")
        await_equal("the other way round", ["web-2", "web-1", "db-2", "db-1"], page.names)
        key("/")
        key("db")
        await_equal("a filter", ["db-2", "db-1"], page.names)
        key(Keys.ESCAPE)
        await_true("no filter", lambda: len(page.names()) == 4)
        key("?")
        assert page.find("#keys").is_displayed()
        key(Keys.ESCAPE)
        key("p")
        await_true("the pause", lambda: page.text("#live-text").startswith("Paused"))
        key("p")
        key("j" + Keys.ENTER)
        await_true("a host", lambda: page.texts(".card"))
        key("r")
        await_true("the day", lambda: page.browser.current_url.endswith("&range=day"))
        key(Keys.ESCAPE)
        await_true("the list", page.names)
        page.run("$('skip').focus()")
        key(Keys.ENTER)
        assert page.run("return document.activeElement.closest('#rows') !== null"), "the skip link leads into the list"

        # The order of groups rests too, until focus and pointer leave the list.
        page.run("choose({ group: 'name', sort: 'problems', isReversed: false }); document.querySelectorAll('#rows .group button')[1].focus()")
        assert page.texts("#rows .group button") == ["db", "web"]
        post(url, "db-2", {"disk:/var": 1})
        post(url, "web-1", {"disk": 999})
        await_true("what is wrong now", lambda: len(page.texts("#attention li")) == 1 and page.text("#attention li").startswith("web-1 disk "))
        assert page.texts("#rows .group button") == ["db", "web"] and focused() == "web"
        page.run("document.activeElement.blur()")
        page.browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 5, "y": 5})
        await_equal("another order", ["web", "db"], lambda: page.texts("#rows .group button"))


def many(url):
    """Of 400 hosts those in sight show what is known of them at once, wherever one scrolls, sorts and filters; the others
    do soon, for who reads or searches the page without scrolling, but for their lines."""
    def report(at, turn):
        write(url, [f"perf,host=h{host:03} cpu={host * turn % 97},mem={turn} {at}" for host in range(400)])

    # Hosts in sight, or all, whose name, link or number is not shown, or the line of their minutes where they are in sight.
    stale = """return slots.filter(({ row, node, link, cells: { cpu } }) => {
      const { top, bottom } = node.getBoundingClientRect();
      const isSeen = node.isConnected && bottom > 0 && top < innerHeight;
      if (!row || !isSeen && !arguments[0]) return false;
      return link.textContent !== row.host || link.getAttribute("href") !== row.href || cpu.value.textContent !== row.values.cpu.toFixed(1)
        || isSeen && cpu.line.getAttribute("d") !== sparkPaths(row.minutes.cpu, 100).line;
    }).map(({ row }) => row.host)"""
    epoch = int(time.time())
    report(epoch - 60, 1)
    with page_of(url) as page:
        page.open()
        await_true("the last hour", lambda: page.run("return isHourKnown"))
        page.run("pause()")
        page.refresh()
        assert page.run("return slots.some(slot => slot.block.isOutOfSight && slot.cells.cpu.drawn.length === 0)")
        for turn, change in enumerate(["scrollTo(0, 5000)", "choose({ sort: 'cpu' })", "scrollTo(0, 9000)", "choose({ filter: 'h39' })", "choose({ filter: '' })"]):
            await_equal("the rows in sight", [], lambda: page.run(stale, False))
            report(epoch, 7 + turn)
            page.refresh()
            assert page.run(stale, False) == [], "what is in sight waits for nothing"
            page.run(change)
        await_equal("the rows in sight", [], lambda: page.run(stale, False))
        await_equal("all rows", [], lambda: page.run(stale, True))
        order = page.run("return slots.map(slot => slot.row.values.cpu)")
        assert len(order) == 400 and order == sorted(order, reverse=True) and page.names() == page.run("return slots.map(slot => slot.row.host)")

        # The focus goes with its host where another order is asked for, and the lines stay in their places.
        page.run("window.nodes = slots.map(slot => slot.node); rows.get('h200').slot.link.focus(); choose({ sort: 'name' })")
        await_equal("the focus", "h200", lambda: page.run("return document.activeElement.textContent"))
        assert page.run("return nodes.every((node, i) => node.isConnected && slots[i].node === node) && slots[200].row.host") == "h200"
        assert page.run("return [...document.querySelectorAll('#rows [tabindex=\"0\"]')].map(n => n.textContent)") == ["h200"]
        page.run("document.activeElement.blur(); choose({ group: 'name' })")
        await_equal("all in a group", [], lambda: page.run(stale, True))
        page.run("document.querySelector('#rows .group button').click()")
        await_equal("none in a group that is closed", [], page.names)
