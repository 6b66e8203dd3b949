"""Writes layout.ld: what a monitor runs, by name, for the linker to put side by side in the static binary.

    layout.py LIZM MAP > layout.ld

LIZM is a static binary with its symbols, MAP what its linker wrote of it. `make layout` builds both. A monitor posts to
a receiver for some seconds under valgrind, once by HTTP and once by UDP; each function that it ran becomes a pattern of
its section's name. The patterns hold for other builds: names have the mangling v0, without what differs from one
compiler to another, and are cut where they would have only more types to say.
"""

import bisect
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 20
# Longer names than this differ in the types of a generic function alone.
NAME_MOST = 80

# What is put behind the functions that ran: the rest of what a monitor consists of. A function that is new since the
# list was made then lies near the others.
MODULES = [
    "*_4lizm3run*", "*_4lizm4main*", "*4lizm7monitor*", "*4lizm5agent*", "*4lizm5probe*", "*4lizm3url*", "*_4ureq*",
    "*_10ureq_proto*",
]

HEAD = """\
/* Puts what a monitor runs side by side at the start of the static binary. The kernel maps the 64 KiB around each page
   of a program that is touched, and all of that counts as resident memory: spread over the whole program it would be
   half as much again. For the static binaries, which are built with `-C link-arg=-Tlayout.ld -C symbol-mangling-version=v0`.
   Made by `make layout`. A pattern that matches nothing, as after a change of the code, costs memory and nothing else. */
"""


def functions_of(lizm, scheme, port):
    """The mangled names of what a monitor runs that publishes by this scheme."""
    with tempfile.NamedTemporaryFile() as output:
        command = ["valgrind", "--tool=callgrind", "--demangle=no", f"--callgrind-out-file={output.name}", lizm]
        command += ["monitor", "--host", "layout", "--publish", f"{scheme}://127.0.0.1:{port}"]
        subprocess.run(["timeout", "-s", "TERM", str(SECONDS), *command], check=False, capture_output=True)
        names = re.findall(r"^c?fn=\(\d+\) (\S+)", Path(output.name).read_text(), re.MULTILINE)
    return {re.sub(r"'\d+$", "", name) for name in names}


def sections_of(map_path):
    """Each input section of code: its address, its size, its name, and the archive and member that it is from."""
    text = Path(map_path).read_text(errors="replace")
    pattern = r"^ (\.text\S*)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+) (.*)$"
    for name, start, size, file in re.findall(pattern, text, re.MULTILINE):
        if int(start, 16) and int(size, 16):
            member = re.search(r"([^/]+)\.a\(([^)]+)\)$", file)
            yield int(start, 16), int(size, 16), name, member.groups() if member else None


def addresses_of(lizm):
    """The addresses of the symbols of each name: the static functions of C may share one."""
    addresses = {}
    symbols = subprocess.run(["nm", "--defined-only", lizm], capture_output=True, text=True, check=True).stdout
    for address, _kind, name in (line.split(" ", 2) for line in symbols.splitlines()):
        addresses.setdefault(name, []).append(int(address, 16))
    return addresses


def pattern_of(name, member):
    """What a linker finds this section by, in this build and in others."""
    if member and member[0] == "libc":
        # Of the same function for other processors a machine runs another one.
        return f"*libc.a:{re.sub(r'-(avx|evex|sse)[^.]*', '-*', member[1])}(.text .text.*)"
    if member:
        return None
    name = re.sub(r"Cs[0-9A-Za-z]+_(?=\d)", "Cs*_", name)
    return f"*({name[:NAME_MOST]}*)" if len(name) > NAME_MOST else f"*({re.sub(r'[.][0-9]+$', '*', name)})"


def main(lizm, map_path):
    with subprocess.Popen(
        [lizm, "receiver", "--bind", "127.0.0.1", "--port", "0", "--udp", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    ) as receiver:
        ports = {}
        while len(ports) < 2:
            scheme, port = re.search(r"(http|udp)://127\.0\.0\.1:(\d+)", receiver.stdout.readline()).groups()
            ports[scheme] = port
        names = set().union(*(functions_of(lizm, scheme, port) for scheme, port in ports.items()))
        receiver.terminate()
    sections = sorted(sections_of(map_path))
    starts = [section[0] for section in sections]
    addresses = addresses_of(lizm)
    patterns = set()
    for address in (address for name in names for address in addresses.get(name, [])):
        start, size, section, member = sections[bisect.bisect(starts, address) - 1]
        if start <= address < start + size:
            patterns.add(pattern_of(section, member))
    lines = sorted(patterns - {None})
    print(f"{HEAD}SECTIONS\n{{\n  .text.monitor : {{")
    print("\n".join(f"    {line}" for line in lines))
    print(f"    *({' '.join('.text.' + module for module in MODULES)})\n  }}\n}}\nINSERT BEFORE .text;")


main(*sys.argv[1:])
