"""`flopsd estimate` as a user types it."""

import base64
import json
import re
import shlex
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.architecture import flop, read_model, training_from
from flopsd.core.declarations import Method
from flopsd.errors import LedgerError
from flopsd.report.estimate.estimate import ALONE
from flopsd.report.estimate.measured_mfu import mfu_of
from flopsd.report.estimate.planned_hardware import peak_flop_per_s
from flopsd.settings.data_files import Tables, load_peaks
from tests.support.architectures import LLAMA_8B
from tests.support.golden import check_golden
from tests.support.paths import GOLDEN, ROOT, VECTORS
from tests.support.process import in_process

WORK = ("--tokens", "1e9", "--sequence-length", "4096")
BASE = ("--base-flop", "7.2e23", "--base-flop-method", "6PD of its card", "--base-systemic", "false")


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    return str(tmp_path)


def run(*arguments: str, code: int = 0) -> str:
    """Its output, or its stderr if it fails."""
    done = in_process("estimate", *arguments, code=code)
    return done.stderr if code else done.stdout


def computed(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--json"), parse_float=pytest.fail)
    return found


def test_three_methods_are_estimated_side_by_side(config: str) -> None:
    found = computed(
        config, "--tokens", "1e9", "--epochs", "3", "--sequence-length", "4096", "--recomputation", "full",
        "--on", "ml.p5.48xlarge", "--count", "2", *BASE,
    )  # fmt: skip
    assert [option["method"] for option in found["options"]] == ["full", "lora", "qlora"]
    whole, rest = divmod(10**9, 4096)
    work = {"tokens": 3 * 10**9, "sequences": 3 * (whole + 1), "square_pairs": 3 * (whole * 4096**2 + rest**2)}
    assert found["work"] == {name: str(value) for name, value in work.items()}
    full, lora, qlora = found["options"]
    ours = flop(read_model(LLAMA_8B), work, training_from({"method": "full", "recomputation": "full"}))
    assert full["required"]["computed"] == str(ours.required.computed)
    assert 0 <= int(full["executed"]["high"]) - ours.executed.high < ours.executed.high // 10**6, "rows may go on"
    assert int(lora["required"]["high"]) < int(full["required"]["low"])
    assert lora["required"] == qlora["required"]
    (hardware,) = found["hardware"]
    assert (hardware["instances"], hardware["devices"], hardware["assumedPriceUsdPerHour"]) == ("2", "16", None)
    peak = int(hardware["peakFlopPerSecond"])
    hours = Fraction(ours.required.low, peak * 3600) / Fraction(1, 2)
    assert 0 <= hours - Fraction(full["on"][0]["hours"]["low"]) < Fraction(1, 1000)
    assert found["mfu"] == {"low": "0.300", "high": "0.500", "source": "assumed, not measured"}
    third = next(finding for finding in full["findings"] if finding["rule"] == "modification-third")
    assert third["state"] == "below"
    assert int(third["value"]["high"]) == -(-int(full["required"]["high"]) * 13 // 10)
    assert third["value"]["measured"] is None


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("three-ways", ["CONFIG", "--tokens", "1e9", "--epochs", "3", "--sequence-length", "4096", "--recomputation", "full",
                        "--on", "ml.p5.48xlarge", "--count", "2", *BASE]),
        ("size-alone", ["--parameters", "7e9", "--tokens", "1e9", "--sequence-length", "2048", "--trainable", "1e6"]),
        ("little-known", ["CONFIG", "--tokens", "1e9", "--sequence-length", "512", "--on", "b300", "--mfu", "0.4",
                          "--lora-targets", "q_proj"]),
        ("mixture", ["--parameters", "671e9", "--active-parameters", "37e9", "--tokens", "14.8e12", "--sequence-length",
                     "4096", "--method", "pretraining", "--on", "ml.p5.48xlarge", "--on", "ml.p4d.24xlarge", "--count",
                     "256", "--price", "ml.p5.48xlarge=60"]),
    ],
)  # fmt: skip
def test_the_estimates_match_their_goldens(config: str, name: str, arguments: list[str]) -> None:
    """With the first method only in the JSON."""
    given = [config if word == "CONFIG" else word for word in arguments]
    found = computed(*given)
    del found["options"][1:]
    made = run(*given) + json.dumps(found, indent=1) + "\n"
    check_golden(made, GOLDEN / f"estimate-{name}.txt")


