"""Single settings: the values that each check accepts, in YAML and as text, and the messages for those it refuses."""

import re
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.declarations import Method, declared_from
from flopsd.core.model import Precision
from flopsd.core.policy.contradictions import contradictions
from flopsd.core.session_protocol import DeclaredSession
from flopsd.errors import ConfigError, PeakTableError
from flopsd.settings import parsers
from flopsd.settings.client_socket import socket_path
from flopsd.settings.data_files import Tables, load_peaks, load_policies, parse_peaks
from flopsd.settings.device_selection import DevicesSetting, Whose, parse_devices
from flopsd.settings.evidence_kinds import KINDS
from flopsd.settings.load import declared_of
from flopsd.settings.precision_shares import device_precision, precision
from flopsd.settings.push_targets import Target, parse_target
from flopsd.settings.schema import BY_KEY, SETTINGS
from flopsd.settings.words import say
from tests.second_implementation.arithmetic import payload_of
from tests.support.runs import H100, finished
from tests.support.settings import load_settings

minute = parsers.seconds(0.5, 60)
minute_or_off = parsers.seconds_or_off(0.5, 60)
method = parsers.one_of(Method)

TAKEN: list[tuple[Any, list[tuple[object, object]]]] = [
    (parsers.text, [("x", "x")]),
    (parsers.text_or_off, [(False, "off"), ("false", "off")]),
    (parsers.text_or_number, [(1000, "1000"), (0, "0"), ("alice", "alice")]),
    (parsers.uids, [("1000, 7,7", (7, 1000)), ([1000, "7"], (7, 1000)), (0, (0,))]),
    (minute, [("0.5", 0.5), (60, 60.0)]),
    (minute_or_off, [("off", None), (False, None), ("false", None), ("0", None), (1, 1.0)]),
    (parsers.seconds_or_zero(0.5, 60), [("off", 0.0), ("2", 2.0)]),
    (parsers.locations, [("a.json s3://abc/d.json", ("a.json", "s3://abc/d.json")), (["a b.json"], ("a b.json",))]),
    (parsers.pushes, [("pushgateway+http://h:1 otlp+http://h/p", ("pushgateway+http://h:1", "otlp+http://h/p"))]),
    (parsers.sources, [("nvml, dcgm", ("nvml", "dcgm"))]),
    (parsers.flag, [("Yes", True), ("0", False), (False, False)]),
    (parsers.listen, [(False, None), ("off", None), ("[::1]:0", "[::1]:0"), (":65535", ":65535")]),
    (parsers.rotate_every, [("7d", "7d"), ("256MB", "256MB"), ("off", None), (False, None), (None, None)]),
    (parsers.run_id, [("a" * 128, "a" * 128), ("7.x_Y-z", "7.x_Y-z")]),
    (method, [("lora", "lora"), ("undeclared", None), (None, None)]),
    (parsers.flop_or_unknown, [("1e25", 10**25), ("unknown", "unknown"), ("undeclared", None), (None, None), (1, 1)]),
    (parsers.flop_or_unknown, [(10**39 - 1, 10**39 - 1)]),
    (parsers.files, [("a b", ("a", "b")), (["a b"], ("a b",))]),
    (parsers.output, [(False, "off"), ("false", "off"), ("stderr", "stderr")]),
    (parsers.url, [("https://h:9400/metrics?x=1", "https://h:9400/metrics?x=1")]),
    (parsers.evidence, [("off", ()), (False, ()), (", ".join(KINDS), KINDS), ([KINDS[1]], (KINDS[1],))]),
]


@pytest.mark.parametrize(("check", "given", "value"), [(check, *pair) for check, each in TAKEN for pair in each])
def test_valid_values_of_a_setting_are_accepted(check: Any, given: object, value: object) -> None:
    assert check(given) == value


