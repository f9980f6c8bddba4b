"""docs/kubernetes.md and docs/container.md: what they name is there, and what they show is what the files say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from flopsd.settings.schema import SETTINGS
from flopsd.sources.registry import known_sources
from tests.support.foreign import shell
from tests.support.image import default_of
from tests.support.independent import payload_of
from tests.support.kubernetes import CHART, ROOT, TRAINING_CHART, flopsd_of, manifest, variables
from tests.support.process import environment, flopsd
from tests.support.scenario import Scenario, Segment, h100

PAGES = {name: (ROOT / "docs" / name).read_text() for name in ("kubernetes.md", "container.md")}


def test_the_template_that_the_page_shows_is_the_one_that_is_tested() -> None:
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", PAGES["kubernetes.md"], re.DOTALL | re.MULTILINE)
    assert shown in (TRAINING_CHART / "templates" / "job.yaml").read_text()
    defined = set(re.findall(r'define "(flopsd\.\w+)"', (CHART / "templates" / "_sidecar.tpl").read_text()))
    assert set(re.findall(r'include "(flopsd\.\w+)"', shown)) == defined


def test_every_name_on_the_pages_is_known() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    variables = {setting.variable for setting in (*SETTINGS, *known_sources().settings)} | {"FLOPSD_SOCKET"}
    for name, page in PAGES.items():
        assert f"docs/{name}" in (ROOT / "README.md").read_text()
        assert set(re.findall(r"FLOPSD_[A-Z_]+[A-Z]", page)) <= variables
        for group, key in re.findall(
            r"(?<![\w/.-])(sidecar|daemonset|gpu|key|ledgerCopy|serviceAccount)\.(?!pem|yaml)(\w+)", page
        ):
            assert key in schema[group]["properties"], f"{group}.{key}"
        for block in re.findall(r"^    (sidecar:\n(?:      .*\n)+)", page, re.MULTILINE):
            for group, told in yaml.safe_load(block.replace("\n    ", "\n")).items():
                assert set(told) <= set(schema[group]["properties"])


def test_figures_of_the_page_are_those_of_the_files() -> None:
    limits = flopsd_of(manifest("job-with-sidecar.yaml"))["resources"]["limits"]
    assert f"Limits of {limits['cpu']}, {limits['memory']}" in PAGES["kubernetes.md"]
    assert f"base `{default_of('BASE')}`" in PAGES["container.md"]
    assert f"extras `{default_of('EXTRAS')}`" in PAGES["container.md"]


def test_two_pods_ledgers_become_the_jobs_by_the_commands_of_the_page(tmp_path: Path, standin: Path) -> None:
    """As they stand there, on what the manifest's pods would leave in the bucket: a local place stands for it."""
    (merge,) = re.findall(r"^ +flopsd (merge .*)$", PAGES["kubernetes.md"], re.MULTILINE)
    (verify,) = re.findall(r"^ +flopsd (verify .*)$", PAGES["kubernetes.md"], re.MULTILINE)
    job = manifest("job-with-sidecar.yaml")
    assert f"--nodes {job['spec']['completions']}" in merge
    scenario = Scenario(tuple(h100((Segment(1000, hmma=0.5, util=100, watts=500),)) for _ in range(2)))
    scenario.write(tmp_path / "scenario.txt")
    assert flopsd("key", "new", str(tmp_path / "key.pem")).returncode == 0
    for rank in range(2):
        pod = {"metadata.name": f"llama-finetune-{rank}-abcde", "metadata.namespace": "ml",
               "metadata.labels['batch.kubernetes.io/job-name']": "llama-finetune",
               "metadata.labels['batch.kubernetes.io/controller-uid']": "0b1f5c1e-9a52-4d0e"}  # fmt: skip
        told = {
            **variables(flopsd_of(job), pod),
            "JOB_COMPLETION_INDEX": str(rank),
            "FLOPSD_DEVICES": scenario.uuid(rank),  # each its own node's
            "FLOPSD_KEY": str(tmp_path / "key.pem"),
            "FLOPSD_STATE_DIR": str(tmp_path / f"state-{rank}"),
            "FLOPSD_CLIENT_SOCKET": str(tmp_path / "socket"),
            "FLOPSD_LISTEN": "off",
            "FLOPSD_EVIDENCE": "off",
        }
        place = told["FLOPSD_LEDGER_COPY"].replace("s3://your-bucket/flopsd/{run}", str(tmp_path / "ledgers"))
        told["FLOPSD_LEDGER_COPY"] = place
        done = flopsd("run", "--duration", "1.5", env=environment(standin, tmp_path / "scenario.txt", **told))
        assert done.returncode == 0, done.stderr
    merged = shell(f"set -e\nflopsd {merge}\nflopsd {verify}\n", tmp_path)
    assert merged.returncode == 0, merged.stdout + merged.stderr
    found = payload_of(tmp_path / "job.json")["predicate"]
    assert (found["run"]["id"], found["completeness"]["complete"]) == ("llama-finetune-0b1f5c1e", True)
    (tmp_path / "ledgers" / "llama-finetune-0-abcde.json").unlink()
    alone = shell(f"flopsd {merge.replace('job.json', 'half.json')}", tmp_path)
    assert alone.returncode != 0
    assert "rank 0: no ledger" in alone.stdout + alone.stderr
