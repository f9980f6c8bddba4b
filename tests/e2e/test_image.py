"""The image, built and run as by a cluster: a read-only root, a user that is not root, no capability, no engine."""

import errno
import json
import os
import re
import stat
from base64 import b64encode
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.image import BASE, IMAGE, ROOT, TOOLS, Engine, Network, call, default_of, engine, network
from tests.support.kms import Kms, kms_server
from tests.support.kubelet import answer, kubelet
from tests.support.kubernetes import FIELDS, PACKAGES, manifest, of_kind, render, training_chart
from tests.support.own_exporter import Installed
from tests.support.pods import Pod, mounted_driver
from tests.support.process import answers, get, predicate, wait_until
from tests.support.s3 import Store
from tests.support.scenario import Scenario, Segment, a100, h100


def flop(url: str) -> float:
    lines = get(f"{url}/metrics")[1].splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("flopsd_flop_total{"))


BUCKET = "your-bucket"
USER = 65532
BUSY = (Segment(700, hmma=0.5, util=100, watts=500), Segment(300, util=0, watts=120))
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "as", "ld", "cpp", "make", "rustc", "cargo", "go")
OPT_BYTES = 60_000_000  # the maximum for /opt/flopsd
# Prints facts about the file system of an image, seen from inside, with the image's Python.
LOOK = """
import json, os, stat, sys
import bcrypt, botocore, flopsd.daemon.run, flopsd.sources.nvml.source, flopsd.sources.ownership.podresources
import flopsd.telemetry.http.server
found = {"executables": [], "writable": [], "setuid": [], "owners": [], "bytes": 0}
codes = {name: getattr(module, "__cached__", None) for name, module in sys.modules.items()}
found["uncompiled"] = sorted(name for name, code in codes.items() if code and not os.path.exists(code))
found["services"] = sorted(entry.name for entry in os.scandir(botocore.__path__[0] + "/data") if entry.is_dir())
for folder, _, names in os.walk("/opt/flopsd"):
    for name in [folder, *(os.path.join(folder, name) for name in names)]:
        what = os.lstat(name)
        found["bytes"] += what.st_size
        found["owners"] = sorted({*found["owners"], f"{what.st_uid}:{what.st_gid}"})
        if not stat.S_ISLNK(what.st_mode) and what.st_mode & 0o022:
            found["writable"].append(name)
        if what.st_mode & 0o6000:
            found["setuid"].append(name)
for folder in os.get_exec_path():
    if os.path.isdir(folder):
        found["executables"] += os.listdir(folder)
found["own"] = sorted(os.listdir("/opt/flopsd/bin"))
print(json.dumps(found))
"""
WRITE = """
for path in ("/tmp/x", "/opt/flopsd/x"):
    try:
        open(path, "w")
    except OSError as fault:
        print(fault.errno)
"""
# A training process in its own container, using the client that is in the image too.
TRAINER = """
import errno, os, sys
from pathlib import Path
from typing import Any
from flopsd.client import connect
try:
    Path("/run/flopsd/client.sock").unlink()
    sys.exit("the trainer could take the socket away")
except OSError as fault:
    assert fault.errno == errno.EROFS, fault
client = connect()
client.declare(method="lora", precision="bf16")
client.set_phase("train")
client.count("train", tokens=4096, sequences=2, steps=1)
client.close(20)
"""


def modes(folder: Path) -> dict[str, str]:
    return {
        path.name: f"{stat.filemode(what.st_mode)} {what.st_uid}:{what.st_gid}"
        for path in sorted(folder.iterdir())
        for what in (path.lstat(),)
    }


@pytest.mark.minute
@pytest.mark.package(*PACKAGES)
@pytest.mark.tool(*TOOLS, "cc", "openssl")
def test_the_image_and_its_use_by_the_manifests(standin: Path) -> None:
    """One test, since building takes longer than all the rest. Its folder is short, because it contains sockets."""
    with TemporaryDirectory(prefix="flopsd-") as folder, engine() as built, network() as cable:
        tmp_path = Path(folder)
        built.build_image()
        check_contents(built)
        check_run(built, cable, tmp_path / "run", standin)
        check_own_exporter(built, cable, tmp_path / "dcgm", standin)
        with kms_server(cable.here) as kms:
            store = Store(kms.url)
            store.bucket(BUCKET)
            check_sidecar(built, cable, tmp_path / "pod", standin, store)
            check_sidecar_without_root(built, cable, tmp_path / "whole", standin, store)
            check_node(built, cable, tmp_path / "node", standin, store, kms)


