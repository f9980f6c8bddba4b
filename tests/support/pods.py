"""A pod of a manifest or of the chart, run as a kubelet would run it: with volumes, rights, limits, and its node's
driver."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.image import IMAGE, Engine, Network, call
from tests.support.kubernetes import Document, flopsd_of, pod_of, variables
from tests.support.process import answers, wait_until
from tests.support.scenario import LIBRARY


@dataclass(frozen=True)
class Pod:
    """The pod's volumes are folders below `folder`, by their names."""

    document: Document
    folder: Path
    fields: Mapping[str, str]  # the values that the downward API provides

    @property
    def container(self) -> Document:
        return flopsd_of(self.document)

    def volume(self, name: str) -> Path:
        """The volume as a kubelet or an administrator makes it: everybody may write to an emptyDir, and root owns
        the node's folders."""
        (stated,) = [one for one in pod_of(self.document)["spec"]["volumes"] if one["name"] == name]
        made = self.folder / name
        if not made.exists():
            made.mkdir(parents=True)
            made.chmod(0o777 if "emptyDir" in stated else 0o755)
            if "secret" in stated:
                call("openssl", "genpkey", "-algorithm", "ed25519", "-out", made / "key.pem")
                (made / "key.pem").chmod(stated["secret"]["defaultMode"])
        return made

    def mounts(self, container: Document) -> list[str]:
        found = []
        for mount in container["volumeMounts"]:
            end = ":ro" if mount.get("readOnly") else ""
            found += ["-v", f"{self.volume(mount['name'])}:{mount['mountPath']}{end}"]
        return found

    @contextmanager
    def running(self, built: Engine, cable: Network, driver: list[str], more: Mapping[str, str]) -> Iterator[str]:
        """The URL of the running pod, once it is ready. At the end it is stopped by TERM, as by a kubelet, and exits
        with code 0."""
        stated = {**variables(self.container, self.fields), **more}
        options = ["--network", cable.option, *rights(self.container), *limits(self.container)]
        options += [*self.mounts(self.container), *driver, *environment(stated)]
        with built.running(*options, name="pod", command=self.container["args"]):
            url = f"http://{cable.there}:{self.container['ports'][0]['containerPort']}"
            wait_until(lambda: answers(f"{url}/-/ready"), "the container is ready")
            yield url
            built.podman("stop", "--time", str(pod_of(self.document)["spec"]["terminationGracePeriodSeconds"]), "pod")
            assert built.exit_code("pod") == 0, built.said("pod")

    def train(self, built: Engine, code: str) -> None:
        """Run `code` in place of the trainer, beside flopsd: in another container with the trainer's mounts and
        variables."""
        (trainer,) = pod_of(self.document)["spec"]["containers"]
        stated = environment({entry["name"]: entry["value"] for entry in trainer["env"]})
        built.podman("run", "--rm", "--network", "none", "--user", "0", "--read-only", *self.mounts(trainer), *stated,
                     "--entrypoint", "/opt/flopsd/bin/python", IMAGE, "-c", code)  # fmt: skip


def environment(given: Mapping[str, str]) -> list[str]:
    return [part for name, value in given.items() for part in ("-e", f"{name}={value}")]


def rights(container: Document) -> list[str]:
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    user = f"{context['runAsUser']}:{context['runAsGroup']}"
    return ["--user", user, "--cap-drop", "all", "--security-opt", "no-new-privileges"]


def limits(container: Document) -> list[str]:
    """The container's resource limits: a process that needs more memory is killed, and one that needs more CPU time
    waits."""
    given = container["resources"]["limits"]
    memory, cpu = given["memory"].removesuffix("Mi"), int(given["cpu"].removesuffix("m")) / 1000
    return ["--memory", f"{memory}m", "--memory-swap", f"{memory}m", "--cpus", str(cpu)]


def mounted_driver(standin: Path, scenario: Path) -> list[str]:
    """What the NVIDIA runtime mounts, the driver's library where the loader looks; and the stand-in's scenario."""
    library = f"/usr/lib/{os.uname().machine}-linux-gnu/{LIBRARY}"
    return ["-v", f"{standin / LIBRARY}:{library}:ro", "-v", f"{scenario}:/scenario.txt:ro",
            "-e", "NVML_STANDIN_SCENARIO=/scenario.txt"]  # fmt: skip
