"""Every command of README.md and docs/*.md, and how it is tested. A command that no table names fails a test.

`commands` finds them in a page: in blocks of shell, and in lines of other blocks that begin with a program.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.paths import ROOT

PAGES = {
    "README.md": (ROOT / "README.md").read_text(encoding="utf-8"),
    **{page.name: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md"))},
}
PROGRAMS = frozenset((
    "flopsd", "python", "python3", "pip", "make", "docker", "podman", "kubectl", "helm", "aws", "cp", "ln", "install",
    "srun", "sbatch", "systemctl", "journalctl", "openssl", "jq", "cosign", "curl", "find", "sha256sum", "sed", "sh",
    "bash", "pytest", "pkcs11-tool", "promtool", "otelcol", "mkdir", "cat", "echo", "tar", "sudo",
))  # fmt: skip
_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?<=\n\n)((?: {4}.*\n|\n)+)")
_INLINE = re.compile(r"(?<!`)`(flopsd [^`]+)`(?!`)")
_SHELLS = ("sh", "bash")
_ASSIGNED = re.compile(r"^(?:\w+=\S*\s+)*\w+=\S*$")


def commands(page: str) -> list[str]:
    """The commands of a page, in order. Continued lines are joined, comments are left out, and assignments go with
    the command after them. A block with a here-document is one command, named by its first line."""
    found = [
        line
        for kind, text in _blocks(page)
        if kind in ("", *_SHELLS)
        for line in _commands(text, is_shell=kind in _SHELLS)
    ]
    return list(dict.fromkeys(found))


def outputs(page: str) -> dict[str, str]:
    """The output that the page shows for a command: a text block that follows a block with only that command."""
    found, before = {}, list[str]()
    for kind, text in _blocks(page):
        if kind == "text" and len(before) == 1:
            found[before[0]] = text
        before = list(_commands(text, is_shell=True)) if kind in _SHELLS else []
    return found


def inline(page: str) -> list[str]:
    """The flopsd commands in running text and in tables."""
    prose = _FENCED.sub("", page)
    return list(dict.fromkeys(" ".join(found.split()) for found in _INLINE.findall(prose)))


def _blocks(page: str) -> Iterator[tuple[str, str]]:
    for _, kind, text in _FENCED.findall(page):
        yield kind, text
    for text in _INDENTED.findall(_FENCED.sub("", page)):
        yield "", text


def _commands(text: str, *, is_shell: bool) -> Iterator[str]:
    lines = re.sub(r"\\\n *", "", text)
    if is_shell and "<<" in lines:
        yield lines.splitlines()[0]
        return
    before = ""
    for line in lines.splitlines():
        command = re.sub(r"(^|\s{2,})#.*$", "", line.strip()).removeprefix("$ ")
        if is_shell and command and not _ASSIGNED.match(command):
            yield before + command
            before = ""
        elif _ASSIGNED.match(command) and command[0].islower():
            before += f"{command}\n"
        elif command and command.split(" ")[0].rpartition("/")[2] in PROGRAMS and not re.match(r"\S+ {2}", command):
            yield before + command
            before = ""
        else:
            before = ""


@dataclass(frozen=True)
class Run:
    """tests/e2e/test_doc_commands.py runs the command as it stands, with the words in `instead` replaced. It exits
    with `code`, and its stdout or stderr contains `says`; `writes` is a file that exists afterwards. With `long` it
    starts processes or installs something: then only `make test-all` runs it, and CI has flopsd parse it. `at` is
    the folder to run it in; None means that of the page."""

    says: str
    instead: Mapping[str, str] = field(default_factory=dict)
    code: int = 0
    long: bool = False
    writes: str = ""
    at: Path | None = None


@dataclass(frozen=True)
class By:
    """The test that runs it, either from the page's text or in a set-up of its own."""

    test: str


@dataclass(frozen=True)
class Not:
    """The reason why no test can run it."""

    reason: str


