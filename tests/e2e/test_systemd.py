"""systemd/flopsd.service: under the real systemd, in separate namespaces, and the messages from the real `flopsd run`.

The service manager sees this machine's files, except /run, /var/lib and /etc/systemd/system, and has a separate
network. The interpreter and the checkout are bound under /opt: a hardened service sees no home folder, and ours may be
in one.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.process import PATIENCE_SECONDS, predicate, started, wait_until
from tests.support.scenario import BUSY, Scenario, h100
from tests.support.sockets import fill_socket

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
mount -t tmpfs -o mode=755 tmpfs /var/log
mkdir -p /run/systemd/journald.conf.d
printf '[Journal]\nReadKMsg=no\n' >/run/systemd/journald.conf.d/test.conf
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
    """Runs commands in the namespaces of its service manager."""

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
        return self.run("journalctl", "--no-pager", check=False)

    def texts(self, *which: str) -> list[str]:
        """The texts in the journal, selected by options of journalctl."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--output=cat", *which).splitlines()


@contextmanager
def systemd(tmp_path: Path, extra: Path, *units: Path) -> Iterator[Systemd]:
    """A service manager with these unit files, and the content of `extra` under /opt; its /opt/out is
    `tmp_path`/out."""
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


UNIT = ROOT / "systemd" / "flopsd.service"
# Takes one push and prints it.
RECEIVER = """
from http.server import BaseHTTPRequestHandler, HTTPServer
import gzip

class One(BaseHTTPRequestHandler):
    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print(gzip.decompress(body).decode() if body[:2] == b"\\x1f\\x8b" else body.decode())
        self.send_response(200)
        self.end_headers()
    do_POST = do_PUT

HTTPServer(("127.0.0.1", 9091), One).handle_request()
"""


def test_the_daemon_notifies_ready_status_alive_and_stopping_in_this_order(tmp_path: Path, env: dict[str, str]) -> None:
    name = f"flopsd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(PATIENCE_SECONDS)
        found = {**env, "NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "900000"}
        with started("run", "--state-dir", str(tmp_path / "state"), "--listen", "off", "--interval", "20",
                     env=found) as program:  # fmt: skip
            received: list[str] = []
            # The pings come every 0.3 s although nothing is read for 20 s.
            while sum("WATCHDOG=1" in one for one in received) < 4:
                received.append(manager.recv(4096).decode())
            program.process.send_signal(signal.SIGTERM)
            while "STOPPING=1" not in received[-1]:
                received.append(manager.recv(4096).decode())
            assert program.finish() == 0, program.text
    assert "WATCHDOG_USEC=3600000000" in received[-1], "a stop may take longer than the watchdog's timeout"
    assert received[0] == "READY=1"
    assert re.fullmatch(r"STATUS=flopsd: .* measured [\d.x^]+ FLOP .* coverage .*", received[1]), received[1]
    assert set(received[2:-1]) == {"WATCHDOG=1"}


@pytest.mark.parametrize("broken", ["deaf", "full", "nonsense"])
def test_the_daemon_meters_even_if_the_manager_does_not_read(tmp_path: Path, env: dict[str, str], broken: str) -> None:
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        if broken == "deaf":
            place.write_text("no socket")
        elif broken == "full":
            manager.bind(str(place))
            fill_socket(place)
        address = "vsock:2:1" if broken == "nonsense" else str(place)
        with started("run", "--state-dir", str(tmp_path / "state"), "--ledger", str(tmp_path / "ledger.json"),
                     "--listen", "off", "--duration", "1", "--interval", "0.2",
                     env={**env, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}) as program:  # fmt: skip
            assert program.finish() == 0, program.text
    assert int(predicate(tmp_path / "ledger.json")["totals"]["executed"]["measured"]) > 0
    complaints = program.text.count("cannot notify the service manager at $NOTIFY_SOCKET")
    assert complaints == (0 if broken == "nonsense" else 1), program.text


def test_under_exec_only_the_job_notifies_the_manager(tmp_path: Path, env: dict[str, str]) -> None:
    """The service is the job's: messages of the daemon would be taken for the job's, or be discarded."""
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place))
        manager.setblocking(False)
        with started("exec", "--state-dir", str(tmp_path / "state"), "--ledger", str(tmp_path / "ledger.json"),
                     "--listen", "off", "--", "sh", "-c",
                     f'while ! grep -q activity "{tmp_path}"/state/pending.jsonl; do sleep 0.05; done; echo "$NOTIFY_SOCKET"',
                     env={**env, "NOTIFY_SOCKET": str(place)}) as program:  # fmt: skip
            assert program.finish() == 0, program.text
        assert str(place) in program.out
        with pytest.raises(BlockingIOError):
            manager.recv(4096)


@pytest.mark.tool("systemd-analyze")
def test_the_security_score_is_the_one_on_the_page() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    score = re.search(r"Overall exposure level for flopsd.service: ([\d.]+) (\w+)", done.stdout)
    assert score is not None, done.stdout
    assert f"{score[1]} ({score[2]})" in (ROOT / "docs" / "host.md").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
