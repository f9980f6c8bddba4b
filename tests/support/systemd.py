"""A systemd of our own, in namespaces of its own: the real service manager for the real unit, with no engine and no boot.

It sees this machine's files, but for /run, /var/lib and /etc/systemd/system, and a network of its own. The
interpreter and the checkout are bound under /opt, since a hardened service sees no home folder, and ours may lie in one.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.process import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).parents[2]
SYSTEMD = "/usr/lib/systemd/systemd"
_BOOT = """set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/lib
mount -t tmpfs -o mode=755 tmpfs /opt
mount -t tmpfs -o mode=755 tmpfs /etc/systemd/system
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -t proc proc /proc
mkdir -p /opt/python /opt/site /opt/checkout /opt/bin /opt/out /etc/flopsd
mount --bind {prefix} /opt/python
mount --bind {site} /opt/site
mount --bind {root} /opt/checkout
mount --bind {out} /opt/out
mount -t tmpfs -o mode=755 tmpfs /etc/flopsd
cp {unit} /etc/systemd/system/
cp -r {extra}/. /opt/
mkdir /etc/systemd/system/service.d
printf '[Service]\nStandardOutput=append:/run/services.log\nStandardError=append:/run/services.log\n' \
  >/etc/systemd/system/service.d/log.conf
cat >/opt/bin/python <<'X'
#!/bin/sh
LD_LIBRARY_PATH=/opt/python/lib:$LD_LIBRARY_PATH PYTHONPATH=/opt/checkout:/opt/site exec /opt/python/bin/{python} "$@"
X
printf '#!/bin/sh\\nexec /opt/bin/python -m flopsd "$@"\\n' >/opt/bin/flopsd
chmod 755 /opt/bin/flopsd /opt/bin/python
printf '[Unit]\\nDefaultDependencies=no\\n' >/etc/systemd/system/test.target
# As a boot leaves it: what is mounted for a service, its credentials say, is then seen by it.
mount --make-rshared /
export container=test
exec {systemd} --system --unit=test.target --show-status=no
"""


class Systemd:
    """Runs commands beside its service manager."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            ["nsenter", "-t", str(self._pid), "-m", "-p", "-C", "-u", "-i", "-n", *command],
            capture_output=True, text=True, timeout=PATIENCE_SECONDS * 2, check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{shlex.join(command)}: {done.stdout}{done.stderr}\n{self.log()}"
        return done.stdout

    def shell(self, script: str) -> str:
        return self.run("sh", "-ec", script)

    def shown(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--property", name, "--value", unit).strip()

    def log(self) -> str:
        return self.run("cat", "/run/services.log", check=False)


@contextmanager
def systemd(tmp_path: Path, extra: Path, *units: Path) -> Iterator[Systemd]:
    """A service manager with these unit files, and what is in `extra` under /opt; its /opt/out is `tmp_path`/out."""
    out = tmp_path / "out"
    out.mkdir()
    boot, log = tmp_path / "boot.sh", tmp_path / "systemd.log"
    words = {
        "prefix": sys.base_prefix, "site": sysconfig.get_path("purelib"), "root": ROOT, "extra": extra, "out": out,
        "python": f"python{sys.version_info.major}.{sys.version_info.minor}", "systemd": SYSTEMD,
    }  # fmt: skip
    quoted = {name: shlex.quote(str(value)) for name, value in words.items()}
    boot.write_text(_BOOT.format(unit=" ".join(shlex.quote(str(unit)) for unit in units), **quoted))
    with log.open("wb") as said:
        outer = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--net", "--kill-child", "sh",
             str(boot)], stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
    try:
        pid = int(wait_until(lambda: _child(outer), f"systemd starts: {log.read_text(errors='replace')}"))
        inside = Systemd(pid)
        wait_until(lambda: "running" in inside.run("systemctl", "is-system-running", check=False), "systemd runs")
        inside.run("ip", "link", "set", "lo", "up")
        yield inside
    finally:
        if outer.poll() is None:
            os.killpg(outer.pid, signal.SIGKILL)
        outer.wait()


def _child(outer: subprocess.Popen[bytes]) -> str:
    assert outer.poll() is None, "systemd did not start"
    return Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().strip()