def check_contents(built: Engine) -> None:
    found, config = built.inspect(), built.inspect()["Config"]
    assert (config["User"], config["StopSignal"]) == (f"{USER}:{USER}", "SIGTERM")
    assert (config["Entrypoint"], config["Cmd"]) == (["/opt/flopsd/bin/flopsd"], ["run"])
    assert list(config["Volumes"]) == ["/var/lib/flopsd"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert (labels["title"], labels["version"], labels["revision"]) == ("flopsd", default_of("VERSION"), "tests")
    assert labels["licenses"] == "Apache-2.0"
    assert not [one for one in config["Env"] if one.startswith("PIP_")]
    inside = json.loads(built.podman("run", "--rm", "--network", "none", "--read-only", "--entrypoint",
                                     "/opt/flopsd/bin/python", IMAGE, "-c", LOOK))  # fmt: skip
    assert not set(COMPILERS) & {re.sub(r"^.*-linux-gnu-|-\d+$", "", name) for name in inside["executables"]}
    assert {"flopsd", "python"} <= set(inside["own"])
    assert not [name for name in inside["own"] if "pip" in name]
    assert (inside["writable"], inside["setuid"], inside["owners"]) == ([], [], ["0:0"])
    assert inside["uncompiled"] == [], "each start would compile them again"
    assert inside["services"] == default_of("AWS_SERVICES").strip('"').split()
    assert inside["bytes"] <= OPT_BYTES
    base = built.inspect(BASE)["Size"]
    print(f"\nimage: {found['Size'] / 1e6:.0f} MB, of which its base has {base / 1e6:.0f} MB and /opt/flopsd "
          f"{inside['bytes'] / 1e6:.0f} MB; user {config['User']}; no compiler, no pip, nothing that its user may write")  # fmt: skip


def check_run(built: Engine, cable: Network, folder: Path, standin: Path) -> None:
    """With `docker run` only: a volume, the driver, and the defaults of the image."""
    volume = folder / "volume"
    volume.mkdir(parents=True)
    volume.chmod(0o700)
    os.chown(volume, USER, USER)
    scenario = Scenario((h100(BUSY, counters="sum"), h100(BUSY, counters="sum"))).write(folder / "scenario.txt")
    (flags,) = re.findall(
        r"docker run .*(--read-only .*no-new-privileges)", (ROOT / "docs" / "container.md").read_text()
    )
    options = ("--network", cable.option, *flags.split(),
               "-v", f"{volume}:/var/lib/flopsd", *mounted_driver(standin, scenario))  # fmt: skip
    with built.running(*options, "-e", "FLOPSD_RUN_ID=boxed", name="run"):
        url = f"http://{cable.there}:10188"
        wait_until(lambda: answers(f"{url}/-/ready"), "the container is ready")
        wait_until(lambda: flop(url) > 0, "FLOP are counted")
        process = built.podman("top", "run", "huser", "hpid", "args").splitlines()[1].split()
        status = Path(f"/proc/{process[1]}/status").read_text()
        assert re.search(r"^Uid:\t(\d+)\t\1\t\1\t\1$", status, re.MULTILINE)[1] == str(USER)  # type: ignore[index]
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
        (resident,) = re.findall(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert built.podman("exec", "run", "/opt/flopsd/bin/python", "-c", WRITE) == f"{errno.EROFS}\n" * 2
        shown = json.loads(built.podman("exec", "run", "flopsd", "status", "--state-dir", "/var/lib/flopsd", "--json"))
        assert shown["run"] == "boxed"
        last = flop(url)
        built.podman("stop", "--time", "60", "run")
        assert built.exit_code("run") == 0, built.said("run")
    found = predicate(volume / "boxed.ledger.json")
    assert found["run"]["id"] == "boxed"
    assert len(found["devices"]) == 2
    assert int(found["totals"]["executed"]["measured"]) >= last > 0
    there = modes(volume)
    assert there["flopsd-key.pem"].startswith("-rw------- ")
    assert {line.split()[1] for line in there.values()} == {f"{USER}:{USER}"}
    assert not [line for line in there.values() if line[8] == "w"]
    print(f"run: scraped at {last:.3e} FLOP from another network namespace, stopped by TERM with exit code 0, "
          f"ledger of {int(found['totals']['executed']['measured']):.3e} FLOP verified; "
          f"user {process[0]}, no capability, {int(resident) / 1000:.0f} MB resident; on the volume:")  # fmt: skip
    print("\n".join(f"  {mode}  {name}" for name, mode in there.items()))


def check_own_exporter(built: Engine, cable: Network, folder: Path, standin: Path) -> None:
    """An A100, as docs/container.md runs an image that has DCGM; a stand-in replaces its dcgm-exporter."""
    installed, volume = Installed(folder / "bin", "/usr/bin/env python3"), place(folder / "volume")
    scenario = Scenario((a100((Segment(1000, mhz=1410, util=97, watts=400),)),)).write(folder / "scenario.txt")
    (flags,) = re.findall(r"Run it with `(--user .*?)`", (ROOT / "docs" / "container.md").read_text())
    options = ("--network", cable.option, "--cap-drop", "all", *flags.split(), "-v", f"{volume}:/var/lib/flopsd",
               "-v", f"{installed.folder}:/usr/local/bin", *mounted_driver(standin, scenario),
               "-e", "FLOPSD_DCGM_HOSTENGINE=/usr/local/bin/dcgm-exporter", "-e", "FLOPSD_DCGM_INTERVAL=0.5",
               "-e", "FLOPSD_INTERVAL=0.25", "-e", "FLOPSD_RUN_ID=dcgm", "-e", "FLOPSD_PRECISION=bf16")  # fmt: skip
    with built.running(*options, name="dcgm"):
        url = f"http://{cable.there}:10188"
        wait_until(lambda: answers(f"{url}/-/ready"), "the container is ready")
        wait_until(lambda: flop(url) > 0, "FLOP are measured by the exporter that flopsd started")
        built.podman("stop", "--time", "60", "dcgm")
        assert built.exit_code("dcgm") == 0, built.said("dcgm")
    found = predicate(volume / "dcgm.ledger.json")
    assert found["incarnations"][0]["sources"]["dcgm"]["own_exporter_starts"] == 1
    (device,) = found["devices"]
    assert {row["evidence"] for row in device["work"] if row["flop"]["measured"]} == {"activity"}
    print(f"with a dcgm-exporter: an A100 measured, {int(device['executed']['measured']):.3e} FLOP")


def check_sidecar(built: Engine, cable: Network, folder: Path, standin: Path, store: Store) -> None:
    """The container of job-with-sidecar.yaml; the kubelet gave its pod one GPU of two."""
    pod = Pod(manifest("job-with-sidecar.yaml"), folder, FIELDS)
    scenario = Scenario((h100(BUSY, counters="sum"), h100(BUSY, counters="sum")))
    gpus = {("ml", FIELDS["metadata.name"]): {"flopsd": {}, "trainer": {"nvidia.com/gpu": (scenario.uuid(1),)}},
            ("other", "pod"): {"main": {"nvidia.com/gpu": (scenario.uuid(0),)}}}  # fmt: skip
    driver = mounted_driver(standin, scenario.write(pod.volume("flopsd-state").parent / "scenario.txt"))
    with kubelet(pod.volume("flopsd-pod-resources") / "kubelet.sock") as node:
        node.reply = answer(gpus)
        with pod.running(built, cable, driver, {"JOB_COMPLETION_INDEX": "1", **store.variables}) as url:
            pod.train(built, TRAINER)
            wait_until(lambda: flop(url) > 0, "FLOP are counted")
    assert node.asked > 0
    found = predicate(fetched(store, "flopsd/llama-finetune-0b1f5c1e/llama-finetune-1-abcde", folder / "far"))
    assert [device["uuid"] for device in found["devices"]] == [scenario.uuid(1)]
    identity = (found["node"]["name"], found["node"]["rank"], found["run"]["platform"])
    assert identity == ("llama-finetune-1", 1, "kubernetes")
    (session,) = found["declared"]["sessions"]
    assert (session["facts"]["method"], session["work"]["train"]["tokens"]) == ("lora", "4096")
    key = (folder / "far" / "llama-finetune-1-abcde.pub").read_text()
    assert key == call("openssl", "pkey", "-in", pod.volume("flopsd-key") / "key.pem", "-pubout")
    print(f"sidecar: 1 of 2 GPUs is the pod's, declared by a trainer in another container, "
          f"{int(found['totals']['executed']['measured']):.3e} FLOP sealed into S3 before the end")  # fmt: skip


def check_sidecar_without_root(built: Engine, cable: Network, folder: Path, standin: Path, store: Store) -> None:
    """The chart's sidecar for whole nodes: the image's own user on an emptyDir, a Secret owned by root, no host
    path."""
    chart = training_chart(folder / "chart")
    own = {"sidecar": {"devices": "all"}, "daemonset": {"enabled": False}, "key": {"secretName": "flopsd-key"},
           "ledgerCopy": {"sidecar": "s3://your-bucket/whole/{run}/$(POD_NAME).json"}}  # fmt: skip
    pod = Pod(of_kind("Job", render({"flopsd": own}, chart)), folder, FIELDS)
    assert pod.container["securityContext"]["runAsUser"] == USER
    scenario = Scenario((h100(BUSY, counters="sum"), h100(BUSY, counters="sum"))).write(folder / "scenario.txt")
    with pod.running(built, cable, mounted_driver(standin, scenario), store.variables) as url:
        pod.train(built, TRAINER)
        wait_until(lambda: flop(url) > 0, "FLOP are counted")
    found = predicate(fetched(store, "whole/llama-finetune-0b1f5c1e/llama-finetune-1-abcde", folder / "far"))
    assert len(found["devices"]) == 2
    assert len(found["declared"]["sessions"]) == 1
    print(f"sidecar without root: user {USER} on an emptyDir, both GPUs of the node, ledger in S3")


def check_node(built: Engine, cable: Network, folder: Path, standin: Path, store: Store, kms: Kms) -> None:
    """The DaemonSet's pod, twice on one node's folder: the second continues the run of the first. Its key is in KMS."""
    scenario = Scenario((h100(BUSY, counters="sum"),))
    driver = mounted_driver(standin, scenario.write(place(folder) / "scenario.txt"))
    arn = kms.new_key()
    more = {**store.variables, "AWS_ENDPOINT_URL_KMS": kms.url, "FLOPSD_KEY": f"awskms:{arn}"}
    ends: list[int] = []
    for name in ("flopsd-aaaaa", "flopsd-bbbbb"):
        pod = Pod(manifest("daemonset.yaml"), folder, {**FIELDS, "metadata.name": name, "spec.nodeName": "ip-10-0-0-7"})
        with pod.running(built, cable, driver, more) as url:
            wait_until(lambda url=url: flop(url) > (ends[-1] if ends else 0), "FLOP are counted")
        found = predicate(fetched(store, f"flopsd/nodes/ip-10-0-0-7/{name}", folder / name))
        ends.append(int(found["totals"]["executed"]["measured"]))
        public = b64encode(kms.client().get_public_key(KeyId=arn)["PublicKey"]).decode()
        assert public in (folder / name / f"{name}.pub").read_text().replace("\n", "")
    assert (found["run"]["id"], found["node"]["name"], len(found["incarnations"])) == ("ip-10-0-0-7", "ip-10-0-0-7", 2)
    assert ends[1] > ends[0] > 0
    print(f"DaemonSet: two pods one after the other are one run of the node, {ends[0]:.3e} and then {ends[1]:.3e} FLOP")


def fetched(store: Store, stem: str, folder: Path) -> Path:
    """A ledger as somebody else finds it: only the bucket's objects under its name."""
    keys = [key for key in store.keys(BUCKET) if key.startswith(stem)]
    assert keys == [f"{stem}{end}" for end in (".journal.jsonl", ".json", ".pub")]
    for key in keys:
        (place(folder) / Path(key).name).write_bytes(store.get(BUCKET, key))
    return folder / f"{Path(stem).name}.json"


def place(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.tool("hadolint")
def test_the_containerfile_is_clean() -> None:
    call("hadolint", ROOT / "Containerfile")
