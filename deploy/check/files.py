#!/usr/bin/env python3
"""Checks what is in deploy/ by the programs that read it, as far as they can be had without an account or an engine.

    files.py BINARY ROOT

As root. ROOT is a directory with a Debian made by debootstrap, in which a machine of the fleet is set up from its
rendered cloud-init: `aws` and `systemctl` are stand-ins there, `curl` gives the binary; the rest of it is Debian's.
"""

import base64
import contextlib
import hashlib
import importlib.metadata
import os
import pathlib
import re
import shutil
import string
import subprocess
import sys
import tempfile

import hcl2
import yaml

PROJECT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy"
EXPOSURE_MAX = 2.5
NEAR = ("--bind", "127.0.0.1", "--port", "0")


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def check_compose():
    run("docker-compose", "--file", PROJECT / "compose.yaml", "config", "--quiet", cwd=PROJECT)
    print("compose.yaml: docker-compose config")


def check_nginx(work):
    """With names that can be looked up here, and a certificate made as the README says."""
    run("sh", DEPLOY / "make-certs.sh", work / "certs", "localhost")
    for file in DEPLOY.glob("nginx*.conf"):
        text = re.sub(r"server (intake|summaries)-\d:", "server 127.0.0.1:", file.read_text())
        text = text.replace("/etc/nginx/lizm.pem", f"{work}/certs/receiver.pem")
        text = text.replace("/etc/nginx/lizm.key", f"{work}/certs/receiver.key")
        (work / file.name).write_text(text)
        run("nginx", "-t", "-c", work / file.name, "-g", f"pid {work}/nginx.pid;")
        print(f"{file.name}: nginx -t")


def check_kubernetes(binary, work):
    """By the published schemas; and the binary takes the arguments and variables that the manifests give it."""
    containers = {}
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        run(pathlib.Path(sys.executable).with_name("kubernetes-validate"), "--strict", "--quiet", file)
        print(f"kubernetes/{file.name}: kubernetes-validate {importlib.metadata.version('kubernetes-validate')}")
        for manifest in yaml.safe_load_all(file.read_text()):
            for container in manifest.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
                containers[container["name"]] = container
    # The node keeps its own token, and goes on by it when the one to join with is not there any more.
    key, state = work / "token.key", work / "state"
    secrets = {"lizm-key": str(key)}
    with started(binary, containers["receiver"], secrets, {"redis://redis": work / "redis-away"}, *NEAR) as lines:
        url = awaited(lines, r"listening on (http://\S+)")
        token = run(binary, "token", "--join", "--token-key", key).strip()
        instead = {"/host/proc": "/proc", "/host/root": "/", "/var/lib/lizm": state, "http://lizm": url, "changes": "each"}
        for secret, said in (({"lizm-join": token}, r"(has joined)"), ({}, r"(Publish was successful)")):
            with started(binary, containers["monitor"], secret, instead) as lines:
                awaited(lines, said)
    print("kubernetes: a monitor of the DaemonSet joined a receiver of the Deployment, and went on by its own token")


def awaited(lines, pattern):
    """What the pattern's group has in the first line that matches."""
    found = next(filter(None, (re.search(pattern, line) for line in lines)), None)
    assert found, f"the log ended without {pattern}"
    return found[1]


@contextlib.contextmanager
def started(binary, container, secrets, instead, *more):
    """The lines of the log of a container's process, with other arguments in the place of some."""
    environment = dict(os.environ)
    for variable in container["env"]:
        secret = variable.get("valueFrom", {}).get("secretKeyRef")
        value = secrets.get(secret["name"]) if secret else variable.get("value", "node-1")
        if value is not None:
            environment[variable["name"]] = value
    arguments = [str(instead.get(argument, argument)) for argument in container["args"]]
    with subprocess.Popen([binary, *arguments, *more], env=environment, text=True, stdout=subprocess.PIPE) as process:
        try:
            yield iter(process.stdout.readline, "")
        finally:
            process.terminate()