def test_the_docs_page_shows_the_output_of_its_commands(config: str) -> None:
    page = (ROOT / "docs" / "estimate.md").read_text()
    commands = re.findall(r"^    flopsd estimate ((?:.*\\\n)*.*)\n", page, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command.replace("\\\n", " "))
        figures = run(*(config if word == "config.json" else word for word in words)).partition("\nassumed:\n")[0]
        assert "".join(f"    {line}\n" if line else "\n" for line in figures.splitlines()) in page


def test_an_estimate_from_a_size_alone_is_6pd() -> None:
    found = computed("--parameters", "7e9", "--tokens", "1e9", "--sequence-length", "2048")
    full, lora, _ = found["options"]
    assert full["required"]["computed"] == str(42 * 10**18)
    assert lora["required"]["computed"] == str(28 * 10**18)
    assert found["assumed"] == [ALONE]
    assert found["model"] == {
        "family": "bare", "parameters": "7000000000", "active": None, "embedding": None, "layers": None,
        "attentionWidth": None,
    }  # fmt: skip
    assert len(found["notKnown"]) == 2


@pytest.mark.parametrize(
    ("more", "state", "missing"),
    [
        ((), "indeterminate", ("--dense", "--layers")),
        (("--dense",), "above", ("--embedding-parameters", "--layers")),
        (("--active-parameters", "540e9", "--embedding-parameters", "0"), "above", ("--layers",)),
        (("--dense", "--embedding-parameters", "0", "--layers", "118", "--attention-width", "12288"), "above", ()),
        (("--active-parameters", "20e9"), "indeterminate", ("--embedding-parameters", "--layers")),
    ],
)
def test_palm_is_above_only_if_declared_dense(more: tuple[str, ...], state: str, missing: tuple[str, ...]) -> None:
    command = ("--parameters", "540e9", "--tokens", "780e9", "--sequence-length", "2048", "--method", "pretraining")
    found = computed(*command, *more)
    (finding,) = (one for one in found["options"][0]["findings"] if one["rule"] == "gpai-indicative")
    assert finding["state"] == state
    for flag, words in zip(missing, found["notKnown"], strict=True):
        assert flag in words
        assert f"NOT KNOWN: {words}" in " ".join(run(*command, *more).split())


def test_instance_types_are_shown_side_by_side_with_the_given_price(config: str) -> None:
    on = ("--on", "ml.p5.48xlarge", "--on", "ml.p4d.24xlarge", "--on", "ml.p5.48xlarge", "--count", "2")
    found = computed(config, *WORK, *on, "--price", "ml.p4d.24xlarge=21.9576", "--method", "full")
    assert [one["name"] for one in found["hardware"]] == ["ml.p5.48xlarge", "ml.p4d.24xlarge"]
    assert [one["assumedPriceUsdPerHour"] for one in found["hardware"]] == [None, "21.957600"]
    p5, p4 = found["options"][0]["on"]
    assert p5["costUsd"] is None
    for end, off in (("low", -1), ("high", 1)):
        exact = 2 * Fraction("21.9576") * Fraction(p4["hours"][end])
        assert abs(Fraction(p4["costUsd"][end]) - exact) < Fraction(1, 10), off
    assert any("price of ml.p4d.24xlarge: 21.9576 USD an hour, as given" in note for note in found["assumed"])
    text = run(config, *WORK, *on, "--price", "ml.p4d.24xlarge=21.9576", "--method", "full")
    assert re.search(r"^time on 2 x ml.p5.48xlarge  .*\ntime on 2 x ml.p4d.24xlarge  .*\n  cost, at the assumed price .* USD$",
                     text, re.MULTILINE)  # fmt: skip


