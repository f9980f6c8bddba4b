"""The Form's figures and texts, from the published ledgers and from ledgers with more declarations."""

from datetime import datetime
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.declarations import Base, Method
from flopsd.core.figures import Figures
from flopsd.core.policy.evaluate import Case, findings
from flopsd.core.policy.guidelines import Guidelines
from flopsd.core.values import span_seconds
from flopsd.errors import PolicyError
from flopsd.report.contents.coverage import coverage_of
from flopsd.report.contents.model import Form, FormLine
from flopsd.report.contents.model_documentation import band, figure_text, form, order_of_magnitude
from flopsd.report.ledger_json import LedgerObject
from flopsd.settings.data_files import load_peaks, load_policies, parse_policy
from tests.second_implementation.arithmetic import payload_of
from tests.support.paths import VECTORS
from tests.unit.attestation.test_lineage_base import POLICY

ACT = next(policy for policy in load_policies() if policy.id == "eu-ai-act")
SYSTEMIC = Base("b", "known", 10**24, None, True)


def node(name: str = "activity-and-gaps", kind: str = "valid") -> dict[str, Any]:
    found: dict[str, Any] = payload_of(VECTORS / kind / name / "ledger.json")["predicate"]
    return found


def all_counted(ledger: dict[str, Any]) -> dict[str, Any]:
    """A ledger in which all executed FLOP count."""
    executed = {name: ledger["totals"]["executed"][name] for name in ("low", "measured", "high")}
    ledger["totals"]["guidelines"] |= {**executed, "cumulative": executed}
    return ledger


def lines(made: Form) -> dict[str, FormLine]:
    return {line.field: line for line in made.lines}


def texts_of(figures: Figures) -> dict[str, str | None]:
    texts = (None if n is None else str(n) for n in (figures.low_flop, figures.measured_flop, figures.high_flop))
    return dict(zip(("low", "measured", "high"), texts, strict=True))


def judged(updates: Figures, cumulative: Figures, method: Method, base: Base | None) -> dict[str, Any]:
    """A published ledger with the account and findings of another."""
    ledger = node()
    ledger["totals"]["guidelines"] = {
        **texts_of(updates),
        "cumulative": texts_of(cumulative),
        "requiredPpmSource": ["not_declared"],
        "method": "annex_a1",
    }
    ledger["findings"] = [f.for_ledger() for f in findings(ACT, Case(Guidelines(updates, cumulative), method, base))]
    ledger["declared"] = {
        "method": method.value,
        "base": None if base is None else {"name": base.name, "kind": base.kind},
    }
    return ledger


def test_a_node_in_the_words_of_the_form() -> None:
    found = lines(form(all_counted(node()), ACT))
    compute = found["Amount of computation used for training"]
    assert (compute.ai_office, compute.national) == (
        "6.0x10^15 FLOP",
        "10^15 FLOP (orders of magnitude from 10^15 FLOP to 10^16 FLOP)",
    )
    assert compute.note.startswith("between 2.7x10^15 and 3.4x10^16 FLOP; "), "3.31 is rounded up"
    assert "65.8 % of device time was not measured and is not in the figure" in compute.note, "10 s + 15 s of 38 s"
    assert "compute directly contributing to parameter updates" in compute.note
    wall = found["Training time, wall clock"]
    assert (wall.ai_office, wall.national) == ("0.00017 days", "less than 1 month")
    assert found["Training time, hardware"].ai_office.count(" days") == 2
    energy = found["Energy used for training"]
    assert energy.ai_office == "at least 7.0x10^-9 MWh", "of the first second nothing is known"
    assert "accelerators only" in energy.note
    methodology = found["Measurement methodology, compute"].ai_office
    assert "73.6 % was observed, 39.5 % by a ceiling alone. Unmeasured time counts" in methodology, "73.68 and 39.47"
    assert found["Total model size"].ai_office == "not known"
    assert found["Model dependencies"].ai_office == "not known"


