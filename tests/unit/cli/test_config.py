"""`flopsd config show` and `config check`; and the modules that flopsd loads: from its own environment, never the
job's."""

import argparse
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flopsd.__main__ import search_path
from flopsd.cli.main import VERBS, _log_to_stderr, _parser, log_uncaught, main
from flopsd.cli.run import ME
from flopsd.settings.data_files import config_dir
from flopsd.settings.effective import without_secrets
from flopsd.settings.schema import SETTINGS
from flopsd.sources.registry import known_sources
from tests.support.golden import check_golden
from tests.support.paths import GOLDEN
from tests.support.process import FLOPSD, environment, in_process, predicate
from tests.support.settings import load_settings

EVERYTHING = """
sources: [nvml, dcgm]
interval_seconds: 0.5
checkpoint_seconds: 30
checkpoint_output: stderr
state_dir: /srv/flopsd
listen: off
file_sd: /run/targets
web_config: /etc/flopsd/web.yml
run_id: my-run
key: "pkcs11:token=box;object=k?pin-value=12345678"
ledger: /srv/ledger.json
ledger_copies: ["s3://bucket/{run}/{node}.json?lock=governance&days=365"]
seal: false
seal_every_seconds: off
rotate_every: 256MB
keep_segments: 3
precision: {bf16: 0.900001, fp8: 0.099999}
device_precision: {0: bf16, GPU-5a4d: {fp8: 1}}
devices: [GPU-5a4d, 1]
peaks: /srv/peaks.yaml
replay_file: /srv/replay.jsonl
dcgm_url: http://me:hunter2@localhost:9400/metrics?token=hunter2
dcgm_interval_seconds: 10
dcgm_hostengine: off
neuron_monitor: /srv/neuron-monitor
duration_seconds: 3600
stop_seconds: 30
last_scrape_seconds: 20
evidence: off
timestamp_url: http://localhost/tsr
witness_url: http://localhost/witness
phase: train
method: lora
recomputation: full
base_model: "Llama: 8B # not a comment"
base_flop: 7.2e23
base_flop_method: 6 x 8e9 x 15e12
base_systemic: false
base_systemic_reason: rebutted
policies: [/srv/policy.yaml]
client_socket: off
client_uids: [1000, 1001]
job_user: "1000"
wait_for_source: true
pushes: ["pushgateway+http://localhost:9091#auth=/srv/auth"]
push_every_seconds: 30
metric_line_seconds: off
stop_window_seconds: 30
"""
SECRETS = ("12345678", "hunter2")
SOURCES = known_sources().settings
BARE = {name: value for name, value in environment(None).items() if not name.startswith("FLOPSD_")}


def test_shown_settings_can_be_loaded_and_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    text = EVERYTHING
    for secret in SECRETS:
        text = text.replace(secret, "HIDDEN")
    file.write_text(text.replace("me:HIDDEN@", "HIDDEN@"))
    missing = {setting.key for setting in SETTINGS} - set(yaml.safe_load(EVERYTHING))
    assert not missing, "a new setting belongs into this test"
    done = in_process("config", "show", "--config", str(file), env=BARE, code=0)
    again = tmp_path / "again.yaml"
    again.write_text(done.stdout)
    assert load_settings({}, {}, str(again), SOURCES) == load_settings({}, {}, str(file), SOURCES)


def test_settings_decided_by_the_platform_are_shown_as_such() -> None:
    """Two variables make this a training job; there is no checkpoint folder on this machine."""
    here = environment(None, TRAINING_JOB_NAME="tune-1", FLOPSD_STOP_WINDOW="30")
    answer = json.loads(in_process("config", "show", "--json", env=here).stdout)["settings"]
    assert answer["ledger"] == {
        "value": "/opt/ml/output/data/flopsd/{node}.json", "from": "platform", "where": "sagemaker-training"
    }  # fmt: skip
    assert (answer["metric_line_seconds"]["value"], answer["metric_line_seconds"]["from"]) == (60, "platform")
    assert (answer["stop_window_seconds"]["value"], answer["stop_window_seconds"]["from"]) == (30, "variable")