def test_no_table_is_wider_than_100_columns(config: str, tmp_path: Path) -> None:
    """With every instance type at once, every method, and a rule of the longest name."""
    policy = tmp_path / "long.yaml"
    shipped = (ROOT / "config" / "policies" / "eu-ai-act.yaml").read_text()
    policy.write_text(shipped.replace("modification-third-small", f"{'long-' * 11}rule"))
    table = load_peaks(None)
    types = [
        name for name, one in table.instances.items()
        if one.count is not None and peak_flop_per_s(table.parts[one.accelerator], "bf16") is not None
    ]  # fmt: skip
    assert len(types) > 40
    on = [word for name in types for word in ("--on", name, "--price", f"{name}=123456789.1234")]
    methods = [word for method in Method for word in ("--method", method.value)]
    for model in ((config, "--tokens", "1e18"), ("--parameters", "1e18", "--tokens", "1e18")):
        text = run(*model, "--sequence-length", "131072", *on, *methods, "--count", "1000",
                   "--policy", str(policy))  # fmt: skip
        assert max(map(len, text.splitlines())) <= 100
        assert all(name in text for name in types)
        assert text.count("required  ") > 1, "several tables below each other"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--parameters", "7e9", "--tokens", "1e9"], 2, "--sequence-length"),
        (["CONFIG", "--tokens", "1e9"], 2, "the longest that this model takes is 131072"),
        (["CONFIG", *WORK, "--dense"], 2, "--dense: config.json states this already"),
        (["CONFIG", *WORK, "--on", "b300", "--price", "b200=3"], 2, "'b200', which no --on names"),
        (["CONFIG", *WORK, "--on", "b300", "--price", "b300=3", "--price", "b300=4"], 2, "given twice"),
        (["CONFIG", *WORK, "--on", "b300", "--price", "b300=-3"], 2, "a price above 0"),
        (["--parameters", "7e9", *WORK, "--active-parameters", "8e9"], 1, "8000000000 parameters are active"),
        (["--parameters", "7e9", *WORK, "--layers", "8"], 1, "only together"),
        (["CONFIG", *WORK, "--on", "ml.p99.large"], 1, "ml.p99.large"),
        (["CONFIG", *WORK, "--on", "p5.48xlarge"], 1, "did you mean ml.p5.48xlarge?"),
        (["CONFIG", *WORK, "--on", "B300"], 1, "did you mean b300 or gb300 or ml.p6-b300.48xlarge?"),
        (["CONFIG", *WORK, "--count", "8", "--mfu", "0.4"], 2, "--count, --mfu: no hardware is named"),
        (["CONFIG", *WORK, "--format", "fp8"], 2, "--format: no hardware is named"),
        (["CONFIG", *WORK, "--on", "b300", "--devices-per-instance", "4"], 2, "--on names no instance type"),
        (["CONFIG", *WORK, "--on", "h100-sxm5-80gb", "--format", "fp5"], 1, "fp5"),
        (["CONFIG", *WORK, "--lora-targets", "c_attn"], 1, "c_attn"),
        (
            ["CONFIG", *WORK, "--trainable", "9e9", "--method", "partial"],
            2,
            "--trainable 9000000000: the model has 8030261248",
        ),
        (["CONFIG", *WORK, "--lora-targets", "q_proj,"], 2, "--lora-targets: a name is empty"),
        (["/nowhere/config.json", "--tokens", "1e9"], 1, "/nowhere/config.json"),
        (["CONFIG", "--tokens", "0.5"], 2, "'0.5' is not a whole number\n"),
        (["CONFIG", "--tokens", "1e9", "--sequence-length", "9", "--target-length", "9"], 2, "llama is not one"),
        (["--parameters", "1e9", "--tokens", "1e9", "--target-length", "9"], 2, "--sequence-length"),
        (["CONFIG", "--tokens", "1e9", "--mfu", "0.5..0.3"], 2, "0.3..0.5"),
        (["CONFIG", *WORK, "--base-model", "x"], 2, "--base-flop"),
        (["CONFIG", "--tokens", "1e9", "--method", "pretraining", *BASE], 2, "has no base model"),
        (["--tokens", "1e9"], 2, "CONFIG"),
        (["CONFIG", *WORK, "--on", "b300", "--price", "b300=1000000001"], 2, "a price above 0"),
        (["CONFIG", *WORK, "--on", "b300", "--price", "=3"], 2, "expected a name and a price"),
        (["--parameters", "1000000000000000001", *WORK], 2, "expected between 1 and 1e18"),
        (["--parameters", "0", *WORK], 2, "expected between 1 and 1e18"),
        (["CONFIG", *WORK, "--mfu", "1.1"], 2, "above 0 and up to 1"),
        (["CONFIG", *WORK, "--mfu", "0..1"], 2, "above 0 and up to 1"),
        (["CONFIG", *WORK, "--mfu", "1/0"], 2, "expected a share or two"),
    ],
)
def test_each_reason_why_no_estimate_is_possible_is_named(
    config: str, arguments: list[str], code: int, words: str
) -> None:
    assert words in run(*(config if word == "CONFIG" else word for word in arguments), code=code)


def test_the_smallest_and_largest_inputs_are_accepted(config: str) -> None:
    dearest = run(config, *WORK, "--on", "b300", "--price", "b300=1000000000", "--mfu", "1")
    assert "as given" in dearest
    assert "USD" in dearest
    run("--parameters", "1e18", "--dense", "--embedding-parameters", "0", *WORK)