REFUSED: list[tuple[Any, list[object], str]] = [
    (parsers.text, ["", 7], "expected text"),
    (parsers.text_or_off, [True], "expected text"),
    (parsers.text_or_number, [-1, True, 1.5, "", None], "expected text"),
    (parsers.uids, ["me", [True], -1, {}, "9" * 5000], "expected numbers of users"),
    (minute, [True, []], "expected a number of seconds"),
    (minute, ["1 s"], "without a unit"),
    (minute, ["nan", 0.4999, 60.0001], "between 0.5 and 60 seconds"),
    (minute_or_off, ["0.1"], "between 0.5 and 60 seconds"),
    (minute_or_off, [True], "expected a number of seconds"),
    (parsers.locations, ["a a"], "each once"),
    (parsers.locations, [{}], "expected a list of"),
    (parsers.location, ["s3://UPPER/x"], "is not a bucket name"),
    (parsers.pushes, [{}], "expected a list of receivers"),
    (parsers.pushes, ["pushgateway+http://h:1 pushgateway+http://h:1/#job=x"], "a receiver is named twice"),
    (parsers.sources, ["", [], [7]], "expected a list of source names"),
    (parsers.sources, ["nvml,nvml"], "a source is named twice"),
    (parsers.flag, ["maybe", 1], "expected true or false"),
    (parsers.listen, ["h", "h:65536"], "expected HOST:PORT"),
    (parsers.listen, [True], "expected text"),
    (parsers.listen, [10188], "expected HOST:PORT"),
    (parsers.rotate_every, [3600], "an age such as 12h"),
    (parsers.path, ["~/state"], "~ is not expanded here"),
    (parsers.location, ["~/ledger.json"], "~ is not expanded here"),
    (parsers.path_or_none, ["~"], "~ is not expanded here"),
    (parsers.run_id, ["a" * 129], "at most 128"),
    (parsers.run_id, [7, date(2026, 1, 1)], "in YAML put it in quotes"),
    (parsers.run_id, [""], "leave the setting out"),
    (parsers.run_id, ["-a"], "beginning with a letter or digit"),
    (method, ["guessing"], "expected one of pretraining, full"),
    (parsers.flop_or_unknown, [0, 10**39], "positive number of FLOP below 1e39"),
    (parsers.files, [[7], {}], "expected a list of policies"),
    (parsers.output, ["file", True], "expected stdout, stderr or off"),
    (precision, ["bf16,bf16"], "a format is named twice"),
    (precision, [7], "expected a format such as bf16"),
    (precision, ["bf17"], "'bf17' is not a number format"),
    (precision, ["bf16:many", "bf16:inf"], "the share of bf16 is not a number"),
    (precision, ["bf16:0.9"], "add up to 1"),
    (precision, ["bf16:1,fp8:0"], "must be positive"),
    (device_precision, ["0"], "expected DEVICE=FORMAT"),
    (device_precision, ["0=bf16;0=fp8", {"GPU-A": "bf16", "gpu-a": "fp8"}], "a device is named twice"),
    (device_precision, [[], 7], "expected devices, by UUID or index"),
    (device_precision, [{0: {"bf16": 2}}], "add up to 1"),
    (parsers.url, ["ftp://h", "http://h /x", "http://h:99999/x", 7], "expected a URL"),
    (parsers.evidence, ["", True, [], ["gossip"]], "expected off, or some of"),
    (parsers.evidence, [[KINDS[0], KINDS[0]]], "a kind is given twice"),
    (parse_target, ["http://h"], "expected KIND.http"),
    (parse_target, ["kafka+http://h"], "with KIND one of pushgateway, otlp, remotewrite"),
    (
        parse_target,
        ["otlp+ftp://h/p", "otlp+http:///p", "otlp+http://h/a b", "otlp+http://h/a\x07"],
        "expected an address such as otlp",
    ),
    (parse_target, ["otlp+http://h:0/p"], "port 0 cannot be used"),
    (parse_target, ["otlp+http://h:99999/p"], "out of range"),
    (parse_target, ["otlp+http://me:secret@h/p"], "credentials in an address"),
    (parse_target, ["otlp+http://h"], "the path is missing; for Prometheus it is /api/v1/otlp"),
    (parse_target, ["remotewrite+http://h/"], "the path is missing; for Prometheus it is /api/v1/write"),
    (parse_target, ["pushgateway+http://h/?a=1"], "has no query"),
    (parse_target, ["otlp+http://h/p#sigv4=eu-west-1"], "sigv4 works with remotewrite only"),
    (
        parse_target,
        ["remotewrite+http://h/p#sigv4=eu-west-1&auth=/a"],
        "sigv4 works with remotewrite only, and without auth",
    ),
    (parse_target, ["otlp+http://h/p#auth"], "expected options after the address"),
    (parse_target, ["otlp+http://h/p#auth="], "each at most once and with a value"),
    (parse_target, ["otlp+http://h/p#job=a&job=b"], "each at most once"),
    (parse_target, ["otlp+http://h/p#colour=blue"], "options after # are auth, ca, job, sigv4, tenant"),
    (parse_target, ["otlp+http://h/p#job=-a"], "job=-a is not a valid job"),
    (parse_target, ["otlp+http://h/p#tenant=a/b"], "is not a valid tenant"),
    (parse_target, ["remotewrite+http://h/p#sigv4=moon"], "sigv4=moon is not a valid AWS region"),
    (parse_devices, ["", [], True, [True], [1.5], {"0": 1}, None, "0,,1"], "expected all"),
    (parse_devices, ["vissible"], "'vissible' is neither a rule nor a device"),
    (parse_devices, ["-1"], "'-1' is neither"),
    (parse_devices, ["all,0"], "'all' cannot be combined with others"),
    (parse_devices, ["job:", "job:a b"], "a job id after job:"),
    (parse_devices, ["0,1,0", "GPU-AB,gpu-ab"], "named twice"),
]


