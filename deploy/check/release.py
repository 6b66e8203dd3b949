#!/usr/bin/env python3
"""Finds what keeps a version from being released, and writes the checksum of its binary beside it.

    release.py BINARY
"""

import hashlib
import json
import pathlib
import re
import subprocess
import sys

PROJECT = pathlib.Path(__file__).resolve().parents[2]
# Licences that ask for no more than their text and names being kept; of a choice one is enough.
LICENCES = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "CDLA-Permissive-2.0", "ISC", "MIT", "MIT-0", "Unicode-3.0", "Unlicense", "Zlib",
}


def is_free(expression):
    """Of an SPDX expression: whether some choice in it needs nothing but LICENCES."""
    # Words become true or false; `or`, `and` and parentheses are Python's as they are SPDX's.
    expression = expression.replace("/", " OR ")
    words = re.findall(r"\(|\)|\bOR\b|\bAND\b|[A-Za-z0-9.+-]+(?: WITH [A-Za-z0-9.-]+)?", expression)
    spoken = {"(": "(", ")": ")", "OR": "or", "AND": "and"}
    return eval(" ".join(spoken.get(word, str(word in LICENCES)) for word in words))


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], cwd=PROJECT, check=True, text=True, capture_output=True).stdout


def main():
    binary = pathlib.Path(sys.argv[1])
    problems = []
    # --locked fails where Cargo.lock does not fit Cargo.toml.
    metadata = json.loads(cargo("metadata", "--format-version", "1", "--locked", "--all-features"))
    packages = {package["id"]: package for package in metadata["packages"]}
    version = packages[metadata["resolve"]["root"]]["version"]

    image = re.search(r"^ARG VERSION=(.*)$", (PROJECT / "Dockerfile").read_text(), re.M)[1]
    says = subprocess.run([binary, "--version"], check=True, text=True, capture_output=True).stdout.split()[1]
    for where, found in (("Dockerfile, ARG VERSION", image), ("lizm --version", says)):
        if found != version:
            problems.append(f"{where}: {found}, and Cargo.toml has {version}")
    if not re.search(rf"^## {re.escape(version)}( |$)", (PROJECT / "CHANGELOG.md").read_text(), re.M):
        problems.append(f"CHANGELOG.md: has no section '## {version}'")

    for package in packages.values():
        if not is_free(package["license"] or "none"):
            problems.append(f"{package['name']} {package['version']}: its licence is {package['license']}")
    print(f"licences of {len(packages)} packages looked at")

    sums = binary.with_name("SHA256SUMS")
    sums.write_text(f"{hashlib.sha256(binary.read_bytes()).hexdigest()}  {binary.name}\n")
    print(f"{sums}: {sums.read_text().strip()}")
    for problem in problems:
        print(f"release: {problem}", file=sys.stderr)
    verdict = "not to be released yet" if problems else "nothing that can be checked here is in its way"
    print(f"version {version}: {verdict}")
    sys.exit(1 if problems else 0)


main()
