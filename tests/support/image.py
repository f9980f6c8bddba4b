"""The container image, built and run without a Docker engine: with Debian's buildah, podman and runc, on a Debian
base.

The base holds Debian's Python as packaged, unpacked; no registry is used.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOOLS = ("buildah", "podman", "runc", "mmdebstrap", "ip")
PACKAGES = ("base-files", "ca-certificates", "coreutils", "dash", "libc-bin", "python3", "python3-venv")
BASE = "localhost/base"
IMAGE = "localhost/flopsd"
# Files that configuring Debian's package would have made, and that Debian's pip needs.
BASE_FILE = """FROM scratch
ADD base.tar /
RUN cat /usr/share/ca-certificates/mozilla/*.crt >/etc/ssl/certs/ca-certificates.crt
"""
# A builder's sandbox may have lower limits than buildah tries to set.
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
DEBIAN_PYTHON = "3.13"  # trixie's


def call(*command: str | Path, env: Mapping[str, str] | None = None, check: bool = True) -> str:
    done = subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Engine:
    """buildah and podman on a store of their own."""

    folder: Path

    def _store(self) -> tuple[str, ...]:
        return ("--root", f"{self.folder}/store", "--runroot", f"{self.folder}/run", "--storage-driver", "overlay")

    def podman_command(self, *arguments: str | Path) -> list[str]:
        options = ("--runtime", "runc", "--cgroup-manager", "cgroupfs")
        return ["podman", *self._store(), *options, *map(str, arguments)]

    def podman(self, *arguments: str | Path, check: bool = True) -> str:
        quiet = {**os.environ, "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}
        return call(*self.podman_command(*arguments), env=quiet, check=check)

    def build(self, *arguments: str | Path) -> None:
        call("buildah", *self._store(), "build", "--quiet", "--isolation", "chroot", *LIMITS, *arguments)

    def build_image(self) -> None:
        """Build BASE, and IMAGE from the Containerfile on top of it, with wheels that were fetched before."""
        wheels = self.folder / "wheels"
        with ThreadPoolExecutor() as pool:  # both wait for the network
            for work in (pool.submit(self._make_base), pool.submit(self._fetch_wheels, wheels)):
                work.result()
        given = {"BASE": BASE, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "REVISION": "tests"}
        arguments = [part for name, value in given.items() for part in ("--build-arg", f"{name}={value}")]
        self.build(
            *arguments, "--volume", f"{wheels}:/wheels:ro", "--file", ROOT / "Containerfile", "--tag", IMAGE, ROOT
        )

    def _make_base(self) -> None:
        # Removed at the end: dpkg's own filter takes three times as long as everything else.
        shrink = '--extract-hook=cd "$1/usr/share" && rm -r man doc locale'
        packages = ",".join(PACKAGES)
        call("mmdebstrap", "--quiet", "--variant=extract", f"--include={packages}", shrink, "trixie",
             self.folder / "base.tar")  # fmt: skip
        (self.folder / "Base").write_text(BASE_FILE)
        self.build("--file", self.folder / "Base", "--tag", BASE, self.folder)
        (self.folder / "base.tar").unlink()

    def _fetch_wheels(self, folder: Path) -> None:
        """Fetch the dependencies of the Containerfile's EXTRAS and of building flopsd itself, for the base's Python."""
        extras = default_of("EXTRAS")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
        call(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
        (ours,) = folder.glob("flopsd-*.whl")
        call(*pip, "download", "--only-binary=:all:", "--python-version", DEBIAN_PYTHON, "--dest", folder,
             f"flopsd[{extras}] @ {ours.as_uri()}", "hatchling")  # fmt: skip
        ours.unlink()  # the image builds its own

    def inspect(self, image: str = IMAGE) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.podman("image", "inspect", image))[0]
        return found

    @contextmanager
    def running(
        self, *arguments: str | Path, name: str, image: str = IMAGE, command: Sequence[str] = ()
    ) -> Iterator[None]:
        """A container in the background, whose root is read-only and whose only writable places are its volumes."""
        self.podman(
            "run", "--detach", "--name", name, "--read-only", "--read-only-tmpfs=false", *arguments, image, *command
        )
        try:
            yield
        except BaseException:
            print(self.said(name))
            raise
        finally:
            self.podman("rm", "--force", "--time", "0", "--ignore", name)

    def said(self, name: str) -> str:
        command = self.podman_command("logs", name)
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout

    def exit_code(self, name: str) -> int:
        return int(self.podman("inspect", "--format", "{{.State.ExitCode}}", name))


def default_of(name: str) -> str:
    """The default of one of the Containerfile's arguments."""
    (found,) = [line.partition("=")[2] for line in (ROOT / "Containerfile").read_text().splitlines()
                if line.startswith(f"ARG {name}=")]  # fmt: skip
    return found


@contextmanager
def engine() -> Iterator[Engine]:
    """An engine with a fresh store, which is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="flopsd-image-"))
    made = Engine(folder)
    try:
        yield made
    finally:
        made.podman("rm", "--all", "--force", "--time", "0", check=False)
        call("umount", "--lazy", folder / "store" / "overlay", check=False)
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Network:
    """A network namespace, connected to this one by one cable."""

    name: str
    here: str
    there: str

    @property
    def option(self) -> str:
        return f"ns:/run/netns/{self.name}"


@contextmanager
def network() -> Iterator[Network]:
    """A network for one container, which is then another host as seen from here."""
    pid = os.getpid()
    net = f"10.{64 + pid % 64}.{pid // 64 % 256}"
    made = Network(f"flopsd-{pid}", f"{net}.1", f"{net}.2")
    cable = f"fd{pid}"
    call("ip", "netns", "add", made.name)
    try:
        call("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", made.name)
        call("ip", "address", "add", f"{made.here}/30", "dev", cable)
        call("ip", "-n", made.name, "address", "add", f"{made.there}/30", "dev", "eth0")
        call("ip", "link", "set", cable, "up")
        for link in ("eth0", "lo"):
            call("ip", "-n", made.name, "link", "set", link, "up")
        yield made
    finally:
        call("ip", "netns", "delete", made.name)