def check_units(binary, work):
    for unit in (DEPLOY / "systemd").glob("*.service"):
        found = run("systemd-analyze", "security", "--offline=true", unit)
        exposure = float(re.search(r"exposure level .*: ([0-9.]+)", found)[1])
        assert exposure < EXPOSURE_MAX, f"{unit.name}: {exposure}"
        # With its drop-ins; the binary has to be where it says.
        verified = work / "units" / unit.name
        verified.parent.mkdir(exist_ok=True)
        verified.write_text(unit.read_text().replace("/usr/local/bin/lizm", str(binary)))
        shutil.copytree(unit.with_name(unit.name + ".d"), verified.with_name(unit.name + ".d"))
        said = run("systemd-analyze", "verify", "--man=no", verified)
        assert not said.strip(), said
        print(f"{unit.name}: systemd-analyze verify, exposure {exposure}")


def check_terraform():
    variables = {}
    for file in sorted((DEPLOY / "terraform").rglob("*.tf")):
        parsed = hcl2.loads(file.read_text())
        if file.parent.name == "terraform":
            for variable in parsed.get("variable", []):
                variables.update(variable)
    for name, variable in variables.items():
        assert "type" in variable and "description" in variable, f"variable {name} has no type or no description"
    text = "".join(file.read_text() for file in (DEPLOY / "terraform").glob("*.tf"))
    used = set(re.findall(r"\bvar\.([a-z_]+)", text))
    assert used == {name.strip('"') for name in variables}, used.symmetric_difference(variables)
    print(f"terraform: parsed, {len(variables)} variables, each with type and description, and used")
    if shutil.which("terraform"):
        run("terraform", "fmt", "-check", "-recursive", DEPLOY / "terraform")
        print("terraform: fmt -check; not validated against the provider, nor planned")


def rendered(values):
    """The user data of an intake, as templatefile renders it; the templates have nothing but ${name}."""
    folder = DEPLOY / "terraform/cloud-init"

    def encoded(data):
        return base64.b64encode(data).decode()

    settings = string.Template((folder / "settings.tftpl").read_text()).substitute(values)
    systemd = DEPLOY / "systemd"
    return string.Template((folder / "user-data.yaml.tftpl").read_text()).substitute(
        install=encoded((folder / "install.sh").read_bytes()),
        unit=encoded((systemd / "lizm-receiver.service").read_bytes()),
        conf=encoded((systemd / "lizm-receiver.service.d/trust.conf").read_bytes()),
        options=encoded(b"LIZM_SERVE=intake\n"),
        settings=encoded(settings.encode()),
    )


STAND_INS = {
    "aws": 'echo "$AWS_DEFAULT_REGION $*" >>/calls; echo "text of $4"',
    "systemctl": 'echo "systemctl $*" >>/calls',
    "curl": 'while [ "$1" != --output ]; do shift; done; echo "curl $3" >>/calls; cp /given "$2"',
}