@pytest.mark.parametrize(
    ("check", "given", "reason"), [(check, given, reason) for check, each, reason in REFUSED for given in each]
)
def test_invalid_values_of_a_setting_are_refused(check: Any, given: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check(given)


LIMITS = {
    "interval_seconds": (0.1, 60), "checkpoint_seconds": (0.2, 3600), "push_every_seconds": (1, 3600),
    "seal_every_seconds": (1, 86400), "duration_seconds": (0.1, 400 * 86400), "stop_seconds": (1, 600),
    "last_scrape_seconds": (0, 600), "metric_line_seconds": (1, 3600), "stop_window_seconds": (1, 86400),
}  # fmt: skip


def test_settings_in_seconds_have_their_limits() -> None:
    assert {one.key for one in SETTINGS if one.key.endswith("_seconds")} == LIMITS.keys()
    for key, (least, most) in LIMITS.items():
        parse = BY_KEY[key].parse
        assert (parse(str(least)), parse(most)) == (least, most)
        for beyond in (least - 0.01, most + 0.01):
            with pytest.raises(ValueError, match=re.escape(f"expected between {least:g} and {most:.10g} seconds")):
                parse(beyond)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("all", DevicesSetting()),
        ("visible", DevicesSetting(Whose.VISIBLE)),
        (["pod"], DevicesSetting(Whose.POD)),
        ("processes", DevicesSetting(Whose.PROCESSES)),
        ("job", DevicesSetting(Whose.JOB)),
        ("job:4711_3", DevicesSetting(Whose.JOB, job="4711_3")),
        ("0", DevicesSetting(Whose.NAMED, ("0",))),
        (3, DevicesSetting(Whose.NAMED, ("3",))),
        ([0, "GPU-ab"], DevicesSetting(Whose.NAMED, ("0", "GPU-ab"))),
        ("GPU-8932f937 , MIG-GPU-8932f937/1/2", DevicesSetting(Whose.NAMED, ("GPU-8932f937", "MIG-GPU-8932f937/1/2"))),
    ],
)
def test_a_selection_of_devices_is_read(value: object, expected: DevicesSetting) -> None:
    assert parse_devices(value) == expected
    assert parse_devices(str(expected)) == expected


def test_a_push_receiver_is_read_with_its_options() -> None:
    assert parse_target("remotewrite+https://h:9/api/v1/write?x=1#sigv4=eu-west-1&tenant=a|b&ca=/c.pem&job=j") == Target(
        "remotewrite", "https://h:9/api/v1/write?x=1", "remotewrite+https://h:9/api/v1/write",
        job="j", ca="/c.pem", sigv4="eu-west-1", tenant="a|b",
    )  # fmt: skip
    assert parse_target("otlp+http://x/v1/metrics/").url == "http://x/v1/metrics/"
    assert parse_target("pushgateway+http://h:9091/#auth=/a+b%20c") == Target(
        "pushgateway", "http://h:9091", "pushgateway+http://h:9091", auth="/a+b c"
    )


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"base_flop_method": "6ND", "base_flop": "unknown"}, "--base-flop-method"),
        ({"base_model": "x"}, "--base-model and --base-systemic describe a base model"),
        ({"base_systemic": "true"}, "--base-model and --base-systemic describe a base model"),
        ({"method": "pretraining", "base_flop": "1e23"}, "--method pretraining has no base model"),
        ({"base_flop": "3.8e25", "base_systemic": "false"}, r"Article 51\(2\) presumes .* --base-systemic-reason"),
        ({"base_flop": "3.8e25", "base_systemic_reason": "rebutted"}, "explains --base-systemic false"),
    ],
)
def test_contradictory_declarations_are_refused(flags: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError) as fault:
        declared_of(load_settings(flags, {}))
    assert len(fault.value.problems) == 1
    assert re.search(reason, fault.value.problems[0])


