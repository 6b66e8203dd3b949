"""The monitor: CPU a tick and memory."""

import contextlib
import time

import servers
from figures import Row
from servers import cpu_sec, intake, resident_mb, running

MONITOR_SEC = 60


def monitor_rows():
    """A monitor that publishes by HTTP and one that does by UDP, in the same seconds."""
    with intake(servers.LIZM, "--udp", "127.0.0.1:0") as (_, *urls), contextlib.ExitStack() as stack:
        command = [servers.LIZM, "monitor", "--host", "bench", "--publish"]
        pids = [stack.enter_context(running([*command, url])).pid for url in urls]
        time.sleep(3)
        before = [cpu_sec(pid) for pid in pids]
        time.sleep(MONITOR_SEC)
        http, udp = ((cpu_sec(pid) - cpu) / MONITOR_SEC * 1000 for pid, cpu in zip(pids, before))
        memory = resident_mb(pids[0])
    return [
        Row("monitor, CPU a tick, publishing over loopback", [http], "ms", "≤ 1 ms", lambda value: value <= 1),
        Row("the same to `udp://`, in the same seconds", [udp], "ms", "≤ 1 ms", lambda value: value <= 1),
        Row("ratio, `udp://` to `http://`", [udp / http], "×", "≤ 0.5", lambda ratio: ratio <= 0.5),
        Row("monitor, resident memory", [memory], "MB", "≤ 4 MB", lambda value: value <= 4),
    ]
