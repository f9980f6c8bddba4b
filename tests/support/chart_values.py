"""Values of the chart for tests: each group of them is set at least once."""

from pathlib import Path
from typing import Any

import yaml

from tests.support.kubernetes import CHART, IMAGE, TRAINING_CHART, Document, of_kind, render, training_chart

KEYED: dict[str, Any] = {
    "key": {"secretName": "flopsd-key"},
    "ledgerCopy": {"node": "s3://your-bucket/flopsd/nodes/{node}/$(POD_NAME).json"},
}
ALL: dict[str, Any] = {"podMonitor": {"enabled": True}, "networkPolicy": {"enabled": True}, **KEYED}
MIG: dict[str, Any] = {"gpu": {"migMonitor": True, "visibility": "volume-mounts"}}
SCRAPER = {part: {"name": "flopsd-scrape", "key": part} for part in ("username", "password")}
WEB: dict[str, Any] = {
    "web": {"secretName": "flopsd-web", "tls": True, "passwords": True},
    "podMonitor": {
        "enabled": True,
        "namespace": "monitoring",
        "labels": {"release": "kube-prometheus-stack"},
        "annotations": {"a.example/b": "c"},
        "meters": ["node"],
        "namespaces": ["flopsd"],
        "podTargetLabels": ["kueue.x-k8s.io/queue-name"],
        "attachMetadata": {"node": True},
        "interval": "30s",
        "scrapeTimeout": "500ms",
        "tlsConfig": {"ca": {"secret": {"name": "ca", "key": "ca.crt"}}, "serverName": "flopsd", "minVersion": "TLS13"},
        "basicAuth": SCRAPER,
        "relabelings": [{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "host", "action": "replace"}],
        "metricRelabelings": [{"sourceLabels": ["__name__"], "regex": "python_.*", "action": "drop"}],
    },
}  # fmt: skip
RULES: dict[str, Any] = {
    "prometheusRule": {"enabled": True, "namespace": "monitoring", "labels": {"release": "kube-prometheus-stack"},
                       "annotations": {"a.example/b": "c"}, "disabledAlerts": ["FlopsdThresholdNotExcluded"],
                       "alertLabels": {"team": "ml"}, "links": {"docs": "https://docs.example.com/flopsd/", "grafana": ""}},
    "dashboards": {"enabled": True, "namespace": "monitoring", "labels": {"grafana_dashboard": "1"},
                   "annotations": {"grafana_folder": "flopsd"}},
}  # fmt: skip
POD: dict[str, Any] = {
    "nameOverride": "meter", "fullnameOverride": "gpu-meter", "namespaceOverride": "metering",
    "commonLabels": {"team": "ml"}, "commonAnnotations": {"a.example/owner": "ml"},
    "podLabels": {"team": "pods"}, "podAnnotations": {"a.example/scrape": "true"},
    "daemonset": {"annotations": {"a.example/d": "e"}, "revisionHistoryLimit": 3},
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/flopsd"}},
    "extraArgs": ["--config=/etc/flopsd/extra/flopsd.yaml", "-q"],
    "extraEnv": [{"name": "REGION", "value": "eu-central-1"},
                 {"name": "FLOPSD_PUSH_AUTH", "valueFrom": {"secretKeyRef": {"name": "push", "key": "auth"}}}],
    "envFrom": [{"secretRef": {"name": "more", "optional": True}}, {"prefix": "AWS_", "configMapRef": {"name": "aws"}}],
    "extraVolumes": [{"name": "extra", "configMap": {"name": "flopsd-extra"}}],
    "extraVolumeMounts": [{"name": "extra", "mountPath": "/etc/flopsd/extra", "readOnly": True}],
    "settings": {"push": "otlp+https://otlp.$(REGION).example.com/v1/metrics"},
    "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}},
    "terminationGracePeriodSeconds": 120, "priorityClassName": "system-cluster-critical",
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]}}},
    "tolerations": [{"operator": "Exists"}, {"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute",
                                             "tolerationSeconds": 60}],
    "hostNetwork": True, "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["10.0.0.2"], "searches": ["example.com"], "options": [{"name": "ndots", "value": "2"}]},
    "podSecurityContext": {"seLinuxOptions": {"type": "spc_t"}, "supplementalGroups": [44]},
    "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"cpu": 1, "memory": "1Gi"}},
    "imagePullSecrets": [{"name": "pull"}], "image": {**IMAGE, "pullPolicy": "Always"},
}  # fmt: skip
VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "all": ALL,
    "mig": {**ALL, **MIG},
    "kms, no runtime class": {
        "key": {"uri": "awskms:alias/flopsd"},
        "gpu": {"runtimeClassName": ""},
        "image": {"repository": "localhost:5000/flopsd", "digest": "sha256:" + 64 * "0"},
        "listen": "[::]:9999",
        "sourceOptions": {"dcgm-url": "http://127.0.0.1:9400/metrics", "dcgm-interval": 10},
        "settings": {"precision": "bf16:0.9,fp8:0.1", "seal-every": 300, "base-systemic": False, "evidence": False},
        "priorityClassName": "", "nodeSelector": {"nvidia.com/gpu.present": None}, "tolerations": [],
        "updateStrategy": {"type": "OnDelete"},
    },
    "web": WEB,
    "rules": RULES,
    "pod": POD,
    **{name: yaml.safe_load((CHART / name).read_text()) for name in ("values-eks.yaml", "values-hyperpod-eks.yaml")},
}  # fmt: skip
SIDECARS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "whole nodes": {"sidecar": {"devices": "all", "clientUids": [1000, 1001], "instanceType": "ml.p5.48xlarge"}},
    "mig": MIG,
    "volume mounts": {"sidecar": {"devices": "all"}, "gpu": {"visibility": "volume-mounts"}},
    "pod": {name: POD[name] for name in ("extraArgs", "extraEnv", "envFrom", "extraVolumes", "extraVolumeMounts", "image",
                                        "settings")},
    "PyTorchJob": {"sidecar": {"jobLabels": {"name": "training.kubeflow.org/job-name", "uid": ""},
                               "indexLabel": "training.kubeflow.org/replica-index"}},
}  # fmt: skip


def job_of(folder: Path, values: dict[str, Any]) -> Document:
    """The training chart's Job, with flopsd beside the training container."""
    chart = training_chart(folder)
    given: dict[str, Any] = yaml.safe_load((TRAINING_CHART / "values.yaml").read_text())
    given["flopsd"].update(values)
    return of_kind("Job", render(given, chart, "ml"))