def test_defaults_are_shown_as_defaults(tmp_path: Path) -> None:
    file = str(config_dir() / "flopsd.yaml")
    done = in_process("config", "show", "--config", file, env=BARE)
    again = tmp_path / "again.yaml"
    again.write_text(done.stdout)
    assert load_settings({}, {}, str(again)) == load_settings({}, {}, file)
    assert "interval_seconds: 1  # default\n" in done.stdout
    assert "# run_id: not set  # default: the platform's job name, else a new one\n" in done.stdout
    assert "policies: []  # default\n" in done.stdout
    assert "value is not shown" not in done.stdout


def test_each_setting_states_where_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "flopsd.yaml"
    file.write_text("interval_seconds: 2\ncheckpoint_seconds: 20\nrun_id: from-file\n")
    env = environment(
        None, FLOPSD_CONFIG=str(file), FLOPSD_CHECKPOINT="30", FLOPSD_RUN_ID="from-variable", FLOPSD_METRIC_LINE="0"
    )
    arguments = ("config", "show", "--run-id", "from-flag", "--no-seal")
    answer = json.loads(in_process(*arguments, "--json", env=env).stdout)
    assert answer["file"] == str(file)
    settings = answer["settings"]
    assert settings["interval_seconds"] == {"value": 2, "from": "file", "where": str(file)}
    assert settings["metric_line_seconds"]["value"] == "off"
    assert settings["checkpoint_seconds"] == {"value": 30, "from": "variable", "where": "FLOPSD_CHECKPOINT"}
    assert settings["run_id"] == {"value": "from-flag", "from": "flag", "where": "--run-id"}
    assert settings["seal"] == {"value": False, "from": "flag", "where": "--no-seal"}
    assert settings["listen"] == {"value": "127.0.0.1:10188", "from": "default", "where": ""}
    text = in_process(*arguments, env=env).stdout
    assert f"interval_seconds: 2  # file {file}\n" in text
    assert "checkpoint_seconds: 30  # variable FLOPSD_CHECKPOINT\n" in text
    assert "run_id: from-flag  # flag --run-id\n" in text


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(EVERYTHING)
    env = environment(None, FLOPSD_KEY_PASSPHRASE="hunter2", FLOPSD_PKCS11_PIN="12345678")
    for more in ((), ("--json",)):
        done = in_process("config", "show", "--config", str(file), *more, env=env, code=0)
        assert not [secret for secret in SECRETS if secret in done.stdout + done.stderr]
        assert "FLOPSD_KEY_PASSPHRASE" in done.stdout
        assert "token=box" in done.stdout


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:secret@h:1/p?key=secret&b=", "http://HIDDEN@h:1/p?key=HIDDEN&b=HIDDEN"),
        ("https://h/p", "https://h/p"),
        ("http://@h/p", "http://h/p"),
        ("pkcs11:token=box?pin-value=1234&x=2", "pkcs11:token=box?pin-value=HIDDEN&x=2"),
        ("/a?b=c", "/a?b=c"),
        ("http://me:secret@[::1", "HIDDEN"),
    ],
)
def test_secrets_in_a_text_are_hidden(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize(("text", "count"), [("", "0 settings"), ("seal: false", "1 setting"), ("seal: false\nlisten: off", "2 settings")])  # fmt: skip
def test_check_states_the_number_of_valid_settings(tmp_path: Path, text: str, count: str) -> None:
    (file := tmp_path / "flopsd.yaml").write_text(text)
    assert in_process("config", "check", str(file), code=0).stderr == f"{file} is valid: {count}\n"
    assert in_process("config", "check", str(file), "--quiet", code=0).stderr == ""


def test_check_states_every_problem_at_once_and_exits_2(tmp_path: Path) -> None:
    file = tmp_path / "flopsd.yaml"
    file.write_text("intervall_seconds: 1\nlisten: nowhere\nseal: maybe\n")
    # Variables in the environment are not the file's fault.
    done = in_process("config", "check", str(file), env=environment(None, FLOPSD_INTERVAL="never"), code=2)
    words = ("intervall_seconds", "nowhere", "maybe", "never")
    assert [word in done.stderr for word in words] == [True, True, True, False]
    assert done.stdout == ""
    in_process("config", "check", str(tmp_path / "none.yaml"), code=2, says="none.yaml")


def test_check_finds_problems_that_a_run_would_meet_only_later(tmp_path: Path) -> None:
    file, peaks = tmp_path / "flopsd.yaml", tmp_path / "peaks.yaml"
    peaks.write_text("[not, a, table]\n")
    file.write_text(
        f"base_model: llama\npeaks: {peaks}\npolicies: [{tmp_path}/none.yaml]\nclient_socket: /run/{'x' * 200}\n"
    )
    done = in_process("config", "check", str(file), code=2)
    problems = [line for line in done.stderr.splitlines() if str(file) in line]
    assert len(problems) == 4, done.stderr
    for word in ("--base-flop", str(peaks), "none.yaml", "107 bytes"):
        assert [line for line in problems if word in line], word


def test_own_peak_table_and_policy_are_compared_with_the_packaged_ones(tmp_path: Path) -> None:
    peaks, policy, new = tmp_path / "ours.yaml", tmp_path / "act.yaml", tmp_path / "new.yaml"
    shipped = (config_dir() / "peaks.yaml").read_text()
    row = "accelerators:\n  - {id: x1, vendor: x, status: published, sources: [x], margins: {count: {bf16: {ppm: 30000, source: x}}}}"
    text = shipped.replace("ppm: 80000", "ppm: 120000").replace("accelerators:", row, 1)
    peaks.write_text(text.replace("  - {nvml_arch: 10, cores: 128}", "  - {nvml_arch: 11, cores: 128}"))
    act = config_dir() / "policies" / "eu-ai-act.yaml"
    policy.write_text(act.read_text() + "# read again in 2031\n")
    new.write_text("id: ours\ntitle: ours\nrules: [{id: one, title: t, citation: c, at_least: '1e24'}]\n")
    said = in_process("config", "check", "--peaks", str(peaks), "--policy", str(policy), "--policy", str(new),
                      "--policy", "eu-ai-act", code=0).stdout  # fmt: skip
    digest = [hashlib.sha256(data).hexdigest() for data in (peaks.read_bytes(), shipped.encode(), policy.read_bytes())]
    digest += [hashlib.sha256(data).hexdigest() for data in (act.read_bytes(), new.read_bytes())]
    rules = ", ".join(rule["id"] for rule in yaml.safe_load(act.read_text())["rules"])
    assert said.splitlines() == [
        f"{peaks} is a valid peak table", f"  SHA-256  {digest[0]}",
        f"  parts    {len(yaml.safe_load(shipped)['accelerators']) + 1}",
        "  margins  cycles 9 %, activity 9 %, count 12 %, x1 count bf16 3 %, h100-pcie activity bf16 9 %",
        "  energy   h100-pcie bf16 1.011 to 1.373 pJ/FLOP",
        f"compared with flopsd's own table, SHA-256 {digest[1]}:",
        "  added    cores_per_sm 11", "  added    accelerators x1", "  missing  cores_per_sm 10",
        "  changed  margins count ppm: 80000 -> 120000",
        f"{policy} is a valid policy", f"  SHA-256  {digest[2]}", "  id       eu-ai-act", f"  rules    {rules}",
        f"compared with flopsd's own eu-ai-act, SHA-256 {digest[3]}:",
        "  the same data; only comments or layout differ",
        f"{new} is a valid policy", f"  SHA-256  {digest[4]}", "  id       ours", "  rules    one",
        "flopsd has no policy ours of its own",
        "eu-ai-act is a valid policy", f"  SHA-256  {digest[3]}", "  id       eu-ai-act", f"  rules    {rules}",
        "it is flopsd's own eu-ai-act",
    ]  # fmt: skip
    peaks.write_text(text.replace("margins: {count: {bf16: {ppm: 30000", "margin: {count: {bf16: {ppm: 30000"))
    assert (
        "\n  NOT READ accelerators x1 margin\n" in in_process("config", "check", "--peaks", str(peaks), code=0).stdout
    )
    peaks.write_text(text.replace("bf16: 1024", "bf16: 0.5", 1).replace("fp16: 1024", "fp16: 0.5", 1))
    in_process("config", "check", "--peaks", str(peaks), code=2, says="rates that are not positive integers: 0.5")
    in_process("config", "check", code=2, says="nothing to check")


def test_the_packaged_file_is_valid_with_all_comments_enabled_too(tmp_path: Path) -> None:
    shipped = config_dir() / "flopsd.yaml"
    assert in_process("config", "check", str(shipped)).returncode == 0
    bare = "\n".join(
        line.removeprefix("# ") for line in shipped.read_text().splitlines() if line.startswith("# ") and ": " in line
    )
    keys = [setting.key for setting in (*SETTINGS, *SOURCES)]
    lines = [line for line in bare.splitlines() if line.split(":")[0] in keys]
    file = tmp_path / "flopsd.yaml"
    # Settings that name example files are left out.
    file.write_text("\n".join(line for line in lines if not line.startswith(("peaks", "policies"))))
    in_process("config", "check", str(file), code=0)
    assert len(lines) > 25


STANDARD = ["/lib/python", "/lib/site"]


def test_the_script_folder_is_dropped_and_pythonpath_comes_last() -> None:
    found = {"PYTHONPATH": "/job:/job/src"}
    assert search_path(["", "/job", "/job/src", *STANDARD], found, "/work") == [*STANDARD, "/job", "/job/src"]
    assert search_path(["/work", *STANDARD], {}, "/work") == STANDARD
    assert search_path(["/venv/bin", *STANDARD], {"PYTHONPATH": ""}, "/work") == ["/venv/bin", *STANDARD]
    assert search_path([os.getcwd(), *STANDARD], {"PYTHONPATH": ":"}, None) == [*STANDARD, os.getcwd()]


@pytest.mark.long
def test_a_job_whose_folders_shadow_standard_modules_is_metered(tmp_path: Path) -> None:
    """The working directory and PYTHONPATH contain files that exit when they are imported."""
    for folder in ("work", "path"):
        (tmp_path / folder).mkdir()
        for name in ("queue", "subprocess", "yaml", "select"):
            (tmp_path / folder / f"{name}.py").write_text("raise SystemExit(9)\n")
    (tmp_path / "work" / "flopsd").mkdir()
    (tmp_path / "work" / "flopsd" / "__init__.py").write_text("raise SystemExit(9)\n")
    env = environment(None)
    theirs = str(tmp_path / "path")
    env["PYTHONPATH"] = os.pathsep.join([theirs, *filter(None, [env.get("PYTHONPATH")])])
    ledger = tmp_path / "l.json"
    done = subprocess.run(
        [*ME, "exec", "--source", "replay", "--listen", "off", "--evidence", "off", "--seal-every", "1", "--checkpoint",
         "0.5", "--ledger", str(ledger), "--", "sh", "-c", 'sleep 3; echo "$PYTHONPATH"; exit 7'],
        cwd=tmp_path / "work", env={**env, "FLOPSD_STATE_DIR": str(tmp_path / "s")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert env["PYTHONPATH"] in done.stdout.splitlines(), "the job's own variable is as it was"
    for found in ("METERING INTERRUPTED", "NO ROLLING SEAL", "NOT SEALED"):
        assert found not in done.stderr, done.stderr
    assert [one["endReason"] for one in predicate(ledger)["incarnations"]] == ["job_ended"]


def test_run_by_path_flopsd_is_the_package_of_that_file(tmp_path: Path) -> None:
    done = subprocess.run([*ME, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == subprocess.run([*FLOPSD, "--version"], capture_output=True, text=True, check=True).stdout
    assert ME[0] == sys.executable


@pytest.mark.parametrize("verb", ["run", "exec", "seal"])
def test_the_log_of_metering_states_each_step(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("flopsd")
    handlers, level = logger.handlers[:], logger.level
    try:
        _log_to_stderr(verb)
        logger.info("a step")
        logger.warning("trouble")
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)
    step = "" if verb == "seal" else "flopsd: INFO: a step\n"
    assert capsys.readouterr().err == f"{step}flopsd: WARNING: trouble\n"


@pytest.mark.parametrize("is_journal", [True, False])
def test_lines_have_a_priority_prefix_only_in_systemds_journal(
    is_journal: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream is the journal if $JOURNAL_STREAM has its device and inode; a job under it inherits the variable."""
    found, logger = os.fstat(sys.stderr.fileno()), logging.getLogger("flopsd")
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + (not is_journal)}")
    handlers, level = logger.handlers[:], logger.level
    try:
        _log_to_stderr("run", verbose=True)
        for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
            logger.log(number, "a message\n<7>of a file")
        fault = ValueError("no such thing")
        log_uncaught(type(fault), fault, None)
        with pytest.raises(SystemExit):
            main(["run", "--sorce", "replay"])
        with pytest.raises(SystemExit):
            main(["seal", "--state-dir", "/none"])
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)
    lines = [re.fullmatch("(?:<([0-9])>)?(.*)", line) for line in capfd.readouterr().err.splitlines()]
    shown = [(line[1], line[2]) for line in lines if line is not None]
    words = {"DEBUG": "7", "INFO": "6", "WARNING": "4", "ERROR": "3", "CRITICAL": "2"}
    levels = [re.match("flopsd: ([A-Z]+): ", text) for _, text in shown]
    assert {found[1] for found in levels if found} == set(words)
    for (priority, text), word in zip(shown, levels, strict=True):
        expected = words[word[1]] if word else "3"  # text without a level: usage, traceback, the final error, a hint
        assert priority == (expected if is_journal else None), text
    texts = [text for _, text in shown]
    assert {"usage: flopsd run [options]", "ValueError: no such thing"} <= set(texts), "each line has one"
    assert any(text.startswith("flopsd: hint: ") for text in texts)


def test_the_command_line_options_match_the_golden() -> None:
    """Scripts rely on these options."""
    check_golden("\n".join(_options(_parser())) + "\n", GOLDEN / "command-line.txt")


def test_each_verb_is_defined_in_the_module_imported_for_it() -> None:
    whole = _parser()
    assert _verbs(whole).keys() == VERBS.keys()
    for verb in VERBS:
        assert _verbs(_parser(verb))[verb].format_help() == _verbs(whole)[verb].format_help()
    assert len(_verbs(_parser("seal"))) == 1


def _verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (action,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    return action.choices


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for one in parser._actions:
        if isinstance(one, argparse._SubParsersAction):
            for verb in dict.fromkeys(one.choices.values()):
                yield from _options(verb)
        elif not isinstance(one, argparse._HelpAction | argparse._VersionAction):
            facts = {"nargs": one.nargs, "const": one.const, "choices": one.choices and list(one.choices), "type": getattr(one.type, "__name__", None)}  # fmt: skip
            stated = [f"{name}={value}" for name, value in facts.items() if value is not None]
            is_rest = one.nargs == argparse.REMAINDER  # required until Python 3.12, in the words of argparse
            needed = "required" if one.required and not is_rest else f"default={one.default}"
            yield " ".join([parser.prog, *one.option_strings, one.dest, type(one).__name__, needed, *stated])
    for group in parser._mutually_exclusive_groups:
        yield f"{parser.prog} {'one' if group.required else 'at most one'} of {[one.dest for one in group._group_actions]}"