def test_a_job_in_the_words_of_the_form() -> None:
    found = lines(form(all_counted(node("job", "merged")), ACT))
    wall = found["Training time, wall clock"]
    assert (wall.ai_office, wall.national) == ("at most 0.000058 days", "less than 1 month"), "4 s and what is cut off"
    assert "50 % of device time was not measured" in found["Amount of computation used for training"].note
    assert "accelerator days" in found["Training time, hardware"].ai_office
    ledger = node("job", "merged")
    ledger["coverage"] |= {"spanSeconds": "0.000000000", "coveragePpm": None, "gapSecondsByReason": {}}
    hardware = lines(form(ledger, ACT))["Training time, hardware"]
    assert (hardware.ai_office, hardware.note) == ("not known", "no device time was metered")


def test_the_software_that_measured_is_not_that_which_sealed() -> None:
    def software(ledger: dict[str, Any]) -> str:
        ledger["method"]["flopsdVersion"] = "9.9"  # on the machine of whoever sealed or merged
        return lines(form(ledger, ACT))["Measurement methodology, compute"].ai_office

    one = node()
    for start, version in zip(one["incarnations"], ("0.2", "0.1"), strict=True):
        start["flopsdVersion"] = version
    assert software(one).startswith("Measured with flopsd 0.1, 0.2 from hardware activity percentages")
    job = node("job", "merged")
    job["method"]["flopsdVersions"] = ["0.1", "0.2"]
    assert software(job).startswith("Measured with flopsd (ledgers of version 0.1, 0.2) from hardware activity")


def test_the_form_names_a_peak_table_that_is_not_flopsds_own() -> None:
    def method(*tables: str) -> str:
        ledger = node("job", "merged") if len(tables) > 1 else node()
        ledger["method"]["peakTableSha256"] = [*tables] if len(tables) > 1 else tables[0]
        return lines(form(ledger, ACT))["Measurement methodology, compute"].ai_office

    ours, (one, *more) = load_peaks().sha256, [f"{digit}" * 64 for digit in "abcde"]
    assert "not flopsd's own" not in method(ours)
    assert f"The rates are not flopsd's own, but those of the peak table of SHA-256 {one}." in method(one)
    assert f"The rates of some ledgers are not flopsd's own, but those of the peak table of SHA-256 {one}." in method(
        ours, one
    )
    named = ", ".join((one, *more[:2]))
    assert f"The rates are not flopsd's own, but those of peak tables of SHA-256 {named} and 2 more." in method(
        one, *more
    )


def test_a_figure_that_holds_a_count_by_the_training_process_says_so() -> None:
    """It does hold work of the time that no counter measured."""
    note = lines(form(node("operator-count"), ACT))["Amount of computation used for training"].note
    assert "of that time the figure holds only what training processes counted, which nobody checked" in note
    assert "not in the figure" not in note
    ledger = node("operator-count")
    method = lines(form(ledger, ACT))["Measurement methodology, compute"].ai_office
    assert "the lower bound hold of it only what training processes counted, which nobody checked." in method
    assert "upper bound only" not in method
    ledger["totals"]["guidelines"]["measured"] = None
    note = lines(form(ledger, ACT))["Amount of computation used for training"].note
    assert "of that time the lower bound holds only what training processes counted" in note
    coverage = coverage_of(LedgerObject(ledger, "predicate")).text
    assert coverage.count("only, except for what training processes counted of it, which nobody checked.") == 1
    assert coverage.count("devices can do, except for what training processes counted of it") == 1


def test_an_assumed_number_format_is_stated() -> None:
    def method(ledger: dict[str, Any]) -> str:
        return lines(form(ledger, ACT))["Measurement methodology, compute"].ai_office

    assumed = "The number format of some tensor work was not declared: for it the estimate takes dense BF16 (FP16 on a part without it)"
    assert assumed in method(node("activity-and-gaps"))
    assert "number format of" not in method(node("cycles-recovered")), "BF16 is declared"
    assert "number format of" not in method(node("neuron-count")), "counted whole"
    assert "replayed recording" in method(node("replay"))
    assert "whose number format was not declared" in method(node("job", "merged"))


