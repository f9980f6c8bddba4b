"""The image, built and run as a cluster does it: a read-only root, a user that is not root, no capability, no engine."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.image import BASE, IMAGE, ROOT, TOOLS, Engine, Network, call, default_of, engine, network
from tests.support.kubelet import answer, kubelet
from tests.support.kubernetes import flopsd_of, manifest, pod_of, variables
from tests.support.process import get, predicate, wait_until
from tests.support.s3 import serving
from tests.support.scenario import LIBRARY, Scenario, Segment, h100

USER = 65532
BUSY = (Segment(700, hmma=0.5, util=100, watts=500), Segment(300, util=0, watts=120))
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "as", "ld", "cpp", "make", "rustc", "cargo", "go")
# Prints what a test asks of the file system of an image, seen from inside, by the Python that is there.
LOOK = """
import json, os, stat
found = {"executables": [], "writable": [], "setuid": [], "owners": [], "bytes": 0}
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
# What a training process does, in a container of its own, by the client that is in the image too.
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


def mounted_driver(standin: Path, scenario: Path) -> tuple[str, ...]:
    """What the NVIDIA runtime does: the driver's library where the loader looks; and the stand-in's scenario."""
    machine = os.uname().machine
    return ("-v", f"{standin / LIBRARY}:/usr/lib/{machine}-linux-gnu/{LIBRARY}:ro", "-v", f"{scenario}:/scenario.txt:ro",
            "-e", "NVML_STANDIN_SCENARIO=/scenario.txt")  # fmt: skip


def modes(folder: Path) -> dict[str, str]:
    return {
        path.name: f"{stat.filemode(what.st_mode)} {what.st_uid}:{what.st_gid}"
        for path in sorted(folder.iterdir())
        for what in (path.lstat(),)
    }


@pytest.mark.tool(*TOOLS, "cc")
def test_the_image_and_the_sidecar_that_a_manifest_makes_of_it(tmp_path: Path, standin: Path) -> None:
    """One test, since building takes longer than all the rest."""
    with engine() as built, network() as cable:
        built.build_image()
        check_contents(built)
        check_run(built, cable, tmp_path / "run", standin)
        check_sidecar(built, cable, tmp_path / "pod", standin)


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
    base = built.inspect(BASE)["Size"]
    print(f"\nimage: {found['Size'] / 1e6:.0f} MB, of which its base has {base / 1e6:.0f} MB and /opt/flopsd "
          f"{inside['bytes'] / 1e6:.0f} MB; user {config['User']}; no compiler, no pip, nothing that its user may write")  # fmt: skip