def check_cloud_init(binary, root, work):
    files = {"token.key": "token_key", "receiver.pem": "certificate", "receiver.key": "key", "ca.pem": "authorities"}
    arns = {secret: f"arn:aws:secretsmanager:eu-central-1:1:secret:{secret}" for secret in files.values()}
    url = "https://example.org/lizm?version=1&part=2"
    digest = hashlib.sha256(binary.read_bytes()).hexdigest()
    machine = work / "machine"
    shutil.copytree(root, machine, symlinks=True, ignore=shutil.ignore_patterns("dev", "proc", "sys"))
    (machine / "dev").mkdir(exist_ok=True)
    run("mknod", "-m", "666", machine / "dev/null", "c", "1", "3")
    for name, script in STAND_INS.items():
        stand_in = machine / "usr/local/bin" / name
        stand_in.write_text(f"#!/bin/sh\n{script}\n")
        stand_in.chmod(0o755)
    shutil.copy(binary, machine / "given")
    user_data = yaml.safe_load(rendered({"url": url, "sha256": digest, "region": "eu-central-1", **arns}))
    for file in user_data["write_files"]:
        path = machine / file["path"].lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(file["content"]))
        path.chmod(int(file["permissions"], 8))
    for _ in range(2):  # it can be run again
        for command in user_data["runcmd"]:
            run("chroot", machine, *command, env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
    assert (machine / "usr/local/bin/lizm").read_bytes() == binary.read_bytes()
    assert run("chroot", machine, "/usr/local/bin/lizm", "--version").startswith("lizm ")
    for file, secret in files.items():
        path = machine / "etc/lizm" / file
        assert path.read_text() == f"text of {arns[secret]}\n" and path.stat().st_mode & 0o777 == 0o600, path
    calls = (machine / "calls").read_text().splitlines()
    assert calls[0] == f"curl {url}" and calls[-1] == "systemctl restart lizm-receiver.service", calls
    said = run("chroot", machine, "systemd-analyze", "verify", "--man=no", "/etc/systemd/system/lizm-receiver.service")
    assert "lizm" not in said, said
    # Another binary than the one that was meant is not installed.
    (machine / "given").write_text("something else")
    refused = subprocess.run(["chroot", machine, "/usr/local/sbin/lizm-install"], capture_output=True, check=False)
    assert refused.returncode != 0 and (machine / "usr/local/bin/lizm").read_bytes() == binary.read_bytes()
    print("cloud-init: rendered, and its script run in a Debian of its own; a binary of another hash was refused")


def check_install_monitor(binary, root, work):
    """In a Debian of its own, where systemd does not run: it enables the unit, and cannot start it."""
    machine = work / "monitored"
    shutil.copytree(root, machine, symlinks=True, ignore=shutil.ignore_patterns("dev", "proc", "sys"))
    (machine / "dev").mkdir(exist_ok=True)
    run("mknod", "-m", "666", machine / "dev/null", "c", "1", "3")
    given = machine / "given"
    given.mkdir()
    shutil.copy(binary, given / "lizm")
    shutil.copy(DEPLOY / "install-monitor.sh", given)
    shutil.copy(DEPLOY / "systemd/lizm-monitor.service", given)
    environment = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    install = ("chroot", machine, "/given/install-monitor.sh")
    run(*install, "http://receiver:8080", "a-secret", env=environment)
    conf = machine / "etc/lizm/monitor.env"
    conf.write_text(conf.read_text() + "LIZM_INTERVAL=5\n")
    said = run(*install, "https://receiver:8443", env={**environment, "LIZM_HOST": "jarvis"})
    assert "starts with the machine" in said, said
    lines = sorted(conf.read_text().splitlines())
    assert lines == ['LIZM_HOST="jarvis"', "LIZM_INTERVAL=5", 'LIZM_PUBLISH="https://receiver:8443"'], lines
    token = machine / "etc/lizm/monitor.token"
    assert token.read_text() == "a-secret\n" and token.stat().st_mode & 0o777 == 0o600
    unit = machine / "etc/systemd/system/lizm-monitor.service"
    assert "a-secret" not in "".join(path.read_text() for path in unit.with_name(unit.name + ".d").iterdir())
    enabled = machine / "etc/systemd/system/multi-user.target.wants/lizm-monitor.service"
    assert enabled.is_symlink() and (machine / "usr/local/bin/lizm").read_bytes() == binary.read_bytes()
    said = run("chroot", machine, "systemd-analyze", "verify", "--man=no", "/etc/systemd/system/lizm-monitor.service")
    assert "lizm" not in said, said
    conf_of_token = unit.with_name(unit.name + ".d") / "token.conf"
    assert "Environment=LIZM_TOKEN_FILE=%d/monitor.token" in conf_of_token.read_text()
    run(*install, "http://receiver:8080", "--join", "to-join", env=environment)
    assert token.read_text() == "to-join\n" and "Environment=LIZM_JOIN_FILE=%d/monitor.token" in conf_of_token.read_text()
    for wrong in (["http://r", "--join"], ["http://r", "--join", "t", "more"], ["ftp://receiver"], ["--upgrade"], ["http://r", "t", "more"], ['http://r"', "t"]):
        refused = subprocess.run([*install, *wrong], capture_output=True, check=False, env=environment)
        assert refused.returncode == 2, (wrong, refused)
    run(*install, "--remove", env=environment)
    left = [path for path in (unit, unit.with_name(unit.name + ".d"), enabled, conf, token) if os.path.lexists(path)]
    assert not left and not (machine / "usr/local/bin/lizm").exists(), left
    print("install-monitor.sh: installed, upgraded and removed in a Debian of its own")


def check_packages(binary, root, work):
    """Installed, upgraded, removed and purged in a Debian of its own, where systemd does not run."""
    for place in ("first", "second"):
        for kind in ("tarball", "deb"):
            run(DEPLOY / "package.sh", kind, binary, work / place)
    names = sorted(path.name for path in (work / "first").iterdir())
    for name in names:
        assert (work / "first" / name).read_bytes() == (work / "second" / name).read_bytes(), f"{name} differs"
    (package,) = (work / "first").glob("*.deb")
    said = run("lintian", "--allow-root", "--tag-display-limit", "0", package)
    assert not said.strip(), said
    machine = work / "packaged"
    shutil.copytree(root, machine, symlinks=True, ignore=shutil.ignore_patterns("dev", "proc", "sys"))
    (machine / "dev").mkdir(exist_ok=True)
    run("mknod", "-m", "666", machine / "dev/null", "c", "1", "3")
    shutil.copy(package, machine / "now.deb")
    unpacked = work / "unpacked"
    run("dpkg-deb", "--raw-extract", package, unpacked)
    control = unpacked / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*$", "Version: 9.0.0", control.read_text(), flags=re.M))
    run("dpkg-deb", "--root-owner-group", "--build", unpacked, machine / "newer.deb")
    environment = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

    def there(*command):
        return run("chroot", machine, *command, env=environment)

    there("dpkg", "--install", "/now.deb")
    assert there("lizm", "--version").startswith("lizm ")
    enabled = machine / "etc/systemd/system/multi-user.target.wants/lizm-receiver.service"
    assert not os.path.lexists(enabled), "services are enabled by the administrator"
    there("systemctl", "enable", "lizm-receiver.service")
    said = there("systemd-analyze", "verify", "--man=no", "/lib/systemd/system/lizm-receiver.service")
    assert "lizm" not in said, said
    conf = machine / "etc/lizm/receiver.env"
    conf.write_text(conf.read_text() + "LIZM_PORT=9090\n")
    there("dpkg", "--force-confold", "--install", "/newer.deb")
    assert "LIZM_PORT=9090" in conf.read_text() and enabled.is_symlink()
    kept = machine / "var/lib/private/lizm"
    kept.mkdir(parents=True)
    there("dpkg", "--remove", "lizm")
    assert conf.exists() and kept.exists() and not (machine / "usr/bin/lizm").exists()
    there("dpkg", "--purge", "lizm")
    left = [path for path in (conf, kept, enabled) if os.path.lexists(path)]
    assert not left, left
    print(f"{', '.join(names)}: the same bytes twice; lintian; installed, upgraded, removed and purged")


def main():
    binary, root = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
    run("shellcheck", *DEPLOY.rglob("*.sh"), *DEPLOY.glob("debian/p*"))
    print("scripts: shellcheck")
    check_compose()
    with tempfile.TemporaryDirectory(prefix="lizm-deploy-") as work:
        work = pathlib.Path(work)
        check_nginx(work)
        check_kubernetes(binary, work)
        check_units(binary, work)
        check_terraform()
        check_cloud_init(binary, root, work)
        check_install_monitor(binary, root, work)
        check_packages(binary, root, work)


main()