def test_an_upper_end_is_rounded_up_and_an_incomplete_ledger_has_none() -> None:
    """125 107 s are 1.448 days. The device time of the ledgers at hand is a lower bound of the whole."""
    job = node("job", "merged")
    job |= {"startedAt": "2026-01-01T00:00:00Z", "lastRecordAt": "2026-01-02T10:45:06.9Z"}
    job["coverage"] |= {"spanSeconds": "250560.0", "gapSecondsByReason": {}}  # 2.9 days
    found = lines(form(job, ACT))
    assert found["Training time, wall clock"].ai_office == "at most 1.5 days"
    assert found["Training time, hardware"].ai_office == "2.9 accelerator days"
    job["coverage"]["spanSeconds"] = "258336.0"  # 2.99 days
    job["completeness"]["complete"] = None
    found = lines(form(job, ACT))
    assert found["Training time, wall clock"].ai_office == "1.4 days, by the ledgers that are here"
    assert found["Training time, wall clock"].national == "less than 1 month, by the ledgers that are here"
    assert found["Training time, hardware"].ai_office == "at least 2.9 accelerator days"
    job |= {"lastRecordAt": "2026-02-12T00:00:00Z", "completeness": {"complete": True}}
    assert lines(form(job, ACT))["Training time, wall clock"].national == "1 to 3 months, pauses included"


@pytest.mark.parametrize("begin", ["2026-01-03T00:00:00Z", "2026-01-02T10:45:03Z"])
def test_a_wall_clock_that_was_set_back_bounds_no_training_time(begin: str) -> None:
    """On one node the daemon ran 4 s by the clock since boot."""
    job = node("job", "merged") | {"startedAt": begin, "lastRecordAt": "2026-01-02T10:45:05Z"}
    for child, ran in zip(job["children"], ("4.0", "1.0"), strict=True):
        child["nodeSeconds"] = ran
    wall = lines(form(job, ACT))["Training time, wall clock"]
    assert (wall.ai_office, wall.national) == ("not known", "not known")
    job["startedAt"] = "2026-01-02T10:45:02Z"
    assert lines(form(job, ACT))["Training time, wall clock"].ai_office.startswith("at most 0.00004")


def test_device_time_partly_of_another_job_is_an_upper_end() -> None:
    ledger = node()
    ledger["coverage"]["gapSecondsByReason"]["other_job"] = "1.000000000"
    shown = lines(form(ledger, ACT))["Training time, hardware"].ai_office
    assert shown == "at most 0.00022 NVIDIA A100-SXM4-80GB days, at most 0.00022 NVIDIA H100 80GB HBM3 days"


def test_gaps_of_unknown_length_leave_device_time_at_least_and_coverage_at_most() -> None:
    found = lines(form(node("rebooted-with-the-clock-back"), ACT))
    assert found["Training time, hardware"].ai_office == "at least 0.00041 NVIDIA H100 80GB HBM3 days"
    assert "; at least 83.3 % of device time was not measured" in found["Amount of computation used for training"].note
    assert "time at most 16.6 % was observed" in found["Measurement methodology, compute"].ai_office


def test_an_unmeasurable_value_gives_no_figure() -> None:
    found = lines(form(node("no-device"), ACT))
    compute = found["Amount of computation used for training"]
    assert compute.ai_office == "not measured: at least 0 FLOP; no upper bound is known"
    assert compute.national == "not known"
    assert found["Energy used for training"].ai_office == "N/A"
    assert found["Measurement methodology, energy"].ai_office.startswith("Missing: ")
    assert found["Training time, hardware"].ai_office == "not known"
    unbounded = lines(form(all_counted(node("unknown-device")), ACT))["Amount of computation used for training"]
    assert unbounded.note.startswith("at least ")
    assert "no upper bound is known" in unbounded.note
    assert "counts in the upper bound" not in unbounded.note
    assert "no device time was observed" in compute.note
    note = lines(form(node(), ACT))["Amount of computation used for training"].note
    assert "65.8 % of device time was not measured and counts in the upper bound only" in note


