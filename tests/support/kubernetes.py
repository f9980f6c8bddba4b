"""Manifests and the chart as a cluster takes them: rendered by Helm, checked against the API's schemas, and started as
a kubelet would.

Helm and the schemas are Python packages: `pytest.mark.package` names those that a test needs.
"""

import importlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "config" / "kubernetes"
CHART = ROOT / "config" / "helm" / "flopsd"
TRAINING_CHART = ROOT / "tests" / "support" / "training-chart"
PACKAGES = ("helm_python", "kubernetes_validate", "cloudcoil.models.prometheus_operator")
VERSIONS = tuple(f"1.{minor}" for minor in range(29, 38))  # from the first with native sidecars to the newest known
IMAGE = {"repository": "registry.example.com/flopsd"}  # a value that must be given; the manifests have the same
Document = dict[str, Any]
# Fields of a pod that the downward API provides.
FIELDS = {
    "metadata.name": "llama-finetune-1-abcde",
    "metadata.namespace": "ml",
    "spec.nodeName": "ip-10-0-0-7.ec2.internal",
    "metadata.labels['batch.kubernetes.io/job-name']": "llama-finetune",
    "metadata.labels['batch.kubernetes.io/controller-uid']": "0b1f5c1e-9a52-4d0e-8f1a-6a2f5a4f0c11",
    "metadata.labels['training.kubeflow.org/job-name']": "llama-finetune",
    "metadata.labels['training.kubeflow.org/replica-index']": "1",
}


def documents(text: str) -> list[Document]:
    return [document for document in yaml.safe_load_all(text) if document]


def manifest(name: str) -> Document:
    (document,) = documents((MANIFESTS / name).read_text())
    return document


def render_texts(values: Mapping[str, Any], chart: Path = CHART, namespace: str = "flopsd") -> dict[str, str]:
    """Helm's output for a chart, by the name of the template. Raises helm_python's HelmError."""
    helm = importlib.import_module("helm_python")
    with helm.Chart.load(chart) as loaded:
        loaded.validate_schema(dict(values))
        made: dict[str, str] = loaded.render(values=dict(values), name="flopsd", namespace=namespace)
    return made


def render(values: Mapping[str, Any] | None = None, chart: Path = CHART, namespace: str = "flopsd") -> list[Document]:
    """The rendered documents. Our own chart gets an image where none is given."""
    given = {**({"image": IMAGE} if chart == CHART else {}), **(values or {})}
    made = sorted(render_texts(given, chart, namespace).items())
    return [document for name, text in made if name.endswith(".yaml") for document in documents(text)]


def training_chart(folder: Path) -> Path:
    """A chart with a training job that depends on ours, as its owner has it after `helm dependency build`."""
    shutil.copytree(TRAINING_CHART, folder)
    shutil.copytree(CHART, folder / "charts" / "flopsd")
    return folder


def of_kind(kind: str, among: Sequence[Document]) -> Document:
    (found,) = [document for document in among if document["kind"] == kind]
    return found


def complaints(document: Document) -> list[str]:
    """The faults, unknown fields included, for which the API servers of VERSIONS would refuse the document; for
    CRDs, the fields that the operator's models do not know."""
    group = document["apiVersion"].partition("/")
    if group[0] == "monitoring.coreos.com":
        return _complaints_of_operator(document)
    api = f"{group[0].partition('.')[0]}-{group[2]}" if group[1] else group[0]  # apps/v1 is apps-v1
    return [
        f"{version}: {'/'.join(map(str, fault.path))}: {fault.message}"
        for version in VERSIONS
        for fault in _validator(version, f"{document['kind'].lower()}-{api}").iter_errors(document)
    ]


@cache
def _validator(version: str, name: str) -> Draft202012Validator:
    """kubernetes_validate's own function reads two megabytes of definitions for each document."""
    schema = json.loads((_folder(version) / f"{name}.json").read_text())
    return Draft202012Validator(schema, registry=_definitions(version))


@cache
def _definitions(version: str) -> Registry[Any]:
    definitions = json.loads((_folder(version) / "_definitions.json").read_text())
    return Resource.from_contents(definitions) @ Registry()


def _folder(version: str) -> Path:
    package = Path(str(importlib.import_module("kubernetes_validate").__file__)).parent
    return package / "kubernetes-json-schema" / f"v{version}.0-local-strict"


def _complaints_of_operator(document: Document) -> list[str]:
    """The models drop unknown fields, so their output is compared with the input."""
    models = importlib.import_module("cloudcoil.models.prometheus_operator.v1")
    try:
        model = getattr(models, document["kind"]).model_validate(document)
    except ValueError as fault:
        return [str(fault)]
    again = model.model_dump(by_alias=True, exclude_unset=True, mode="json")
    return [] if again == document else [f"unknown fields: {document} became {again}"]


def pod_of(document: Document) -> Document:
    template: Document = document["spec"]["template"]
    return template


def containers(document: Document) -> Iterator[Document]:
    spec = pod_of(document)["spec"]
    yield from spec.get("initContainers", ())
    yield from spec["containers"]


def flopsd_of(document: Document) -> Document:
    (found,) = [container for container in containers(document) if container["name"] == "flopsd"]
    return found


def variables(container: Document, fields: Mapping[str, str]) -> dict[str, str]:
    """The container's environment as a kubelet makes it; `fields` are the pod's fields from the downward API."""
    made: dict[str, str] = {"KUBERNETES_SERVICE_HOST": "10.100.0.1"}
    for entry in container["env"]:
        assert entry["name"] not in made, f"{entry['name']} is there twice"
        if "secretKeyRef" in entry.get("valueFrom", {}):
            made[entry["name"]] = "secret"
        elif "valueFrom" in entry:
            path = entry["valueFrom"]["fieldRef"]["fieldPath"]
            assert path in fields or path.startswith("metadata.labels["), f"{path}: the downward API has none"
            made[entry["name"]] = fields.get(path, "")
        else:
            made[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda name: made.get(name[1], name[0]), entry["value"])
    assert "$(" not in str(made), "a variable is made of one that comes after it"
    return made


def without_helm(document: Document) -> Document:
    """The document as written by hand: without the labels of releases, and with defaults for the rest."""
    plain = deepcopy(document)
    _drop(plain, ("helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version", "app.kubernetes.io/instance",
                  "imagePullPolicy", "revisionHistoryLimit", "serviceAccountName"))  # fmt: skip
    return plain


def _drop(value: Any, names: Sequence[str]) -> None:
    if isinstance(value, dict):
        for name in names:
            value.pop(name, None)
        for inner in value.values():
            _drop(inner, names)
    elif isinstance(value, list):
        for inner in value:
            _drop(inner, names)
