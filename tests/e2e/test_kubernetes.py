"""Manifests and chart: what API servers accept, what Helm renders, and flopsd's own check of the settings in them."""

import importlib
import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from flopsd.cli.main import main
from flopsd.daemon.ledger_places import copy_destinations
from flopsd.settings.device_selection import Whose
from flopsd.settings.load import SECRETS
from flopsd.settings.platform import find_context
from flopsd.settings.schema import SETTINGS, Settings
from flopsd.sources.registry import known_sources
from tests.support.chart_values import ALL, SIDECARS, VALUES, job_of
from tests.support.kubernetes import (
    CHART,
    FIELDS,
    IMAGE,
    MANIFESTS,
    PACKAGES,
    ROOT,
    TRAINING_CHART,
    complaints,
    containers,
    documents,
    flopsd_of,
    manifest,
    of_kind,
    pod_of,
    render,
    variables,
    without_helm,
)
from tests.support.settings import load_settings

pytestmark = [pytest.mark.package(*PACKAGES), pytest.mark.xdist_group("kubernetes")]


@pytest.fixture(scope="module")
def every_pod(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, dict[str, Any]]]:
    """Everything here that runs flopsd: the manifests, and the chart's renderings."""
    folder = tmp_path_factory.mktemp("charts")
    found = [(path.name, manifest(path.name)) for path in sorted(MANIFESTS.glob("*.yaml"))]
    found += [(f"chart, {name}", document) for name, values in VALUES.items() for document in render(values)]
    found += [(f"training chart, {name}", job_of(folder / str(number), values))
              for number, (name, values) in enumerate(SIDECARS.items())]  # fmt: skip
    return [(name, document) for name, document in found if document["kind"] in ("DaemonSet", "Job")]


def test_every_manifest_is_valid_for_the_api_servers() -> None:
    names = sorted(path.name for path in MANIFESTS.glob("*.yaml"))
    assert names == ["daemonset.yaml", "job-with-sidecar.yaml", "networkpolicy.yaml", "podmonitor.yaml"]
    for name in names:
        assert complaints(manifest(name)) == [], name


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("daemonset.yaml", ("spec", "template", "spec", "containers", 0, "readinessProbe")),
        ("job-with-sidecar.yaml", ("spec", "template", "spec", "initContainers", 0, "securityContext")),
        ("networkpolicy.yaml", ("spec",)),
        ("podmonitor.yaml", ("spec", "podMetricsEndpoints", 0)),
    ],
)
def test_a_misspelt_field_is_found(name: str, path: Sequence[str | int]) -> None:
    spoilt = deepcopy(manifest(name))
    inner: Any = spoilt
    for step in path:
        inner = inner[step]
    inner["intervall"] = "15s"
    assert complaints(spoilt) != []


def test_the_chart_is_clean_and_all_its_objects_are_valid(every_pod: list[tuple[str, dict[str, Any]]]) -> None:
    helm = importlib.import_module("helm_python")
    for name, values in VALUES.items():
        report = helm.lint(str(CHART), {"image": IMAGE, **values}, strict=True)
        assert report["errors"] == []
        assert [m for m in report["messages"] if m["severity"] > 1] == [], name  # 1: an icon is recommended
    for name, document in [*every_pod, *(("all", document) for document in render(ALL))]:
        assert complaints(document) == [], name


def test_chart_and_manifests_are_equivalent(tmp_path: Path) -> None:
    made = [without_helm(document) for document in render(ALL)]
    for name in ("daemonset.yaml", "podmonitor.yaml", "networkpolicy.yaml"):
        wanted = manifest(name)
        assert _sorted_env(of_kind(wanted["kind"], made)) == _sorted_env(wanted), name
    job = without_helm(job_of(tmp_path / "training", {}))
    assert _sorted_env(job) == _sorted_env(manifest("job-with-sidecar.yaml"))


def _sorted_env(document: dict[str, Any]) -> dict[str, Any]:
    """The order of variables and volumes is irrelevant, except for a variable made from others, which `variables`
    checks."""
    copy = deepcopy(document)
    if "template" in copy["spec"]:
        pod_of(copy)["spec"]["volumes"].sort(key=lambda one: one["name"])
        for container in containers(copy):
            container["env"].sort(key=lambda one: one["name"])
            container["volumeMounts"].sort(key=lambda one: one["name"])
    return copy