def test_the_methodology_is_readable_where_nothing_was_measured() -> None:
    ledger = node("no-device")
    shown = lines(form(ledger, ACT))["Measurement methodology, compute"].ai_office
    assert shown.startswith("Metered with flopsd 0.1.0, which read no counter that gives an estimate: ")
    assert "no counter that gives an estimate: no upper bound is known. Every" in shown
    assert "nothing that was read gives one: only a lower bound is given, and no upper bound is known." in shown
    ledger["totals"]["executed"]["high"] = ledger["totals"]["guidelines"]["high"] = "9"
    shown = lines(form(ledger, ACT))["Measurement methodology, compute"].ai_office
    assert "no counter that gives an estimate: the upper bound is a ceiling. Every" in shown
    assert "nothing that was read gives one: only bounds are given." in shown
    job = node("job", "merged")
    job["totals"]["executed"]["method"] += ledger["totals"]["executed"]["method"]
    shown = lines(form(job, ACT))["Measurement methodology, compute"].ai_office
    assert "the SM clock; on some nodes no counter that gives an estimate was read. Every" in shown
    assert "since what was measured and declared leaves it open" in shown, "of which nobody declared what it was for"


def test_uncounted_energy_leaves_a_lower_bound() -> None:
    """8.6 J are 2.39e-9 MWh: rounded to the nearest if all is counted, down if some is missing."""
    ledger = node() | {"energyJoules": "8.600", "energyUncountedSeconds": "0.000000000"}
    assert lines(form(ledger, ACT))["Energy used for training"].ai_office == "2.4x10^-9 MWh"
    ledger["energyUncountedSeconds"] = "9.500000000"
    energy = lines(form(ledger, ACT))
    assert energy["Energy used for training"].ai_office == "at least 2.3x10^-9 MWh"
    assert "device days without an energy reading" in energy["Energy used for training"].note
    assert "(25 % of device time)" in energy["Measurement methodology, energy"].ai_office
    assert "a lower bound" in energy["Measurement methodology, energy"].ai_office
    assert "; 0.00011 device days" in energy["Energy used for training"].note, "9.5 s are 0.00010995"
    coverage = ledger["coverage"]
    times = {"end_unknown": "1.000000000", "other_job": "19.000000000"}
    shown = lines(form(ledger | {"coverage": {**coverage, "gapSecondsByReason": times}}, ACT))
    assert "(at least 50 % of device time)" in shown["Measurement methodology, energy"].ai_office
    assert "; at least 0.00010 device days" in shown["Energy used for training"].note
    nowhere = {**coverage, "spanSeconds": "0.000000000", "coveragePpm": None, "gapSecondsByReason": {}}
    nothing = lines(form(ledger | {"coverage": nowhere}, ACT))  # of an unverified ledger
    assert "no energy reading, so the figure is a lower bound" in nothing["Measurement methodology, energy"].ai_office
    job = node("job", "merged") | {"energyUncountedSeconds": "0.000000000"}
    assert lines(form(job, ACT))["Energy used for training"].ai_office == "2.3x10^-9 MWh"
    job["completeness"]["complete"] = False
    shown = lines(form(job, ACT))
    assert shown["Energy used for training"].ai_office == "at least 2.3x10^-9 MWh"
    assert "may be incomplete" in shown["Measurement methodology, energy"].ai_office


def test_the_declared_model_and_its_base_are_named() -> None:
    base = Base("Llama-3.1-8B", "known", 72 * 10**22, None, False)
    ledger = judged(Figures(1, 2, 3), Figures(4, 5, 6), Method.LORA, base)
    ledger["totals"]["architecture"] = {
        "parameters": {"total": "8030261248", "active": "8030261248", "trainable": None}
    }
    found = lines(form(ledger, ACT))
    assert found["Total model size"].ai_office == "8.0x10^9 parameters"
    assert found["Model dependencies"].ai_office == "Llama-3.1-8B"
    assert found["Amount of computation used for training"].ai_office == "2.0x10^0 FLOP"
    assert found["Amount of computation used for training, cumulative"].ai_office == "5.0x10^0 FLOP"
    assert (
        "Executed training work less the recomputation of activations"
        in found["Measurement methodology, compute"].ai_office
    )
    pretrained = lines(form(judged(Figures(1, 2, 3), Figures(1, 2, 3), Method.PRETRAINING, None), ACT))
    assert pretrained["Model dependencies"].ai_office == "N/A"
    ledger["declared"] |= {
        "base": None,
        "contradictions": [{"name": "BASE_MODEL_DIFFERS", "code": "start_base_differs"}],
    }
    differs = lines(form(ledger, ACT))["Model dependencies"]
    assert differs.ai_office == "not known"
    assert differs.note == "the daemon starts of this run declare different base models: none counts as declared"


