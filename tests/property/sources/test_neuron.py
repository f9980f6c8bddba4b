"""Properties of the Neuron accounting: any line is read or refused, sums are exact, order does not matter, gaps stay
gaps."""

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.model import Counted, Gap, GapReason
from flopsd.sources.neuron.document import Core, DocumentError, parse, scrub
from flopsd.sources.neuron.flop_per_chip import account, period_ends
from flopsd.sources.validate import check_facts

CHIPS, PER_CHIP = 3, 2
cores = st.fixed_dictionaries(
    {"effective_flops": st.integers(1, 10**15)}, optional={"neuroncore_utilization": st.floats(0, 100)}
)
groups = st.fixed_dictionaries(
    {
        "period": st.integers(1, 9 * 10**9).map(lambda ns: ns / 10**9),
        "neuroncores_in_use": st.dictionaries(st.integers(0, CHIPS * PER_CHIP - 1).map(str), cores),
        "error": st.just(""),
    }
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
SHAPES = ("neuron_runtime_data", "report", "neuroncore_counters", "period", "error", "neuroncores_in_use", "0",
          "effective_flops", "flops", "neuroncore_utilization", "neuron_hardware_info", "neuron_device_count",
          "neuroncore_per_device_count", "system_data", "neuron_hw_counters", "pid")  # fmt: skip
LIKELY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(SHAPES), inner, max_size=5),
    max_leaves=40,
)


def line(*groups: dict[str, Any], **more: Any) -> bytes:
    runtimes = [{"pid": pid, "error": "", "report": {"neuroncore_counters": group}} for pid, group in enumerate(groups)]
    return json.dumps({"neuron_runtime_data": runtimes, **more}).encode()


OUT, ODD = GapReason.OUT_OF_RANGE, GapReason.NOT_A_NUMBER


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *(
            (text, Fraction(text))
            for text in ("0", "7", "0.1", "1e-30", "1.5e-30", "9.9e29", "9" * 30, "0." + "1" * 62)
        ),
        *((text, Fraction(0)) for text in ("0.0", "-0.0", "-0", "9.9e-31", "1e-300", "0e99")),
        *((text, OUT) for text in ("-1", "-0.1", "-1e-300", "1" + "0" * 30, "1e30", "1e31", "1e300")),
        *((text, ODD) for text in ("NaN", "Infinity", "-Infinity", "true", "false", '"1"', "[1]", "{}")),
        ("null", None),
        ("0." + "1" * 63, DocumentError),
        ("1" * 65, DocumentError),
    ],
)
def test_a_number_is_exact_or_a_gap_reason(text: str, found: Fraction | GapReason | type[Exception] | None) -> None:
    core = f'{{"flops": {text}, "neuroncore_utilization": 9}}'
    raw = line({"period": 1, "neuroncores_in_use": {"0": "CORE"}}).replace(b'"CORE"', core.encode())
    if isinstance(found, type):
        with pytest.raises(found):
            parse(raw)
        return
    expected = Core(found, Fraction(9)) if not isinstance(found, GapReason) else Core(None, None, found)
    (runtime,) = parse(raw).runtimes
    assert runtime.cores == {0: expected}
    assert runtime.period_seconds == 1


@pytest.mark.parametrize(
    ("group", "key", "value", "name", "expected"),
    [
        *(("neuron_hardware_info", "neuron_device_type", value, "device_type", expected)
          for value, expected in (("trn", "trn"), ("", None), (7, None), (None, None), (["trn"], None))),
        *(("neuron_hardware_info", "neuron_device_count", value, "device_count", expected)
          for value, expected in ((16, 16), (0, 0), (-1, None), (True, None), ("2", None), (2.0, None))),
        *(("neuron_hardware_info", "neuroncore_per_device_count", value, "cores_per_device", expected)
          for value, expected in ((8, 8), (1, 1), (0, None), (-1, None), ("2", None))),
        *(("neuron_hardware_info", "error", value, "hardware_error", expected)
          for value, expected in (("lost", "lost"), ("", ""), (None, ""))),
        *(("instance_info", "instance_type", value, "instance_type", expected)
          for value, expected in (("trn1.2xlarge", "trn1.2xlarge"), ("", None), (5, None))),
        *(("system_data", "neuron_hw_counters", {"period": value}, "system_period_seconds", expected)
          for value, expected in ((5, 5), (0.5, Fraction(1, 2)), (0, None), (-1, None), ("1", None), (True, None))),
    ],
)  # fmt: skip
def test_a_fact_of_the_wrong_type_is_absent(group: str, key: str, value: object, name: str, expected: object) -> None:
    found = getattr(parse(line(**{group: {key: value}})), name)
    assert found == expected
    assert not isinstance(found, bool)


@pytest.mark.parametrize("raw", [b"[]", b"{}", b'{"neuron_runtime_data": {}}', b'{"neuron_runtime_data": "x"}', b"7"])
def test_json_without_a_list_of_runtimes_is_no_document(raw: bytes) -> None:
    with pytest.raises(DocumentError):
        parse(raw)