@pytest.mark.tool("unshare", "nsenter", "ip", "systemctl")
def test_the_unit_meters_and_seals_under_the_real_systemd(standin: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra"
    (extra / "nvml").mkdir(parents=True)
    for file in standin.iterdir():
        shutil.copy(file, extra / "nvml")
    Scenario((h100(BUSY),)).write(extra / "nvml" / "scenario.txt")
    with systemd(tmp_path, extra, UNIT) as inside:
        inside.shell(
            "mkdir -p /etc/systemd/system/flopsd.service.d; cat >/etc/systemd/system/flopsd.service.d/test.conf <<'X'\n"
            "[Service]\nEnvironment=PATH=/opt/bin:/usr/bin:/bin LD_LIBRARY_PATH=/opt/nvml\n"
            "Environment=NVML_STANDIN_SCENARIO=/opt/nvml/scenario.txt\nWatchdogSec=2\nRestartSec=0\n"
            "LoadCredential=key.pem:/etc/flopsd/key.pem\nEnvironment=FLOPSD_KEY=%d/key.pem\nX\n"
            "systemctl daemon-reload\n"
            "systemctl service-watchdogs no\n"  # so short a timeout would hit a healthy daemon on a busy machine
            "printf 'interval_seconds: 0.2\\nclient_uids: [65534]\\nlisten: 127.0.0.1:10188\\n"
            'seal_every_seconds: 1\\ncheckpoint_seconds: 0.5\\npushes: ["pushgateway+http://127.0.0.1:9091"]\\n\' '
            ">/etc/flopsd/flopsd.yaml\n"
        )
        ended_by = {"243": "true", "2": "echo no key >/etc/flopsd/key.pem"}  # a missing credential, an invalid one
        for status, prepare in ended_by.items():
            inside.shell(f"{prepare}; ! systemctl start flopsd")
            assert inside.shown("flopsd", "ExecMainStatus") == status, inside.log()
            state = [inside.shown("flopsd", name) for name in ("ActiveState", "Result", "NRestarts")]
            assert state == ["failed", "exit-code", "0"], "it is not started again"
        # By unit, journald finds only systemd's own messages: the failed process may be gone when journald looks.
        assert any("set up credentials" in text for text in inside.texts("-p", "err"))
        assert any(text.startswith("Failed to start flopsd") for text in inside.texts("-u", "flopsd", "-p", "err"))
        errors = inside.texts("-t", "flopsd", "-p", "err")
        assert errors[0].startswith("flopsd: --key: "), errors
        assert errors[1].startswith("flopsd: hint: "), errors
        inside.shell("rm /etc/flopsd/key.pem; /opt/bin/flopsd key new /etc/flopsd/key.pem; systemctl start flopsd")
        assert inside.shown("flopsd", "ActiveState") == "active"
        wait_until(lambda: "measured" in inside.shown("flopsd", "StatusText"), "the status has the totals")
        pid = inside.shown("flopsd", "MainPID")
        status = inside.shell(f"cat /proc/{pid}/status")
        assert re.search(r"^Uid:\s6\d{4}\s", status, re.MULTILINE), "systemd's dynamic users are 61184 to 65519"
        assert re.search(r"^CapBnd:\s0+$", status, re.MULTILINE)
        assert re.search(r"^Seccomp:\s2$", status, re.MULTILINE)
        assert inside.shell("stat -c %a /var/lib/private/flopsd /run/flopsd").split() == ["700", "755"]
        inside.shell(
            "setpriv --reuid 65534 --clear-groups /opt/bin/python -c 'from flopsd.client import connect\n"
            'one = connect(); one.declare(method="lora"); one.close(30)\''
        )
        inside.shell("until grep -qs lora /var/lib/flopsd/*.jsonl; do sleep 0.05; done")
        assert "flopsd_flop_total" in inside.shell("curl -s http://127.0.0.1:10188/metrics")
        # Restrictions apply to the daemon's children too: a seal is made before the end, and a push reaches the
        # receiver.
        wait_until(lambda: inside.run("find", "/var/lib/private/flopsd", "-name", "*.ledger.json"), "a seal")
        assert "flopsd_flop_total" in inside.run("/opt/bin/python", "-c", RECEIVER)
        assert "NO ROLLING SEAL" not in inside.log()
        inside.shell(f"systemctl service-watchdogs yes; kill -STOP {pid}")
        wait_until(lambda: inside.shown("flopsd", "MainPID") not in (pid, "0"), "the watchdog has it started again")
        inside.shell("systemctl service-watchdogs no")
        wait_until(lambda: inside.shown("flopsd", "ActiveState") == "active", "it is ready again")
        inside.shell("systemctl stop flopsd")
        assert inside.shown("flopsd", "Result") == "success", inside.log()
        all_texts = inside.texts("-t", "flopsd")
        errors += [text for text in all_texts if text.startswith("flopsd: ERROR: ")]
        assert inside.texts("-t", "flopsd", "-p", "err") == errors != all_texts
        inside.shell("cp /var/lib/flopsd/*.ledger.* /etc/flopsd/key.pem.pub /opt/out/")
    (ledger,) = (tmp_path / "out").glob("*.ledger.json")
    assert ledger.with_suffix(".pub").read_bytes() == (tmp_path / "out" / "key.pem.pub").read_bytes()
    sealed = predicate(ledger)
    assert [one["endReason"] for one in sealed["incarnations"]] == [None, "sigterm"]
    assert int(sealed["totals"]["executed"]["measured"]) > 0
    assert '"lora"' in ledger.with_suffix(".journal.jsonl").read_text(), "another user's process was served"