def check_run(built: Engine, cable: Network, folder: Path, standin: Path) -> None:
    """By `docker run` alone: a volume, the driver, and the defaults of the image."""
    volume = folder / "volume"
    volume.mkdir(parents=True)
    volume.chmod(0o700)
    os.chown(volume, USER, USER)
    scenario = Scenario((h100(BUSY, counters="sum"), h100(BUSY, counters="sum"))).write(folder / "scenario.txt")
    options = ("--network", cable.option, "--cap-drop", "all", "--security-opt", "no-new-privileges",
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
        refused = built.podman("exec", "run", "/opt/flopsd/bin/python", "-c", "open('/tmp/x', 'w')", check=False)
        assert refused == ""
        shown = json.loads(built.podman("exec", "run", "flopsd", "status", "--state-dir", "/var/lib/flopsd", "--json"))
        assert shown
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


def check_sidecar(built: Engine, cable: Network, folder: Path, standin: Path) -> None:
    """The container of job-with-sidecar.yaml with its own variables, mounts and rights; the kubelet gave the pod one GPU."""
    job = manifest("job-with-sidecar.yaml")
    container, spec = flopsd_of(job), pod_of(job)["spec"]
    scenario = Scenario((h100(BUSY, counters="sum"), h100(BUSY, counters="sum")))
    written = scenario.write(place(folder, "scenario") / "scenario.txt")
    fields = {
        "metadata.name": "llama-finetune-1-abcde",
        "metadata.namespace": "ml",
        "metadata.labels['batch.kubernetes.io/job-name']": "llama-finetune",
        "metadata.labels['batch.kubernetes.io/controller-uid']": "0b1f5c1e-9a52-4d0e-8f1a-6a2f5a4f0c11",
    }
    call("openssl", "genpkey", "-algorithm", "ed25519", "-out", place(folder, "flopsd-key") / "key.pem")
    (folder / "flopsd-key" / "key.pem").chmod(0o400)
    for name in ("flopsd-state", "flopsd-socket"):
        place(folder, name).chmod(0o777)  # as a kubelet makes an emptyDir
    mounts = [part for mount in container["volumeMounts"]
              for part in ("-v", f"{place(folder, mount['name'])}:{mount['mountPath']}"
                           + (":ro" if mount.get("readOnly") else ""))]  # fmt: skip
    gpus = {("ml", "llama-finetune-1-abcde"): {"flopsd": {}, "trainer": {"nvidia.com/gpu": (scenario.uuid(1),)}},
            ("other", "pod"): {"main": {"nvidia.com/gpu": (scenario.uuid(0),)}}}  # fmt: skip
    with kubelet(folder / "flopsd-pod-resources" / "kubelet.sock") as node, serving(cable.here) as store:
        node.reply = answer(gpus)
        bucket = store.bucket("your-bucket")
        told = {**variables(container, fields), "JOB_COMPLETION_INDEX": "1", **store.variables}
        options = [
            "--network",
            cable.option,
            *rights(container),
            *limits(container),
            *mounts,
            *mounted_driver(standin, written),
        ]
        options += [part for name, value in told.items() for part in ("-e", f"{name}={value}")]
        with built.running(*options, name="sidecar", command=container["args"]):
            url = f"http://{cable.there}:{container['ports'][0]['containerPort']}"
            wait_until(lambda: answers(f"{url}/-/ready"), "the sidecar is ready")
            (trainer,) = spec["containers"]
            (mount,) = trainer["volumeMounts"]
            socket = {entry["name"]: entry["value"] for entry in trainer["env"]}
            built.podman("run", "--rm", "--network", "none", "--user", "0", "--read-only",
                         "-v", f"{place(folder, mount['name'])}:{mount['mountPath']}:ro",
                         *(part for name, value in socket.items() for part in ("-e", f"{name}={value}")),
                         "--entrypoint", "/opt/flopsd/bin/python", IMAGE, "-c", TRAINER)  # fmt: skip
            wait_until(lambda: flop(url) > 0, "FLOP are counted")
            built.podman("stop", "--time", str(spec["terminationGracePeriodSeconds"]), "sidecar")
            assert built.exit_code("sidecar") == 0, built.said("sidecar")
        stem = "flopsd/llama-finetune-0b1f5c1e/llama-finetune-1-abcde"
        assert store.keys(bucket) == [f"{stem}{end}" for end in (".journal.jsonl", ".json", ".pub")]
        far = place(folder, "far")
        for key in store.keys(bucket):
            (far / Path(key).name).write_bytes(store.get(bucket, key))
    assert node.asked > 0
    found = predicate(far / "llama-finetune-1-abcde.json")
    assert [device["uuid"] for device in found["devices"]] == [scenario.uuid(1)]
    assert (found["node"]["name"], found["node"]["rank"], found["run"]["platform"]) == (
        "llama-finetune-1",
        1,
        "kubernetes",
    )
    assert "lora" in json.dumps(found)
    (key,) = ((far / "llama-finetune-1-abcde.pub").read_text(),)
    assert key == call("openssl", "pkey", "-in", folder / "flopsd-key" / "key.pem", "-pubout")
    print(f"sidecar: 1 of 2 GPUs is the pod's, declared by a trainer in another container, "
          f"{int(found['totals']['executed']['measured']):.3e} FLOP sealed into S3 before the end")  # fmt: skip


def place(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir(parents=True, exist_ok=True)
    return made


def rights(container: dict[str, Any]) -> list[str]:
    """The security context as options of podman."""
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    return [
        "--user",
        f"{context['runAsUser']}:{context['runAsGroup']}",
        "--cap-drop",
        "all",
        "--security-opt",
        "no-new-privileges",
    ]


def limits(container: dict[str, Any]) -> list[str]:
    """Its resources: what needs more memory is killed, and what needs more time of a CPU waits."""
    given = container["resources"]["limits"]
    memory, cpu = given["memory"].removesuffix("Mi"), int(given["cpu"].removesuffix("m")) / 1000
    return ["--memory", f"{memory}m", "--memory-swap", f"{memory}m", "--cpus", str(cpu)]


def answers(url: str) -> bool:
    try:
        return get(url)[0] == 200
    except OSError:
        return False


def flop(url: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in get(f"{url}/metrics")[1].splitlines()
               if line.startswith("flopsd_flop_total{"))  # fmt: skip


@pytest.mark.tool("hadolint")
def test_the_containerfile_is_clean() -> None:
    call(Path(sys.executable).parent / "hadolint", ROOT / "Containerfile")
