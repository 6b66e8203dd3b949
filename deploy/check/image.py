#!/usr/bin/env python3
"""Builds the final stage of the Dockerfile from a static binary, and runs it as a container runtime would.

    image.py BINARY

As root, with buildah, iproute2 and util-linux: no engine is needed, nor any image. The root is empty but for what is in
the image and what every runtime puts there, /etc/hosts and the host's /proc where it is mounted; the process is PID 1
of a PID namespace, and a user without a name.
"""

import filecmp
import json
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

PROJECT = pathlib.Path(__file__).resolve().parents[2]
LINES_MAX = 100  # of a log, in which what is waited for must be


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, text=True, capture_output=True, **options).stdout


def build(binary, work):
    """The image's configuration, and its root."""
    context = work / "context"
    (context / "image/var/lib/lizm").mkdir(parents=True)
    shutil.copy(binary, context / "image/lizm")
    stage = (PROJECT / "Dockerfile").read_text().split("\nFROM scratch\n")[1]
    assert "COPY --from=build --chown=65532:65532 /image/ /\n" in stage
    stage = stage.replace("--from=build ", "").replace(" /image/ ", " image/ ")
    (context / "Dockerfile").write_text("FROM scratch\n" + stage)
    buildah = ["buildah", "--storage-driver", "vfs", "--root", work / "storage", "--runroot", work / "run"]
    # Docker's format, since OCI's has no place for a health check.
    run(*buildah, "bud", "--isolation", "chroot", "--format", "docker", "--tag", "lizm", context)
    config = json.loads(run(*buildah, "inspect", "--type", "image", "lizm"))["Docker"]["config"]
    container = run(*buildah, "from", "lizm").strip()
    root = work / "root"
    mounted = run(*buildah, "mount", container).strip()
    run("cp", "--archive", mounted, root)  # with owners, which the volume takes its own from
    run(*buildah, "umount", container)
    return config, root


class Container:
    """A process that runs as PID 1 in `root`, with a log; by `near` in the network of another one."""

    def __init__(self, root, user, command, near=None):
        self.command = command
        mount = f"mount --bind -o ro /proc {root}/host/proc"
        enter = f"exec chroot --userspec={user} {root} {shlex.join(command)}"
        if near is None:
            network, shell = ["unshare", "--net"], f"ip link set lo up && {mount} && {enter}"
        else:
            network, shell = ["nsenter", f"--net=/proc/{near.pid()}/ns/net"], f"{mount} && {enter}"
        self.process = subprocess.Popen(
            [*network, "unshare", "--mount", "--pid", "--fork", "sh", "-c", shell],
            stdout=subprocess.PIPE, text=True, env={},
        )

    def pid(self):
        """The process's number outside of its namespace."""
        return int(run("pgrep", "--parent", self.process.pid))

    def await_line(self, part):
        for _ in range(LINES_MAX):
            line = self.process.stdout.readline()
            if part in line or not line:
                break
        assert part in line, f"{self.command}: its log has no {part!r}"
        return line.strip()

    def stop(self):
        """Ends it as a runtime does, and gives its exit code."""
        inner = pathlib.Path(f"/proc/{self.pid()}/status").read_text()
        assert re.search(r"^NSpid:\s+\d+\s+1$", inner, re.M), "it is PID 1"
        assert re.search(r"^Uid:\s+65532\s", inner, re.M), "it is not root"
        subprocess.run(["kill", "-TERM", str(self.pid())], check=True)
        self.process.stdout.read()
        return self.process.wait(timeout=30)


def check(binary, work):
    config, root = build(binary, work)
    files = [path.relative_to(root) for path in root.rglob("*") if not path.is_dir()]
    assert files == [pathlib.Path("lizm")] and filecmp.cmp(root / "lizm", binary, shallow=False), files
    assert config["User"] == "65532:65532" and list(config["Volumes"]) == ["/var/lib/lizm"], config
    assert config["Entrypoint"] == ["/lizm"] and config["Labels"]["org.opencontainers.image.version"], config
    print(f"image: one file, the binary of {binary.stat().st_size} bytes; user {config['User']}")

    (root / "etc").mkdir()
    (root / "etc/hosts").write_text("127.0.0.1 localhost receiver.example\n")
    (root / "host/proc").mkdir(parents=True)
    receiver = Container(root, config["User"], config["Entrypoint"] + config["Cmd"])
    monitor = None
    try:
        print("image:", receiver.await_line("Receiver is listening on http://0.0.0.0:8080"))
        print("image:", receiver.await_line("Store is"))
        publish = ["monitor", "--host", "jarvis", "--procfs", "/host/proc", "--publish", "http://receiver.example:8080"]
        monitor = Container(root, config["User"], config["Entrypoint"] + publish, near=receiver)
        print("image:", monitor.await_line("Publish was successful to http://receiver.example:8080"))
        assert config["Healthcheck"]["Test"][0] == "CMD"
        for question in (config["Healthcheck"]["Test"][1:], [*config["Healthcheck"]["Test"][1:], "--host", "jarvis"]):
            enter = ["nsenter", f"--net=/proc/{receiver.pid()}/ns/net", "chroot", f"--userspec={config['User']}", root]
            run(*enter, *question)
            print("image: exit code 0 of", shlex.join(question))
        codes = monitor.stop(), receiver.stop()
        assert codes == (0, 0), codes
        print("image: SIGTERM to PID 1 ended the monitor and the receiver with 0")
    finally:
        for container in filter(None, (monitor, receiver)):
            if container.process.poll() is None:
                subprocess.run(["kill", "-KILL", str(container.pid())], check=False)
                container.process.wait()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="lizm-image-") as work:
        # The user of the image has to get to its root.
        pathlib.Path(work).chmod(0o755)
        check(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(work))


main()