def test_a_configuration_of_a_mebibyte_is_read(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(LLAMA_8B).ljust(1 << 20))
    assert run(str(tmp_path), *WORK) == run(str(file), *WORK)
    file.write_text(json.dumps(LLAMA_8B).ljust((1 << 20) + 1))
    assert "larger than 1048576 bytes" in run(str(file), *WORK, code=1)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model_type": "rwkv"}', "[" * 100_000, " " * (2 << 20)])
def test_a_file_that_is_no_configuration_is_refused_with_a_hint(tmp_path: Path, content: str) -> None:
    file = tmp_path / "some.json"
    file.write_text(content)
    said = run(str(file), "--tokens", "1e9", code=1)
    assert "hint: " in said
    assert "Traceback" not in said


@pytest.mark.parametrize("epochs", [2, 1000])
def test_the_end_of_an_epoch_is_a_row_of_its_own_or_goes_on_in_the_next(config: str, epochs: int) -> None:
    """At least: each epoch has its rest; at most: a row holds the end of an epoch and the next."""
    plan = (config, "--sequence-length", "4096", "--method", "full")
    once, streamed = (computed(*plan, "--tokens", tokens) for tokens in ("100", f"{epochs}00"))
    found = computed(*plan, "--tokens", "100", "--epochs", f"{epochs}")
    assert found["work"]["sequences"] == f"{epochs}"
    (mine,), (least,), (most,) = (one["options"] for one in (found, once, streamed))
    for name in ("required", "executed"):
        assert int(mine[name]["low"]) == epochs * int(least[name]["low"]) < int(most[name]["low"])
        assert mine[name]["high"] == most[name]["high"]


def test_the_mfu_of_an_earlier_run_is_taken_from_its_ledger() -> None:
    vectors = VECTORS / "valid"
    ledger = vectors / "declared-by-settings" / "ledger.json"
    command = ["--parameters", "8e9", "--tokens", "1e9", "--sequence-length", "2048", "--on", "h100-sxm5-80gb"]
    rated = ("--mfu-from", str(ledger), "--peaks", str(VECTORS / "peaks.yaml"))
    found = computed(*command, *rated)
    assert "measured, by the ledger ledger.json, not verified here" in json.dumps(found)
    assert "--phase train" in run(*command, "--mfu-from", str(vectors / "activity-and-gaps" / "ledger.json"), code=1)
    assert "flopsd has no peak table with SHA-256" in run(*command, *rated[:2], code=1)


def test_a_doubtful_peak_is_noted_and_a_disputed_one_widens_the_hours(config: str) -> None:
    work = (config, "--tokens", "1e9", "--sequence-length", "4096", "--method", "full", "--mfu", "0.5")
    a10g = computed(*work, "--on", "a10g")
    assert a10g["hardware"][0]["doubts"] == [
        "the rates of a10g are disputed: the shortest time assumes 140 TFLOP/s each, as others publish it"
    ]
    hours, needed = a10g["options"][0]["on"][0]["hours"], a10g["options"][0]["required"]
    peak = int(a10g["hardware"][0]["peakFlopPerSecond"])
    assert Fraction(hours["low"]) <= Fraction(int(needed["low"]), 3600 * 2 * peak) * 2
    assert Fraction(hours["high"]) >= Fraction(int(needed["high"]), 3600 * peak) * 2
    assert computed(*work, "--on", "b300")["hardware"][0]["doubts"] == ["the rates of b300 are unverified"]
    assert computed(*work, "--on", "h100-sxm5-80gb")["hardware"][0]["doubts"] == []
    assert (
        computed(*work, "--on", "ml.g7e.8xlarge")["hardware"][0]["doubts"][-1]
        == "the number of accelerators of ml.g7e.8xlarge, 1, is unverified"
    )
    assert "DOUBT: the rates of b300 are unverified" in run(*work, "--on", "b300")


def ledger_of(path: Path, devices: list[dict[str, Any]], gaps: list[dict[str, str]], by_reason: dict[str, str],
              declared: dict[str, Any] | None = None) -> Path:  # fmt: skip
    """The parts of a ledger that give its MFU: exactly 989 TFLOP trained."""
    predicate = {
        "kind": "node", "replay": None, "devices": devices, "incarnations": [{"precision": declared}],
        "method": {"peakTableSha256": load_peaks().sha256},
        "totals": {"guidelines": {"low": str(989 * 10**12), "high": str(989 * 10**12)}},
        "coverage": {"gapSecondsByReason": by_reason, "gaps": gaps},
    }  # fmt: skip
    payload = base64.b64encode(json.dumps({"predicate": predicate}).encode()).decode()
    signature = {"keyid": "0" * 64, "sig": base64.b64encode(bytes(64)).decode()}
    envelope = {"payloadType": "application/vnd.in-toto+json", "payload": payload, "signatures": [signature]}
    path.write_text(json.dumps(envelope))
    return path


def test_time_of_other_jobs_is_excluded_from_a_measured_mfu(tmp_path: Path) -> None:
    tables = Tables()
    h100 = {"uuid": "a", "peakRow": "h100-sxm5-80gb", "parent": None, "smCount": None, "spanSeconds": "10.0"}
    other = {**h100, "uuid": "b", "peakRow": "a100-sxm4-80gb", "smCount": 108, "spanSeconds": "6.0"}
    gap = {"device": "a", "reason": "other_job", "seconds": "8.0"}
    ours = mfu_of(ledger_of(tmp_path / "ours", [{**h100, "spanSeconds": "2.0"}], [], {}), tables, "bf16")
    shared = mfu_of(ledger_of(tmp_path / "shared", [h100], [gap], {"other_job": "8.0"}), tables, "bf16")
    assert shared.low == shared.high == ours.low == ours.high > Fraction(49, 100)
    unlisted = mfu_of(ledger_of(tmp_path / "unlisted", [h100, other], [], {"other_job": "6.0"}), tables, "bf16")
    for device in ("a", "b"):  # it is unknown which of the two it was
        gap = {"device": device, "reason": "other_job", "seconds": "6.0"}
        one = mfu_of(ledger_of(tmp_path / device, [h100, other], [gap], {"other_job": "6.0"}), tables, "bf16")
        assert unlisted.low <= one.low <= one.high <= unlisted.high


def test_a_run_in_another_number_format_is_a_share_of_that_formats_peak(tmp_path: Path) -> None:
    h100 = {"uuid": "a", "peakRow": "h100-sxm5-80gb", "parent": None, "smCount": None, "spanSeconds": "1.0"}
    ledger = ledger_of(tmp_path / "run", [h100], [], {}, {"sharesPpm": {"fp8": 1_000_000}})
    assert mfu_of(ledger, Tables(), "fp8").high < Fraction(51, 100)
    with pytest.raises(LedgerError, match="computed in fp8, as it declared, not in bf16"):
        mfu_of(ledger, Tables(), "bf16")


def test_a_slice_is_compared_with_the_peak_of_its_own_sms(tmp_path: Path) -> None:
    tables = Tables()
    whole = {"uuid": "a", "peakRow": "h100-sxm5-80gb", "parent": None, "smCount": 132, "spanSeconds": "14.0"}
    one = {**whole, "uuid": "m", "parent": "a", "smCount": 66}
    gap = {"device": "a", "reason": "metered_as_mig", "seconds": "14.0"}
    found = mfu_of(ledger_of(tmp_path / "mig", [whole, one], [gap], {"metered_as_mig": "14.0"}), tables, "bf16")
    half = mfu_of(ledger_of(tmp_path / "half", [{**whole, "spanSeconds": "7.0"}], [], {}), tables, "bf16")
    assert found == replace(half, source=found.source)
    with pytest.raises(LedgerError, match="no datasheet peak of h100-sxm5-80gb in fp4"):
        mfu_of(tmp_path / "half", tables, "fp4")
    with pytest.raises(LedgerError, match="no datasheet peak of NVIDIA X9000 in bf16"):
        mfu_of(ledger_of(tmp_path / "x", [{**whole, "peakRow": None, "model": "NVIDIA X9000"}], [], {}), tables, "bf16")
    with pytest.raises(LedgerError, match="how many SMs"):
        mfu_of(
            ledger_of(tmp_path / "dark", [whole, {**one, "smCount": None}], [gap], {"metered_as_mig": "14.0"}),
            tables,
            "bf16",
        )


def test_a_rule_that_is_above_names_its_assumptions() -> None:
    """10^23 is a criterion for models that generate language or images, which a size cannot show."""
    size = ("--parameters", "1e9", "--dense", "--sequence-length", "512", "--method", "pretraining")
    words = "eu-ai-act gpai-indicative: assumes that the model can generate language"
    assert words in " ".join(run(*size, "--tokens", "1e15").split())
    assert words not in " ".join(run(*size, "--tokens", "1e9").split())


def test_when_one_of_two_rules_applies_both_are_above_only_conditionally() -> None:
    size = ("--parameters", "405e9", "--dense", "--sequence-length", "4096", "--method", "full")
    words = run(*size, "--tokens", "9e12", "--base-flop", "unknown")
    assert "Indeterminate for all 3 thresholds" in words
    assert words.count("above if it applies, at least") == words.count("  above") == 2
