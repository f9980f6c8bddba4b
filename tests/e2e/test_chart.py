"""The values of the chart: the manifests that each group gives, and the values that are refused."""

import importlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from flopsd.settings.schema import SETTINGS
from tests.support.chart_values import POD, RULES, SIDECARS, VALUES, WEB, job_of
from tests.support.kubernetes import (
    CHART,
    FIELDS,
    IMAGE,
    PACKAGES,
    ROOT,
    complaints,
    containers,
    flopsd_of,
    of_kind,
    pod_of,
    render,
    variables,
)

pytestmark = [pytest.mark.package(*PACKAGES), pytest.mark.xdist_group("kubernetes")]
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
EVERYTHING = {**POD, **WEB, **RULES}


def test_every_group_of_values_is_valid_for_every_kubernetes_version() -> None:
    without = {name: value for name, value in EVERYTHING.items() if name != "hostNetwork"}
    made = [*render(EVERYTHING), of_kind("NetworkPolicy", render({**without, "networkPolicy": {"enabled": True}}))]
    kinds = {"DaemonSet", "ServiceAccount", "PodMonitor", "PrometheusRule", "ConfigMap", "NetworkPolicy"}
    assert {document["kind"] for document in made} == kinds
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    recommended = {"name": "meter", "instance": "flopsd", "version": chart["appVersion"], "managed-by": "Helm"}
    labels = {**{f"app.kubernetes.io/{name}": value for name, value in recommended.items()},
              "helm.sh/chart": f"flopsd-{chart['version']}", "team": "ml"}  # fmt: skip
    for document in made:
        assert complaints(document) == [], document["kind"]
        assert labels.items() <= document["metadata"]["labels"].items()
        annotations = document["metadata"]["annotations"]
        assert annotations["a.example/owner"] == "ml"
        assert document["metadata"]["name"].startswith("gpu-meter")
        monitoring = document["kind"] in ("PodMonitor", "PrometheusRule", "ConfigMap")
        assert document["metadata"]["namespace"] == ("monitoring" if monitoring else "metering")
    used = {name for values in (*VALUES.values(), *SIDECARS.values()) for name in values}
    assert set(SCHEMA["properties"]) - used == {"enabled", "global", "stopWithinSeconds"}