@pytest.mark.parametrize(
    ("flags", "kind", "flop"),
    [({"base_flop": "1e23"}, "known", 10**23), ({"base_flop": "unknown"}, "unknown", None),
     ({"base_flop": "1e23", "base_flop_method": "6ND"}, "estimated", 10**23)],
)  # fmt: skip
def test_the_kind_of_a_base_model_follows_from_its_declared_fields(
    flags: dict[str, str], kind: str, flop: int | None
) -> None:
    base = declared_of(load_settings(flags, {})).base
    assert base is not None
    assert (base.kind, base.flop) == (kind, flop)


def test_every_accepted_base_model_can_be_read_back_from_the_journal() -> None:
    """A daemon used to meter for its whole life and seal nothing, because all readers refused its first record."""
    texts = {"base_model": "Llama\N{NO-BREAK SPACE}3.1\t8B", "base_flop_method": " 6 x 8e9\nx 15e12\n"}
    declared = declared_of(load_settings({**texts, "base_flop": "1e24"}, {}))
    assert declared_from(declared.for_journal()) == declared
    assert declared.base is not None
    assert (declared.base.name, declared.base.method) == ("Llama 3.1 8B", "6 x 8e9 x 15e12")
    for key in ("base_model", "base_flop_method", "base_systemic_reason"):
        for words in ("x\N{RIGHT-TO-LEFT OVERRIDE}y", "x\x1by", "\udcff", "x" * 201, " \n"):
            with pytest.raises(ConfigError, match="at most 200 printable characters"):
                load_settings({key: words}, {})


def test_a_presumption_of_systemic_risk_is_overridden_with_a_reason() -> None:
    flags = {"base_flop": "3.8e25", "base_systemic": "false", "base_systemic_reason": "rebutted: decision 7"}
    declared = declared_of(load_settings(flags, {}))
    assert declared_from(declared.for_journal()) == declared
    (found,) = contradictions([declared], (), load_policies())
    assert found.name == "SYSTEMIC_RISK_IS_PRESUMED"
    words = say("declared.contradictions", found.note)
    assert "above 1e25 FLOP" in words
    assert words.endswith("the settings declare that it does not: rebutted: decision 7")
    estimated = {"base_flop": "1.2e25", "base_flop_method": "6ND", "base_systemic": "false"}
    assert contradictions([declared_of(load_settings(estimated, {}))], (), load_policies()) == (), (
        "0.84e25 is not above"
    )


@pytest.mark.parametrize(
    ("settings", "facts", "work", "names"),
    [
        ({"base_flop": "3.8e25"}, {}, {}, ["SYSTEMIC_RISK_IS_PRESUMED"]),
        ({"base_flop": "3.8e25", "base_systemic": "true"}, {}, {}, []),
        ({"method": "lora"}, {"method": "full"}, {}, ["METHOD_DIFFERS"]),
        (
            {"base_model": "meta-llama/Llama-3.1-8B", "base_flop": "1e24"},
            {"model_name": "Qwen/Qwen2.5-7B"},
            {},
            ["BASE_MODEL_DIFFERS"],
        ),
        ({"base_model": "Llama 3.1 8B", "base_flop": "1e24"}, {"model_name": "meta-llama/Llama-3.1-8B"}, {}, []),
        ({"base_model": "Llama 3.1 8B", "base_flop": "1e24"}, {"model_name": "/opt/ml/input/data/model"}, {}, []),
        ({"base_flop": "1e24"}, {"model_name": "Qwen/Qwen2.5-7B"}, {}, []),
        ({"base_flop": "1e24"}, {"method": "pretraining"}, {}, ["PRETRAINING_WITH_A_BASE"]),
        ({"phase": "evaluate", "method": "full"}, {}, {}, ["EVALUATION_WITH_A_METHOD"]),
        ({"phase": "evaluate"}, {}, {"train": {"tokens": 5}}, ["EVALUATION_THAT_TRAINS"]),
        ({"phase": "evaluate"}, {}, {"train": {"patches": 5}}, ["EVALUATION_THAT_TRAINS"]),
        ({"method": "full"}, {"parameters_total": 9, "parameters_trainable": 3}, {}, ["TRAINABLE_SHARE_DIFFERS"]),
        ({}, {"method": "lora", "parameters_total": 9, "parameters_trainable": 9}, {}, ["TRAINABLE_SHARE_DIFFERS"]),
        ({"method": "lora"}, {"method": "lora", "parameters_total": 9, "parameters_trainable": 3}, {}, []),
        ({"recomputation": "none"}, {}, {"train": {"tokens": 5, "fused_head_tokens": 5}}, ["LOSS_RECOMPUTES"]),
        ({"recomputation": "selective"}, {}, {"train": {"tokens": 5, "fused_head_tokens": 5}}, []),
    ],
)
def test_each_contradiction_of_declarations_is_named_once(
    settings: dict[str, str], facts: dict[str, object], work: dict[str, dict[str, int]], names: list[str]
) -> None:
    session = DeclaredSession("5e", 1, 0, "client", facts, work)
    found = contradictions([declared_of(load_settings(settings, {}))], (session, session), load_policies())
    assert [one.name for one in found] == names, "each once"