How = Run | By | Not
_JOB = Run("the job ran", long=True)
_KMS = By("e2e/test_kms.py::test_a_run_is_sealed_by_kms_with_a_late_alias_and_replaced_credentials")
_NO_AWS = Not("needs the AWS command line and an account")
_NO_CLUSTER = Not("needs a Kubernetes cluster")
_NO_DOCKER = Not(
    "no Docker engine here: e2e/test_image.py builds with buildah, and runs podman with the flags of the page"
)
_ESTIMATE = By("unit/report/test_estimate.py::test_the_docs_page_shows_the_output_of_its_commands")
_JOBS_LEDGER = By("e2e/test_docs.py::test_two_pods_ledgers_are_merged_by_the_commands_of_the_page")
_STAMP = By("unit/attestation/test_rfc3161.py::test_a_seal_is_timestamped_and_others_can_check_the_timestamp")
_HSM = By("e2e/test_hsm.py::test_a_token_seals_and_countersigns_through_the_command_line")
_UNIT = By("e2e/test_systemd.py::test_the_unit_meters_and_seals_under_the_real_systemd")
_HELM = By("unit/docs/test_commands.py::test_the_values_of_helm_install_exist_in_the_chart")
_OPT = {"/opt/flopsd": "opt"}

# Pages whose commands are all run by one test, in order.
WHOLE: Mapping[str, By] = {
    "you-received-a-ledger.md": By("e2e/test_docs.py::test_every_command_of_the_newcomers_page_does_what_it_shows"),
    "plugins.md": By("e2e/test_plugin.py::test_every_snippet_of_the_plug_in_page_runs"),
}
COMMANDS: Mapping[str, Mapping[str, How]] = {
    "README.md": {
        "flopsd status --url http://127.0.0.1:10188": By(
            "e2e/test_cli.py::test_a_replay_is_labelled_everywhere_and_is_no_evidence"
        ),
        "make run": By("e2e/test_cli.py::test_a_first_run_ends_with_the_live_page_and_the_report"),
        "flopsd exec -- python train.py": _JOB,
        "flopsd verify ledger.json --key ledger.pub": Run("VERIFIED: signature checked, every total recomputed"),
        "make test": Not("it is what runs the tests"),
        "make stack": By("e2e/test_monitoring.py::test_the_stack_starts_shows_data_and_stops"),
        "pip install '.[all]'": Not(
            "gigabytes of time: what runs the tests was installed as '.[dev]', which has [all]"
        ),
        "flopsd doctor": Run("no accelerator can be metered here", code=4),
        "flopsd estimate config.json --tokens 1e9 --sequence-length 4096": Run("llama: 8 030 261 248 parameters"),
        "flopsd exec --phase train --method lora -- python train.py": _JOB,
        "flopsd report ledger.json --key ledger.pub --format html -o report.html": Run("", writes="report.html"),
    },
    "accuracy.md": {
        "make hardware HARDWARE_PYTHON=python3": By(
            "e2e/test_hardware_suite.py::test_metered_flop_match_the_true_ones_load_by_load"
        ),
        "python3 -m tests.hardware.accuracy docs/accuracy/*.json -o docs/accuracy.md": By(
            "unit/tests/test_hardware_accuracy.py::test_the_committed_page_is_made_from_the_committed_results"
        ),
    },
    "command-line.md": {
        "flopsd exec -- python train.py": _JOB,
        "flopsd exec --phase train --method lora --recomputation full --base-flop 7.2e23 --base-flop-method "
        '"6 x 8e9 x 15e12" --base-systemic false -- python train.py': _JOB,
        "flopsd estimate config.json --tokens 2e9 --sequence-length 4096 --on ml.p5.48xlarge": Run("time on 1 x ml.p5"),
        "flopsd report ledger.json --key ledger.pub --format html -o report.html": Run(
            "", writes="report.html", long=True
        ),
        "flopsd report ledger.json --key ledger.pub --format form": Run("AI Office", long=True),
    },
    "container.md": {
        'docker build -f Containerfile -t flopsd:0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" .': _NO_DOCKER,
        "docker run -d --name flopsd --runtime nvidia --read-only --cap-drop ALL --security-opt no-new-privileges "
        '--hostname "$(hostname)" -v flopsd:/var/lib/flopsd -p 127.0.0.1:10188:10188 flopsd:0.1.0': _NO_DOCKER,
        "docker stop -t 70 flopsd": _NO_DOCKER,
        "docker tag flopsd:0.1.0 registry.example.com/flopsd:0.1.0": _NO_DOCKER,
        "docker push registry.example.com/flopsd:0.1.0": _NO_DOCKER,
        "docker build -f Containerfile.base -t dcgm-base --build-arg EXPORTER=IMAGE .": _NO_DOCKER,
        "docker build -f Containerfile -t flopsd-dcgm:0.1.0 --build-arg BASE=dcgm-base .": _NO_DOCKER,
    },
    "endless-runs.md": {
        "flopsd run --rotate-every 1d": By("e2e/test_rotation.py::test_three_kills_of_a_rotating_run_lose_nothing"),
        "flopsd merge s3://bucket/run/ --trust node.pub --key job.pem --ledger job.json": By(
            "e2e/test_rotation.py::test_three_kills_of_a_rotating_run_lose_nothing"
        ),
    },
    "estimate.md": {
        "flopsd estimate config.json --tokens 1e9 --epochs 3 --sequence-length 4096 --recomputation full --on "
        "ml.p5.48xlarge --on ml.p4d.24xlarge --price ml.p5.48xlarge=60 --base-flop 7.2e23 --base-flop-method "
        '"6 x 8e9 x 15e12" --base-systemic false': _ESTIMATE,
        "flopsd estimate --parameters 671e9 --active-parameters 37e9 --tokens 14.8e12 --sequence-length 4096 --layers 61 "
        "--attention-width 24576 --method pretraining": _ESTIMATE,
    },
    "evidence.md": {
        "jq -r '.signatures[0].sig' ledger.json | base64 -d > sig": _STAMP,
        "jq -r '.signatures[0].timestamps[0].token' ledger.json | base64 -d > token": _STAMP,
        "openssl ts -verify -in token -data sig -CAfile root.pem": _STAMP,
        "find . -name '*.py' | LC_ALL=C sort | xargs sha256sum | sha256sum": By(
            "unit/attestation/test_evidence.py::test_the_package_digest_matches_the_documented_shell_command"
        ),
    },
    "helm.md": {
        "kubectl create namespace flopsd": _NO_CLUSTER,
        "kubectl label namespace flopsd pod-security.kubernetes.io/enforce=privileged": _NO_CLUSTER,
        "helm install flopsd config/helm/flopsd -n flopsd -f config/helm/flopsd/values-eks.yaml -f values-ours.yaml": _HELM,
        "kubectl -n flopsd rollout status ds/flopsd": _NO_CLUSTER,
        "kubectl -n flopsd logs ds/flopsd": _NO_CLUSTER,
    },
    "host.md": {
        "python3 -m pip wheel --no-deps --wheel-dir dist .": Run(
            "Successfully built flopsd", {"dist .": f"dist {ROOT}"}, long=True
        ),
        "python3 -m venv /opt/flopsd": Run("", _OPT, long=True),
        "/opt/flopsd/bin/pip install 'dist/flopsd-0.1.0-py3-none-any.whl[nvml,seal,shell]'": Run(
            "Successfully installed", _OPT, long=True
        ),
        "ln -s /opt/flopsd/bin/flopsd /usr/local/bin/flopsd": Run(
            "", {"/opt/flopsd": '"$PWD"/opt', "/usr/local/bin": "bin"}, long=True
        ),
        "flopsd doctor": Run("ok sealing: cryptography is installed", code=4),
        "cp /opt/flopsd/share/flopsd/flopsd.service /etc/systemd/system/": Run(
            "", {**_OPT, "/etc/systemd/system/": "."}, long=True, writes="flopsd.service"
        ),
        "systemctl enable --now flopsd": _UNIT,
        "systemctl status flopsd": _UNIT,
        "systemctl stop flopsd": _UNIT,
        "install -m 755 /opt/flopsd/share/flopsd/flopsd-job /etc/slurm/flopsd-job": Run(
            "", {**_OPT, "/etc/slurm/flopsd-job": "flopsd-job"}, long=True, writes="flopsd-job"
        ),
        "srun --ntasks-per-node=1 flopsd exec --key /fsx/keys/team.pem -- torchrun … train.py": By(
            "e2e/test_slurm.py::test_exec_under_srun_meters_each_node_once_and_the_nodes_add_up"
        ),
        "srun -N 16 --gres=gpu:8 --ntasks-per-node=1 torchrun … train.py": By(
            "e2e/test_slurm.py::test_concurrent_jobs_are_metered_and_scraped_separately"
        ),
        "flopsd merge --nodes 16 --trust team.pub --key team.pem --ledger job.json /fsx/ledgers/slurm-4711/": Run(
            "2 nodes, 1 attempt id, 2 ledgers", {"16": "2", "/fsx/ledgers": "fsx"}
        ),
    },
    "keys.md": {
        "flopsd key new key.pem": Run("public key new.pem.pub", {"key.pem": "new.pem"}, writes="new.pem.pub"),
        "flopsd key new --encrypt key.pem": Run(
            "public key encrypted.pem.pub", {"key.pem": "encrypted.pem"}, writes="encrypted.pem.pub"
        ),
        "aws kms create-key --key-spec ECC_NIST_P256 --key-usage SIGN_VERIFY": _NO_AWS,
        "flopsd key check awskms:alias/flopsd": _KMS,
        "flopsd run --key awskms:alias/flopsd": _KMS,
        "pkcs11-tool --module MODULE --login --keypairgen --key-type EC:prime256v1 --label ledger --id 01": _HSM,
        "flopsd seal --key 'pkcs11:token=T;object=ledger?module-path=MODULE&pin-source=file:/run/secrets/pin'": _HSM,
        "flopsd countersign ledger.json --trust first.pub --key second.pem": Run(
            "signatures 2 verify it with all public keys"
        ),
        "flopsd verify ledger.json --key first.pub --key second.pub --threshold 2": Run("VERIFIED: "),
    },
    "kubernetes.md": {
        "aws s3 cp --recursive s3://your-bucket/flopsd/RUN/ ledgers/": _NO_AWS,
        "flopsd merge ledgers/*.json --nodes 2 --trust key.pem.pub --key key.pem --ledger job.json": _JOBS_LEDGER,
        "flopsd verify job.json --key key.pem.pub --children ledgers": _JOBS_LEDGER,
        "kubectl get runtimeclass": _NO_CLUSTER,
        "flopsd key new key.pem": Run("public key pod.pem.pub", {"key.pem": "pod.pem"}),
        "kubectl -n ml create secret generic flopsd-key --from-file=key.pem": _NO_CLUSTER,
        "helm install flopsd config/helm/flopsd -n flopsd --create-namespace --set image.repository="
        "registry.example.com/flopsd --set key.uri=awskms:alias/flopsd --set ledgerCopy.node="
        "'s3://your-bucket/flopsd/nodes/{node}/$(POD_NAME).json'": _HELM,
    },
    "conformance.md": {
        "python -m conformance run --json report.json -- flopsd verify --json": By(
            "e2e/test_docs.py::test_the_conformance_runner_drives_flopsd"
        ),
        "python -m conformance clauses": Run("ENV-1", {"python": sys.executable}, long=True, at=ROOT),
        "python -m conformance pack -o flopsd-vectors-v1.tar.gz": By(
            "unit/conformance/test_judge.py::test_the_packed_vectors_match_the_folder_and_a_changed_file_is_detected"
        ),
    },
    "ledger-format.md": {
        "type=urn:uuid:961e75da-79e6-4b84-bec0-b0fcb65b8a61#compute-ledger-v1": By(
            "e2e/test_docs.py::test_the_commands_of_the_format_page_are_accepted"
        ),
        "jq -r .payload tests/vectors/valid/activity-and-gaps/ledger.json | base64 -d": Run(
            "compute-ledger", long=True, at=ROOT
        ),
    },
    "own-tables.md": {
        "cp \"$(python3 -c 'import flopsd.settings.data_files as f; print(f.config_dir())')/peaks.yaml\" "
        "peaks-2026-11.yaml": Run("", {"python3": sys.executable}, long=True, writes="peaks-2026-11.yaml"),
        "flopsd config check --peaks peaks-2026-11.yaml --policy our-regime.yaml": Run("is a valid policy"),
        "flopsd run --peaks peaks-2026-11.yaml --policy eu-ai-act --policy our-regime.yaml": Run("sealed", long=True),
        "sha256sum peaks-2026-11.yaml our-regime.yaml": Run(" our-regime.yaml", long=True),
        "flopsd verify ledger.json --key ledger.pub --peaks peaks-2026-11.yaml --policy our-regime.yaml": Run(
            "POLICY: judged by", {"ledger.json --key ledger": "rated.json --key rated"}
        ),
    },
    "push.md": {
        "flopsd exec --push pushgateway+http://gateway.example:9091 -- python train.py": Run(
            "the job ran", {"http://gateway.example:9091": "$RECEIVER"}, long=True
        ),
        "flopsd exec --push 'remotewrite+https://prom.example/api/v1/write#auth=/run/secrets/prom' -- python train.py": Run(
            "the job ran", {"'": '"', "https://prom.example": "$RECEIVER", "/run/secrets/prom": "prom"}, long=True
        ),
        "flopsd exec --push otlp+http://collector.example:4318/v1/metrics --push-every 30 -- python train.py": Run(
            "the job ran", {"http://collector.example:4318": "$RECEIVER"}, long=True
        ),
        "url=https://aps-workspaces.REGION.amazonaws.com/workspaces/ws-ID/api/v1/remote_write\nflopsd exec --push "
        '"remotewrite+$url#sigv4=REGION" -- python train.py': Not(
            "needs AWS; unit/telemetry/test_push_http.py compares the signature with botocore's"
        ),
    },
    "report.md": {
        "flopsd report ledger.json": Run("NOT VERIFIED"),
        "flopsd report ledger.json --key signer.pub --format html -o report.html": Run("", writes="report.html"),
        "flopsd report ledger.json --key signer.pub --format form": Run("AI Office"),
        "flopsd report ledger.json --json": Run('"verified": '),
    },
    "sagemaker.md": {
        "aws s3 cp s3://our-bucket/output/tune-llama-1/output/output.tar.gz .": _NO_AWS,
        "flopsd merge output.tar.gz --trust key.pem.pub --key key.pem --ledger tune-llama-1.json": Run(
            "2 nodes, 2 attempt ids, 2 ledgers"
        ),
        "flopsd verify tune-llama-1.json --key tune-llama-1.pub --children output.tar.gz": Run("VERIFIED: "),
    },
    "thresholds.md": {
        "flopsd run --policy eu-ai-act --policy us-ca-sb-53 --policy /etc/flopsd/our-policy.yaml": Run(
            "sealed", {"/etc/flopsd/our-policy.yaml": "our-regime.yaml"}, long=True
        ),
        "flopsd estimate --parameters 8e9 --tokens 1e12 --sequence-length 8192 --policy our-regime.yaml": Run(
            "our-regime"
        ),
        "flopsd run --policy our-regime.yaml": Run("sealed", long=True),
        "flopsd verify ledger.json --key ledger.pub --policy our-regime.yaml": By(
            "unit/cli/test_own_policy.py::test_a_run_is_sealed_and_verified_by_the_printed_policy"
        ),
    },
    "training-process.md": {
        "flopsd exec --phase train --method lora --recomputation full --precision bf16 -- python train.py": _JOB,
        "flopsd run --client-socket /run/flopsd/client.sock --client-uids 1000": Run(
            "training processes can connect at", {"/run/flopsd/": ""}, long=True
        ),
    },
}