def test_each_value_appears_where_kubernetes_reads_it(tmp_path: Path) -> None:
    made = render({**POD, "fullnameOverride": ""})
    daemonset = of_kind("DaemonSet", made)
    template, spec = pod_of(daemonset), pod_of(daemonset)["spec"]
    assert daemonset["metadata"]["name"] == "flopsd-meter"  # the release and nameOverride
    assert daemonset["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert template["metadata"]["labels"]["team"] == "pods"
    assert template["metadata"]["annotations"] == POD["podAnnotations"]
    assert daemonset["spec"]["updateStrategy"] == POD["updateStrategy"]
    assert daemonset["spec"]["revisionHistoryLimit"] == 3
    for name in ("affinity", "tolerations", "hostNetwork", "dnsPolicy", "dnsConfig", "priorityClassName",
                 "terminationGracePeriodSeconds", "imagePullSecrets"):  # fmt: skip
        assert spec[name] == POD[name], name
    assert spec["securityContext"] == POD["podSecurityContext"]
    for account in (spec, of_kind("ServiceAccount", made)):
        assert account["automountServiceAccountToken"] is False
    container = flopsd_of(daemonset)
    port = {"name": "flopsd", "containerPort": 10188, "protocol": "TCP"}
    assert container["ports"] == [{**port, "hostPort": 10188}]
    assert container["resources"] == POD["resources"]
    of_trainium = {"clientUids": [1000710000, 1000000], "instanceType": "ml.trn1.32xlarge"}
    job = job_of(tmp_path / "chart", {**SIDECARS["pod"], "web": WEB["web"], "sidecar": of_trainium})
    for document in (daemonset, job):
        found = flopsd_of(document)
        assert found["args"] == ["run", *POD["extraArgs"]]
        assert (found["envFrom"], found["imagePullPolicy"]) == (POD["envFrom"], "Always")
        assert POD["extraVolumeMounts"][0] in found["volumeMounts"]
        assert POD["extraVolumes"][0] in pod_of(document)["spec"]["volumes"]
    assert flopsd_of(job)["ports"] == [port]
    assert {"name": "flopsd-web", "mountPath": "/etc/flopsd/web", "readOnly": True} in flopsd_of(job)["volumeMounts"]
    shown = variables(flopsd_of(job), FIELDS)
    assert (shown["FLOPSD_CLIENT_UIDS"], shown["INSTANCE_TYPE"]) == ("1000710000,1000000", "ml.trn1.32xlarge")
    assert [entry["name"] for entry in container["env"]][3:5] == ["REGION", "FLOPSD_PUSH_AUTH"]
    (push,) = [entry["value"] for entry in container["env"] if entry["name"] == "FLOPSD_PUSH"]
    filled = variables(container, FIELDS)
    assert filled["FLOPSD_PUSH"] == push.replace("$(REGION)", "eu-central-1")
    digest = VALUES["kms, no runtime class"]["image"]
    (plain,) = render({"image": digest, "serviceAccount": {"create": False}})
    assert flopsd_of(plain)["image"] == f"localhost:5000/flopsd@{digest['digest']}"
    assert pod_of(plain)["spec"]["serviceAccountName"] == "default"
    host = of_kind("DaemonSet", render({"hostNetwork": True, "nameOverride": "123"}))
    assert host["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] == "123"
    assert pod_of(host)["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet"
    odd = {"key": {"secretName": "123"}, "gpu": {"runtimeClassName": "true"}, "serviceAccount": {"name": "0"},
           "priorityClassName": "null", "daemonset": {"stateHostPath": "/var/lib/a #b"}, **WEB,
           "settings": {"timestamp-url": "http://tsa/$(POD_NAME)"},
           "resources": {"requests": {"cpu": 0.5, "memory": "524288Ki"}, "limits": {"cpu": 0.5, "memory": "1e9"}}}  # fmt: skip
    document = of_kind("DaemonSet", render(odd))
    spec, container = pod_of(document)["spec"], flopsd_of(document)
    assert not complaints(document)
    assert (spec["priorityClassName"], spec["runtimeClassName"], spec["serviceAccountName"]) == ("null", "true", "0")
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["flopsd-state"]["hostPath"]["path"] == "/var/lib/a #b"
    secrets = [volumes[name]["secret"]["secretName"] for name in ("flopsd-key", "flopsd-web")]
    assert secrets == ["123", "flopsd-web"]
    assert variables(container, FIELDS)["FLOPSD_WEB_CONFIG_FILE"] == "/etc/flopsd/web/web-config.yml"
    assert container["readinessProbe"].get("tcpSocket") == {"port": "flopsd"}, "a probe knows no password"


def test_a_monitor_follows_the_web_configuration_and_alerts_find_its_job() -> None:
    monitor, stated = of_kind("PodMonitor", render(WEB)), WEB["podMonitor"]
    for name in ("labels", "annotations"):
        assert stated[name].items() <= monitor["metadata"][name].items()
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": stated["namespaces"]}
    assert monitor["spec"]["selector"]["matchExpressions"][0]["values"] == stated["meters"]
    for name in ("podTargetLabels", "attachMetadata"):
        assert monitor["spec"][name] == stated[name], name
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["scheme"] == "https"
    for name in ("interval", "scrapeTimeout", "tlsConfig", "basicAuth", "relabelings", "metricRelabelings"):
        assert endpoint[name] == stated[name], name
    (alone,) = re.findall(r'up\{job=~"([^"]+)"\}', (CHART / "files" / "flopsd.rules.yml").read_text())
    few = {"enabled": True, "relabelings": stated["relabelings"]}
    plain = of_kind("PodMonitor", render({"podMonitor": few, "fullnameOverride": "gpu-meter"}))
    assert plain["spec"].keys() == {"namespaceSelector", "selector", "podMetricsEndpoints"}
    assert plain["spec"]["namespaceSelector"] == {"any": True}
    (endpoint,) = plain["spec"]["podMetricsEndpoints"]
    assert endpoint.keys() == {"port", "path", "interval", "scrapeTimeout", "relabelings"}
    assert endpoint["relabelings"][1:] == stated["relabelings"]
    for each in (monitor, plain):
        job = f"{each['metadata']['namespace']}/{each['metadata']['name']}"  # the operator's
        for relabeling in each["spec"]["podMetricsEndpoints"][0]["relabelings"]:
            job = relabeling["replacement"] if relabeling.get("targetLabel") == "job" else job
        assert re.fullmatch(alone, job), job


def test_rules_and_dashboards_equal_those_of_config(tmp_path: Path) -> None:
    """They have one source, also in the archive that `helm package` makes."""
    helm = importlib.import_module("helm_python")
    with helm.Chart.load(CHART) as loaded:
        archive = Path(loaded.save(tmp_path))
    made = render({"image": IMAGE, **RULES}, archive)
    assert made == render(RULES)
    shutil.copytree(CHART, tmp_path / "flopsd", ignore=shutil.ignore_patterns("files"))
    with pytest.raises(helm.HelmError, match=r"files/flopsd\.rules\.yml is missing: it is a symbolic link"):
        render({"image": IMAGE, **RULES}, tmp_path / "flopsd")
    rule = of_kind("PrometheusRule", made)
    kept = {group["name"]: group["rules"] for group in rule["spec"]["groups"]}
    links = {"docs": "https://docs.example.com/flopsd", "grafana": "https://grafana.example.org"}
    for name in ("flopsd.rules.yml", "flopsd.alerts.yml"):
        for group in yaml.safe_load((ROOT / "config" / "prometheus" / name).read_text())["groups"]:
            wanted = [each for each in group["rules"] if each.get("alert") != "FlopsdThresholdNotExcluded"]
            for each in wanted:
                if "alert" in each:
                    each["labels"]["team"] = "ml"
                elif each["record"] == "flopsd_links":
                    each["labels"] = links
            assert kept.pop(group["name"]) == wanted, group["name"]
    assert not kept
    boards = {
        name: text for document in made if document["kind"] == "ConfigMap" for name, text in document["data"].items()
    }
    assert {name: json.loads(text) for name, text in boards.items()} == {
        path.name: json.loads(path.read_text()) for path in (ROOT / "config" / "grafana").glob("*.json")
    }


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"image": {"repository": ""}}, "image.repository is required"),
    ({"image": {"repository": "registry.example.com/flopsd:1"}}, "repository"),
    ({"deamonset": {}}, "deamonset"),
    ({"settings": {"precison": "bf16"}}, "precison"),
    ({"settings": {"state-dir": "/x"}}, "state-dir"),  # the chart's own
    ({"settings": {"dcgm-url": "http://a:1/"}}, "dcgm-url"),  # belongs in sourceOptions
    ({"settings": {"interval": "abc"}}, "interval"),
    ({"settings": {"seal-every": 1200000}}, "seal-every"),  # rendered as 1.2e+06
    ({"settings": {"base-flop": 7.2e23}}, "base-flop"),
    ({"sourceOptions": {"x-y": 1200000}}, "x-y"),
    ({"sourceOptions": {"DCGM_URL": "http://a:1/"}}, "DCGM_URL"),
    ({"extraArgs": ["--state-dir=/x"]}, "--state-dir is made from other values"),
    ({"extraArgs": ["--no-seal"], "settings": {"seal": True}}, "--seal is among settings"),
    ({"extraArgs": ["precision"]}, "extraArgs"),
    ({"extraEnv": [{"name": "FLOPSD_LISTEN", "value": "[::]:1"}]}, "FLOPSD_LISTEN is set by other values"),
    ({"extraVolumes": [{"name": "flopsd-state", "emptyDir": {}}]}, "extraVolumes"),
    ({"ledgerCopy": {"node": "s3://bucket/$(POD_NAME).json"}}, "ledgerCopy/node"),
    ({"ledgerCopy": {"node": "s3://bucket/{node}.json s3://other/ledger.json"}}, "ledgerCopy/node"),
    ({"ledgerCopy": {"sidecar": "s3://bucket/{run}.json"}}, "ledgerCopy/sidecar"),
    ({"key": {"uri": "s3://x"}}, "uri"),
    ({"key": {"secretName": "flopsd-key", "uri": "awskms:alias/flopsd"}}, "key/uri"),
    ({"sidecar": {"devices": "visible"}}, "devices"),
    ({"listen": "10188"}, "listen"),
    ({"listen": "0.0.0.0:65536"}, "listen"),
    ({"resources": {"limits": {"memory": "5ki"}}}, "memory"),
    ({"resources": {"limits": {"memory": "."}}}, "memory"),
    ({"resources": {"limits": {"memory": 1000000000}}}, "memory"),
    ({"terminationGracePeriodSeconds": 65}, "10 s longer"),
    ({"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}, "maxSurge"),
    ({"commonLabels": {"flopsd/meter": "node"}}, "flopsd/meter"),
    ({"podLabels": {"app.kubernetes.io/name": "x"}}, "app.kubernetes.io/name"),
    ({"podAnnotations": {"a": 1}}, "podAnnotations/a"),
    ({"hostNetwork": True, "networkPolicy": {"enabled": True}}, "does not apply to pods on the host's network"),
    ({"dnsPolicy": "None"}, "dnsConfig.nameservers"),
    ({"serviceAccount": {"create": False, "annotations": {"a": "b"}}}, "serviceAccount.annotations"),
    ({"web": {"tls": True}}, "web.secretName"),
    ({"podMonitor": {"interval": "abc"}}, "interval"),
    ({"podMonitor": {"enabled": True, "interval": "5s"}}, "longer than podMonitor.interval"),
    ({**WEB, "podMonitor": {"enabled": True}}, "answered 401"),
    ({**WEB, "podMonitor": {"enabled": True}}, "no certificate is for the addresses of pods"),
    ({"settings": {"ledger": "s3://bucket/ledger.json"}}, "settings/ledger"),
    ({"podMonitor": WEB["podMonitor"]}, "plain HTTP"),
    ({"podMonitor": WEB["podMonitor"]}, "nobody would ask for the password"),
    ({"prometheusRule": {"enabled": True, "disabledAlerts": ["FlopsdGone"]}}, "no alert FlopsdGone"),
)  # fmt: skip


def test_contradictory_and_unknown_values_are_refused_by_name() -> None:
    helm = importlib.import_module("helm_python")
    for wrong, named in REFUSED:
        with pytest.raises(helm.HelmError, match=re.escape(named)):
            render(wrong)


PROBES = ("abc", "5", "1.5", "15s", "off", "unknown", "undeclared", "train", "lora", "full", "stderr", "http://a/x", "-1", "",
          5, 1.5, True, False)  # fmt: skip


def test_the_schema_accepts_the_same_setting_values_as_flopsd() -> None:
    checks = SCHEMA["properties"]["settings"]["properties"]
    by_flag = {setting.flag.removeprefix("--"): setting for setting in SETTINGS}
    compared = 0
    for probe in PROBES:
        taken: dict[str, Any] = {}
        for flag, check in checks.items():
            is_text = check == {"$ref": "#/definitions/text"}  # only flopsd checks its form
            if Draft7Validator({**check, "definitions": SCHEMA["definitions"]}).is_valid(probe):
                taken |= {} if is_text else {flag: probe}
            elif isinstance(probe, str) and not is_text and flag != "ledger":  # no bucket is allowed here
                with pytest.raises(ValueError):  # noqa: PT011  its message is each parser's own
                    by_flag[flag].parse(probe)
        seen = variables(flopsd_of(of_kind("DaemonSet", render({"settings": taken}))), FIELDS)
        for flag in taken:
            by_flag[flag].parse(seen[by_flag[flag].variable])
        compared += len(taken)
    assert compared > 40


def test_the_schema_has_every_setting_and_the_values_every_key() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    flags = {setting.flag.removeprefix("--") for setting in SETTINGS}
    templates = "".join(path.read_text() for path in sorted((CHART / "templates").iterdir()))
    own = {name.lower().replace("_", "-") for name in re.findall(r"name: FLOPSD_([A-Z_]+)$", templates, re.MULTILINE)}
    own -= {"socket"}  # the trainer's
    # A pod has no end of its own, the window is exec's, and pods are discovered.
    senseless = {"duration", "stop-window", "file-sd"}
    assert set(SCHEMA["properties"]["settings"]["properties"]) == flags - own - senseless
    (refused,) = re.findall(r"\$own := list (.*) }}", templates)
    assert set(re.findall(r'"([a-z-]+)"', refused)) == own
    assert set(SCHEMA["properties"]) - {"enabled", "global"} == set(values)
    for name, below in SCHEMA["properties"].items():
        if values.get(name) and below.get("additionalProperties") is False:
            assert set(below["properties"]) == set(values[name]), name


def test_the_presets_select_the_nodes_that_they_name() -> None:
    """As a scheduler reads them: labels that such a node has, its taints, and no class that it lacks."""
    unhealthy = {"key": "sagemaker.amazonaws.com/node-health-status", "operator": "Equal", "value": "Unschedulable",
                 "effect": "NoSchedule"}  # fmt: skip
    devices = [
        {"key": name, "operator": "Exists", "effect": "NoSchedule"}
        for name in ("nvidia.com/gpu", "aws.amazon.com/neuron")
    ]
    table = yaml.safe_load((ROOT / "config" / "peaks.yaml").read_text())["sagemaker_instances"]
    types = {"values-eks.yaml": [name.removeprefix("ml.") for name in table],
             "values-hyperpod-eks.yaml": [name for name, stated in table.items() if "C" in stated["in"]]}  # fmt: skip
    cases: tuple[tuple[str, list[dict[str, str]], list[dict[str, str]], list[dict[str, str]]], ...] = (
        ("values-eks.yaml",
         [{"node.kubernetes.io/instance-type": "p5.48xlarge"}, {"nvidia.com/gpu.present": "true"},
          {"eks.amazonaws.com/instance-gpu-manufacturer": "nvidia"}],
         [{"node.kubernetes.io/instance-type": "m7i.large"}, {}], devices),
        ("values-hyperpod-eks.yaml", [{"node.kubernetes.io/instance-type": "ml.p5.48xlarge"}],
         [{"node.kubernetes.io/instance-type": "ml.m5.large"}], [*devices, unhealthy]),
    )  # fmt: skip
    assert [preset for preset, *_ in cases] == sorted(path.name for path in CHART.glob("values-*.yaml"))
    for preset, metered, not_metered, tolerated in cases:
        spec = pod_of(of_kind("DaemonSet", render(VALUES[preset])))["spec"]
        assert not {"runtimeClassName", "nodeSelector"} & spec.keys()
        assert spec["tolerations"] == tolerated
        terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        for labels, expected in [*((one, True) for one in metered), *((one, False) for one in not_metered)]:
            found = any(
                all(labels.get(each["key"]) in each["values"] for each in term["matchExpressions"]) for term in terms
            )
            assert found is expected, (preset, labels)
        assert terms[-1]["matchExpressions"][0]["values"] == types[preset]
    assert all(container["name"] == "flopsd" for container in containers(of_kind("DaemonSet", render())))