def test_a_socket_path_that_is_too_long_is_refused_if_requested(tmp_path: Path) -> None:
    assert socket_path("off", tmp_path) is None
    fitting = "/" + "x" * 106
    assert socket_path(fitting, tmp_path) == Path(fitting)
    with pytest.raises(ConfigError, match="longer than the 107 bytes"):
        socket_path(fitting + "x", tmp_path)
    assert len(str(socket_path(None, tmp_path / ("y" * 120)))) <= 107


def test_a_missing_or_invalid_peak_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(PeakTableError, match="cannot read the peak table .*: No such file"):
        load_peaks(str(tmp_path / "missing.yaml"))
    for data in (b"- 1\n", b"", b"a: [\n", b"a: 1\na: 2\n"):
        with pytest.raises(PeakTableError, match="x.yaml"):
            parse_peaks(data, "x.yaml")
    with pytest.raises(PeakTableError, match="x.yaml: peak table is malformed: 'schema' is missing"):
        parse_peaks(b"a: 1\n", "x.yaml")
    with pytest.raises(PeakTableError, match="no peak table with SHA-256 00"):
        Tables().peaks("00" * 32)
    with pytest.raises(ConfigError) as fault:
        Tables(peaks_files=[str(tmp_path / "a")], policy_files=[str(tmp_path / "b")])
    assert [problem.rpartition("/")[2] for problem in fault.value.problems] == [
        f"{name}: No such file or directory" for name in "ab"
    ]


BF16, FP8 = Precision((("bf16", 1_000_000),), "config"), Precision((("fp8", 1_000_000),), "config")
MIX = Precision((("bf16", 900_000), ("fp8", 100_000)), "config")


@pytest.mark.parametrize("value", ["0=bf16;GPU-a=bf16:0.9,fp8:0.1", {0: "bf16", "GPU-a": {"bf16": 0.9, "fp8": 0.1}}])
def test_device_precision_is_read_from_text_and_yaml(value: object) -> None:
    assert device_precision(value) == {"0": BF16, "GPU-a": MIX}
    assert load_settings({"precision": "fp8:0.1,bf16:0.9"}, {}).precision == MIX
    assert load_settings({"precision": "undeclared"}, {}).precision is None
    assert MIX.label == "bf16:0.9,fp8:0.1"


def test_the_ledger_rates_each_device_by_its_own_declaration(tmp_path: Path) -> None:
    other = replace(H100, uid="GPU-h2", index=1)
    run = finished(tmp_path / "state", 5, devices=(H100, other), precision=BF16, device_precision={"gpu-H2": FP8})
    sealed = run.seal(tmp_path / "ledger.json")
    rated = {
        device["uuid"]: (
            row["precision"],
            row["precisionDeclaredBy"],
            int(row["flop"]["measured"]) // int(row["smCycles"]),
        )
        for device in payload_of(sealed.ledger)["predicate"]["devices"]
        for row in device["work"]
        if row["pipe"] == "tensor_hmma"
    }
    assert rated == {"GPU-h": ("bf16", "config", 4096), "GPU-h2": ("fp8", "config", 8192)}