def test_flopsd_accepts_every_setting_in_the_manifests(
    every_pod: list[tuple[str, dict[str, Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(every_pod) == 2 + len(VALUES) + len(SIDECARS)
    for name, document in every_pod:
        container = flopsd_of(document)
        shown = {**variables(container, FIELDS), **({"JOB_COMPLETION_INDEX": "1"} if document["kind"] == "Job" else {})}
        settings, context = _settings(container, shown), find_context(shown, tmp_path)
        assert settings.wait_for_source, name
        assert settings.listen is not None
        assert settings.listen.endswith(f":{container['ports'][0]['containerPort']}")
        grace = pod_of(document)["spec"]["terminationGracePeriodSeconds"]
        assert settings.stop_seconds + 10 <= grace, f"{name}: sealing would be killed"
        assert context.platform == "kubernetes"
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert settings.state_dir in mounts
        if settings.key is not None and not settings.key.startswith("awskms:"):
            assert str(Path(settings.key).parent) in mounts
        if document["kind"] == "Job":
            _check_sidecar(settings, document, mounts, shown)
            assert (context.job_name, context.rank) == (
                shown["JOB_NAME"] + ("-0b1f5c1e" if "JOB_UID" in shown else ""),
                1,
            )
            assert context.node == "llama-finetune-1"
        else:
            assert (settings.devices.whose, settings.client_socket) == (Whose.ALL, "off")
            assert (settings.run_id, context.node) == (FIELDS["spec.nodeName"], FIELDS["spec.nodeName"])
        for place in copy_destinations(settings, context.job_name or "run", context.node):
            assert context.node in str(place)
    with pytest.raises(SystemExit, match="2"):
        main(["run", "--no-such-flag"])
    assert "--no-such-flag" in capsys.readouterr().err


def _settings(container: dict[str, Any], given: dict[str, str]) -> Settings:
    assert container["args"][0] == "run"  # every setting is a variable, so one list of names covers all
    sources = known_sources().settings
    known = {setting.variable for setting in (*SETTINGS, *sources)} | set(SECRETS)
    assert [key for key in given if key.startswith("FLOPSD_") and key not in known] == []
    return load_settings({}, given, source_settings=sources)


def _check_sidecar(settings: Settings, document: dict[str, Any], mounts: set[str], given: dict[str, str]) -> None:
    pod = settings.devices.whose is Whose.POD
    assert pod == ("/var/lib/kubelet/pod-resources" in mounts)
    assert pod or settings.devices.whose is Whose.ALL
    assert {"POD_NAME", "POD_NAMESPACE"} <= given.keys()
    spec = pod_of(document)["spec"]
    assert spec["initContainers"][0]["restartPolicy"] == "Always"
    (trainer,) = spec["containers"]
    assert {"name": "FLOPSD_SOCKET", "value": settings.client_socket} in trainer["env"]
    (socket,) = [mount for mount in trainer["volumeMounts"] if mount["name"] == "flopsd-socket"]
    assert socket == {
        "name": "flopsd-socket",
        "mountPath": str(Path(str(settings.client_socket)).parent),
        "readOnly": True,
    }


def test_the_container_has_exactly_the_rights_it_needs(every_pod: list[tuple[str, dict[str, Any]]]) -> None:
    for name, document in every_pod:
        container, spec = flopsd_of(document), pod_of(document)["spec"]
        context, mig = container["securityContext"], "NVIDIA_MIG_MONITOR_DEVICES" in str(container["env"])
        shown = variables(container, FIELDS)[
            "NVIDIA_VISIBLE_DEVICES"
        ]  # the NVIDIA runtime reads the mount, or the variable
        mounted = [each for each in container["volumeMounts"] if each["mountPath"] == f"{shown}/all"]
        assert [shown == "all", "flopsd-gpus" in str(spec["volumes"])] == [not mounted, bool(mounted)], name
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"], **({"add": ["SYS_ADMIN"]} if mig else {})}, name
        assert context["allowPrivilegeEscalation"] is mig  # an API server refuses false together with SYS_ADMIN
        assert "privileged" not in context
        root = context["runAsUser"] == 0
        assert context["runAsNonRoot"] is not root  # stated either way: the pod may say true for all
        assert context["runAsGroup"] == context["runAsUser"]
        given = [
            each
            for each in container["volumeMounts"]
            if each["name"] not in ("flopsd-state", "flopsd-socket", "flopsd-gpus")
        ]
        assert all(each["readOnly"] for each in given), name
        needs_root = mig or any(
            volume.get("hostPath", {}).get("path", "/dev/null") != "/dev/null" for volume in spec["volumes"]
        )
        assert root is needs_root, f"{name}: root where nothing of the host needs it"
        for volume in spec["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == (0o400 if root else 0o444)
        assert not {"hostPID", "hostIPC"} & spec.keys()
        assert spec.get("hostNetwork", False) is (name == "chart, pod")
        # No other pod loses a GPU, and a Guaranteed pod stays one.
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["resources"]["limits"].keys() == {"cpu", "memory"}
        # A restart is a gap, and a failing probe would keep the training from starting.
        assert not {"livenessProbe", "startupProbe"} & container.keys()
        assert ("readinessProbe" in container) is (document["kind"] == "DaemonSet")


def test_the_monitor_finds_both_and_no_policy_blocks_other_ranks() -> None:
    (expression,) = manifest("podmonitor.yaml")["spec"]["selector"]["matchExpressions"]
    (endpoint,) = manifest("podmonitor.yaml")["spec"]["podMetricsEndpoints"]
    policy = manifest("networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"]
    for name in ("daemonset.yaml", "job-with-sidecar.yaml"):
        labels = pod_of(manifest(name))["metadata"]["labels"]
        assert labels[expression["key"]] in expression["values"]
        assert endpoint["port"] in [port["name"] for port in flopsd_of(manifest(name))["ports"]]
        assert (policy.items() <= labels.items()) is (name == "daemonset.yaml")


def test_chart_and_package_versions_match() -> None:
    (chart,) = documents((CHART / "Chart.yaml").read_text())
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert {chart["version"], chart["appVersion"]} == {version}
    assert f"ARG VERSION={version}\n" in (ROOT / "Containerfile").read_text()
    (needed,) = documents((TRAINING_CHART / "Chart.yaml").read_text())[0]["dependencies"]
    assert needed["version"] == version
    for name in ("daemonset.yaml", "job-with-sidecar.yaml"):
        assert flopsd_of(manifest(name))["image"] == f"{IMAGE['repository']}:{version}"