def test_a_notification_only_for_systemic_risk() -> None:
    big = Figures(22 * 10**24, 234 * 10**23, 25 * 10**24)
    text = "\n".join(form(judged(Figures(0, 0, 0), big, Method.PRETRAINING, None), ACT).notification)
    assert "Amount: 2.3x10^25 FLOP (between 2.2x10^25 and 2.5x10^25 FLOP); cumulative training compute." in text
    assert "Article 52(1)" in text
    assert "Approach: Measured with flopsd" in text
    wide = judged(Figures(0, 0, 0), Figures(22 * 10**24, 234 * 10**23, 10**26), Method.PRETRAINING, None)
    assert "1.0x10^26 FLOP); the bounds are wider than the 30 %" in "\n".join(form(wide, ACT).notification)
    unmeasured = judged(Figures(0, 0, 0), Figures(2 * 10**25, None, None), Method.PRETRAINING, None)
    assert "Amount: at least 2.0x10^25 FLOP; cumulative" in "\n".join(form(unmeasured, ACT).notification)
    for found in unmeasured["findings"]:
        found["applies"] = None
    assert form(unmeasured, ACT).notification == (), "by a rule that may not apply"


@pytest.mark.parametrize(
    ("method", "base", "words"),
    [
        (Method.LORA, SYSTEMIC, "of the modification; the base model's compute is not in it"),
        (Method.LORA, None, "a base model's compute, if there is one, is not in it"),
        (Method.PRETRAINING, None, ""),
    ],
)
def test_compute_of_the_base_model_is_excluded_and_this_is_stated(
    method: Method, base: Base | None, words: str
) -> None:
    big = Figures(2 * 10**25, 2 * 10**25, 2 * 10**25)
    made = form(judged(big, big, method, base), ACT)
    for name in ("Amount of computation used for training", "Amount of computation used for training, cumulative"):
        assert (words in lines(made)[name].note) is True
        assert ("base model" in lines(made)[name].note) is bool(words)
    assert (made.notification == ()) is (method is Method.LORA and base is None)
    if made.notification:
        assert f"cumulative training compute{'; ' if words else ''}{words}." in "\n".join(made.notification)


def test_flopsds_reading_of_the_law_is_marked_as_such() -> None:
    small, base = Figures(10**24, 10**24, 10**24), Base("b", "known", 95 * 10**23, None, False)
    shown = "\n".join(form(judged(small, small, Method.FULL, base), ACT).notification)
    assert "This is flopsd's reading and not the text's." in shown
    assert (
        "Amount: between 1.0x10^25 and 1.1x10^25 FLOP; cumulative training compute, with the base model's compute; the "
        "base model's part of it is declared, not measured." in shown
    )
    pretrained = Figures(2 * 10**25, None, None)
    of_the_text = "\n".join(form(judged(pretrained, pretrained, Method.PRETRAINING, None), ACT).notification)
    assert of_the_text
    assert "flopsd's reading" not in of_the_text


@pytest.mark.parametrize(
    ("value", "method", "base"),
    [
        (Figures(10**24, 10**24, 10**24), Method.PRETRAINING, None),  # a provider, and no more
        (Figures(10**24, 10**25, 10**26), Method.PRETRAINING, None),  # indeterminate
        (Figures(10**24, 10**24, 10**24), Method.FULL, Base("b", "known", 9 * 10**23, None, False)),  # a modifier
        (Figures(10**26, 10**26, 10**26), Method.FULL, None),  # the base model is undeclared
        (
            Figures(1, 2 * 10**15, 10**16),
            Method.FULL,
            Base("b", "known", 3 * 10**25, None, False),
        ),  # only the base is above
    ],
)
def test_no_notification_without_certainty_of_systemic_risk(value: Figures, method: Method, base: Base | None) -> None:
    assert form(judged(value, value, method, base), ACT).notification == ()


