"""docs/helm.md: the installed objects, the namespaces that accept the pods, and the values of other charts."""

import json
import re
from copy import deepcopy
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart_values import SIDECARS, job_of
from tests.support.kubernetes import CHART, IMAGE, PACKAGES, ROOT, flopsd_of, of_kind, pod_of, render, render_texts
from tests.support.pod_security import BASELINE, RESTRICTED, level_of, violations

pytestmark = [pytest.mark.package(*PACKAGES), pytest.mark.xdist_group("kubernetes")]
PAGE = (ROOT / "docs" / "helm.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The rows of the table below a heading of docs/helm.md, without the table's head."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    lines = [line.strip().strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def paths(schema: dict[str, Any], values: Any, before: str = "") -> dict[str, Any]:
    """The keys of the schema whose values are maps, by path."""
    found = {}
    for name, below in schema.get("properties", {}).items():
        found[f"{before}{name}"] = below
        if isinstance(values, dict) and isinstance(values.get(name), dict):
            found |= paths(below, values[name], f"{before}{name}.")
    return found


def test_the_page_names_the_pod_security_level_of_each_pod(tmp_path: Path) -> None:
    """In a training pod only flopsd's part is judged: the rest is its owner's."""
    said = {tuple(names_in(cell)): level.strip("*") for cell, level, *_ in rows("Pod Security")}
    made = {
        (): pod_of(of_kind("DaemonSet", render()))["spec"],
        ("sidecar.devices: pod",): _flopsd_part(job_of(tmp_path / "1", {})),
        ("sidecar.devices: all",): _flopsd_part(job_of(tmp_path / "2", SIDECARS["whole nodes"])),
        ("gpu.visibility: volume-mounts",): _flopsd_part(job_of(tmp_path / "3", SIDECARS["volume mounts"])),
        ("gpu.migMonitor: true",): _flopsd_part(job_of(tmp_path / "4", {"sidecar": {"devices": "all"}, "gpu": {"migMonitor": True}})),
    }  # fmt: skip
    assert {form: level_of(spec) for form, spec in made.items()} == said
    assert "pod-security.kubernetes.io/enforce=privileged" in _notes({})
    alone = {"daemonset": {"enabled": False}}
    assert "may enforce restricted." in _notes({**alone, **SIDECARS["whole nodes"]})
    assert "may enforce only privileged" in _notes({**alone, **SIDECARS["volume mounts"]})
    restricted = made[("sidecar.devices: all",)]
    for control, spoil in SPOILT.items():
        spoilt = deepcopy(restricted)
        spoil(spoilt, spoilt["initContainers"][0])
        assert control in violations(spoilt, RESTRICTED), control
    assert SPOILT.keys() == RESTRICTED.keys() >= BASELINE.keys()


def _notes(values: dict[str, Any]) -> str:
    return render_texts({"image": IMAGE, **values})["flopsd/templates/NOTES.txt"]


def _flopsd_part(job: dict[str, Any]) -> dict[str, Any]:
    return {**pod_of(job)["spec"], "initContainers": [flopsd_of(job)], "containers": []}


# For each control of the standards, a change that violates it.
SPOILT: dict[str, Any] = {
    "hostProcess": lambda _, c: c["securityContext"].update(windowsOptions={"hostProcess": True}),
    "host namespaces": lambda spec, _: spec.update(hostPID=True),
    "privileged": lambda _, c: c["securityContext"].update(privileged=True),
    "added capabilities": lambda _, c: c["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
    "hostPath": lambda spec, _: spec["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    "host ports": lambda _, c: c["ports"][0].update(hostPort=1),
    "host of probes": lambda _, c: c.update(livenessProbe={"httpGet": {"host": "a", "port": 1}}),
    "AppArmor": lambda _, c: c["securityContext"].update(appArmorProfile={"type": "Unconfined"}),
    "SELinux": lambda spec, _: spec.update(securityContext={"seLinuxOptions": {"type": "spc_t"}}),
    "/proc": lambda _, c: c["securityContext"].update(procMount="Unmasked"),
    "Seccomp": lambda _, c: c["securityContext"].update(seccompProfile={"type": "Unconfined"}),
    "sysctls": lambda spec, _: spec.update(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
    "volume types": lambda spec, _: spec["volumes"].append({"name": "x", "nfs": {"server": "a", "path": "/"}}),
    "privilege escalation": lambda _, c: c["securityContext"].pop("allowPrivilegeEscalation"),
    "runAsNonRoot": lambda _, c: c["securityContext"].pop("runAsNonRoot"),
    "runAsUser": lambda _, c: c["securityContext"].update(runAsUser=0),
    "Seccomp set": lambda _, c: c["securityContext"].pop("seccompProfile"),
    "capabilities": lambda _, c: c["securityContext"].pop("capabilities"),
}


def test_each_value_of_two_other_charts_has_an_equivalent_or_a_reason() -> None:
    peers = yaml.safe_load((ROOT / "tests" / "support" / "peer-charts.yaml").read_text())
    theirs = {name for peer in peers.values() for name in peer["names"].split()}
    for peer, stated in peers.items():
        assert f"[{peer} {stated['version']}]" in PAGE
        assert f"]: {stated['source']}\n" in PAGE
    schema = json.loads((CHART / "values.schema.json").read_text())
    ours = paths(schema, yaml.safe_load((CHART / "values.yaml").read_text()))
    answers = {pattern: answer for cell, answer in rows("Values of other charts") for pattern in names_in(cell)}
    best = {
        name: max((pattern for pattern in answers if fnmatchcase(name, pattern)), key=len, default=None)
        for name in theirs
    }
    assert [name for name, pattern in best.items() if pattern is None] == []
    assert answers.keys() - best.values() == set(), "neither chart has it"
    for pattern, answer in answers.items():
        if answer == "the same":
            assert pattern in ours
            continue
        assert re.match(r"none: \S.{20,}", answer) or names_in(answer)[0] in ours, answer