def test_an_empty_list_may_be_null_and_a_runtime_is_named_by_process_and_tag() -> None:
    assert parse(b'{"neuron_runtime_data": null}').runtimes == ()
    named = [{"pid": 7, "neuron_runtime_tag": "t"}, {"neuron_runtime_tag": "t"}, {}, None]
    runtimes = parse(json.dumps({"neuron_runtime_data": named}).encode()).runtimes
    assert [one.key for one in runtimes] == ["7/t", "#1/t", "#2/", "#3/"]
    assert {one.error for one in runtimes} == {"no usable neuroncore_counters"}


def test_a_runtime_whose_report_is_an_error_has_no_time() -> None:
    (runtime,) = parse(line({"period": 5.0, "error": "lost", "neuroncores_in_use": {}})).runtimes
    assert (runtime.key, runtime.error, runtime.period_seconds, runtime.cores) == ("0/", "lost", Fraction(0), {})


@given(JSON | LIKELY | LIKELY.map(lambda data: {"neuron_runtime_data": [{"report": {"neuroncore_counters": data}}]}))
def test_any_json_is_an_accountable_document_or_refused(data: Any) -> None:
    try:
        document = parse(json.dumps(data).encode())
    except DocumentError:
        return
    shown = account(document, CHIPS, PER_CHIP, {})
    assert len(shown.work) == CHIPS
    assert shown.period_ns >= 0


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_as_no_document(data: bytes) -> None:
    with pytest.raises(DocumentError):
        parse(data)


@given(st.lists(groups, max_size=4), st.randoms())
def test_flop_are_exact_sums_of_rate_times_period_in_any_order(found: list[dict[str, Any]], order: Any) -> None:
    shown = account(parse(line(*found)), CHIPS, PER_CHIP, {})
    for chip in range(CHIPS):
        true = sum(
            (
                core["effective_flops"] * Fraction(str(group["period"]))
                for group in found
                for index, core in group["neuroncores_in_use"].items()
                if int(index) // PER_CHIP == chip
            ),
            Fraction(0),
        )
        work = shown.work[chip]
        assert isinstance(work, Counted)
        assert abs(work.flop - true) <= Fraction(1, 2)
    order.shuffle(found)
    assert account(parse(line(*found)), CHIPS, PER_CHIP, {}).work == shown.work


@given(st.lists(groups, min_size=1, max_size=3), st.sampled_from(["error", "period", "neuroncores_in_use"]))
def test_one_unreadable_runtime_makes_every_chip_a_gap(found: list[dict[str, Any]], broken: str) -> None:
    others = account(parse(line(*found[1:])), CHIPS, PER_CHIP, {}).work
    found[0] = {**found[0], broken: "?"}
    for work, known in zip(account(parse(line(*found)), CHIPS, PER_CHIP, {}).work, others, strict=True):
        assert isinstance(work, Gap)
        assert isinstance(known, Counted)
        assert work.reason is GapReason.DRIVER_ERROR
        assert abs(work.counted_flop - known.flop) <= 1  # FLOP known to have been executed stay known


def test_the_first_rate_field_present_is_used_even_if_zero() -> None:
    both = {"period": 1, "neuroncores_in_use": {"0": {"flops": 5, "effective_flops": 0}, "1": {"flops": 7}}}
    document = parse(line(both))
    assert document.rate_field == "effective_flops"
    assert account(document, 1, 2, {}).work == [Counted(7)]


SECOND = parse(line({"period": 1, "neuroncores_in_use": {}}))


@given(st.lists(st.tuples(st.integers(0, 10**11), st.sampled_from([SECOND, None])), max_size=8))
def test_a_period_ends_no_later_than_its_line_and_lines_keep_their_order(found: list[tuple[int, Any]]) -> None:
    came = sorted(found, key=lambda item: item[0])
    ends = period_ends(came, {})
    assert ends == sorted(ends)
    assert all(end_ns <= at_ns for end_ns, (at_ns, _) in zip(ends, came, strict=True))
    assert not came or ends[-1] == came[-1][0]


def test_ids_of_machines_and_networks_are_scrubbed() -> None:
    said = "on i-0011223344556677a (ami-0ceecbb0f30a902a6, subnet-112233ee): inf-2"
    assert scrub(said) == "on (id) ((id), (id)): inf-2"


@given(st.dictionaries(st.sampled_from(["neuron_device_type", "neuron_device_version", "neuron_device_memory_size"]),
                       JSON | st.integers(10**20, 10**60) | st.just("\ud800")))  # fmt: skip
def test_stated_hardware_facts_fit_the_ledger_or_are_left_out(hardware: dict[str, Any]) -> None:
    line = json.dumps({"neuron_runtime_data": [], "neuron_hardware_info": hardware}).encode()
    facts = parse(line).facts
    check_facts(facts)
    assert all(
        facts.get(name) == value for name, value in hardware.items() if isinstance(value, str) and value.isascii()
    )