def test_a_policy_without_a_form_is_refused() -> None:
    with pytest.raises(PolicyError, match="small has no form"):
        form(node(), parse_policy(POLICY.replace("LIMIT", "1").encode(), "small.yaml"))


@pytest.mark.parametrize(
    ("figures", "text"),
    [
        (
            Figures(96 * 10**21, 996 * 10**20, 997 * 10**20),
            "10^23 FLOP (orders of magnitude from 10^22 FLOP to 10^23 FLOP)",
        ),  # 1.0x10^23
        (Figures(10**22, 10**22, 10**22 + 1), "10^22 FLOP"),
        (Figures(10**22, 3 * 10**22, 10**24), "10^22 FLOP (orders of magnitude from 10^22 FLOP to 10^24 FLOP)"),
        (Figures(10**22, 10**22, None), "10^22 FLOP (10^22 FLOP or more)"),
        (Figures(0, 10**22, None), "10^22 FLOP (bounds not known)"),
        (Figures(10**22, None, 996 * 10**20), "orders of magnitude from 10^22 FLOP to 10^23 FLOP"),
        (Figures(10**22, None, 10**24), "orders of magnitude from 10^22 FLOP to 10^24 FLOP"),
        (Figures(2 * 10**22, None, 9 * 10**22), "10^22 FLOP"),
        (Figures(10**22, None, None), "10^22 FLOP or more"),
        (Figures(0, None, None), "not known"),
        (Figures(0, 0, 0), "0 FLOP"),
    ],
)
def test_orders_of_magnitude(figures: Figures, text: str) -> None:
    assert order_of_magnitude(figures, 2) == text


def test_bands_of_training_time() -> None:
    edges_s = [n * 365 * 86400 // 12 for n in (1, 3, 6)]
    found = [band(Fraction(edge_s + s, 86400), (1, 3, 6)) for edge_s in edges_s for s in (-1, 0, 1)]
    under, one, three, over = "less than 1 month", "1 to 3 months", "3 to 6 months", "more than 6 months"
    assert found == [under, one, one, one, three, three, three, three, over]


@given(st.integers(0, 10**27), st.integers(0, 10**27), st.integers(0, 10**27), st.integers(1, 5))
def test_stated_bounds_enclose_the_known_interval(a: int, b: int, c: int, significant: int) -> None:
    """Rounded bounds contain the exact interval, and the point is off by at most half a unit of the last place."""
    low, measured, high = sorted((a, b, c))
    point, bounds = figure_text(Figures(low, measured, high), significant)
    below, above = bounds.removeprefix("between ").removesuffix(" FLOP").split(" and ")
    assert _number(below) <= low
    assert _number(above) >= high
    shown = _number(point.removesuffix(" FLOP"))
    exponent = int(point.removesuffix(" FLOP").partition("x10^")[2] or "0")
    assert abs(shown - measured) <= Fraction(10) ** (exponent - significant + 1) / 2


def _number(text: str) -> Fraction:
    mantissa, _, power = text.partition("x10^")
    return Fraction(mantissa) * Fraction(10) ** int(power or "0")


MOMENTS = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1))  # noqa: DTZ001


@given(MOMENTS, MOMENTS)
def test_time_spans_match_the_calendar(one: datetime, other: datetime) -> None:
    begin, end = (f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}" for moment in (one, other))
    whole = other.replace(microsecond=0) - one.replace(microsecond=0)
    assert span_seconds(begin, end) == max(0, int(whole.total_seconds()))
    with pytest.raises(ValueError, match="not a time in UTC"):
        span_seconds("yesterday", end)


def test_a_mig_slice_counts_as_a_device() -> None:
    ledger = node()
    said = []
    for parent in (None, "GPU-of-it"):
        ledger["devices"][0]["parent"] = parent
        said.append("; a MIG slice counts as a device" in lines(form(ledger, ACT))["Training time, hardware"].note)
    assert said == [False, True]
