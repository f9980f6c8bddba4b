"""Whatever a source gives: it is refused at the boundary, or the whole run can be read back, added up and encoded."""

import math
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flopsd.core.ledger.segments import JournalFacts
from flopsd.core.ledger.statement import SealFacts, encode, statement
from flopsd.core.model import (
    Active,
    Busy,
    Counted,
    Evidence,
    Gap,
    GapReason,
    Gauges,
    Growth,
    Pipe,
    Reading,
    Sweep,
    Totals,
)
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.sources.validate import CheckedDevices, check_devices, check_facts, check_sweep
from flopsd.system.clock import NS_PER_S
from tests.support.runs import H100, Run, history_of
from tests.support.strategies import table

WORKS: dict[type, dict[str, Any]] = {
    Active: {"evidence": Evidence.ACTIVITY, "sm_cycles": {Pipe.FP32: 9}},
    Growth: {},
    Counted: {"flop": 9},
    Busy: {"sm_cycles": 9},
    Gap: {"reason": GapReason.MISSED_READING},
}
numbers = st.one_of(
    st.integers(),
    st.integers(0, 10**9),
    st.integers(10**23, 10**41),
    st.floats(),
    st.booleans(),
    st.sampled_from([2**31, 2**32, 10**24]),
)
scalars = st.one_of(st.none(), numbers, st.text(), st.sampled_from(["\ud800", b"x", *Pipe, *Evidence, *GapReason]))
junk = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.tuples(inner),
        st.dictionaries(st.one_of(st.text(), st.sampled_from(Pipe), st.integers()), inner, max_size=2),
        st.dictionaries(st.sampled_from(Pipe), st.integers(0, 10**12), max_size=2),
        st.builds(Gap, inner),
        st.builds(Totals, inner, inner, inner),
        st.builds(Gauges, inner),
    ),
    max_leaves=4,
)


def changed(draw: st.DrawFn, value: Any) -> Any:
    return replace(value, **{draw(st.sampled_from(fields(value))).name: draw(junk)})


@st.composite
def handed_over(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    """Devices, facts and a sweep at second 2000, one of them with junk somewhere in it."""
    device, facts = replace(H100, uid="ACME-1", index=7), {"replay": None, "driver": "1"}
    work = draw(st.sampled_from(list(WORKS)))
    totals = Totals("boot", 20, {Pipe.TENSOR: 5})
    reading = Reading(device.uid, 1999 * NS_PER_S, 2000 * NS_PER_S, work(**WORKS[work]), {"energy_mj": 5}, totals)
    sweep: Any = Sweep((reading,), {device.uid: Gauges({Pipe.FP32: 0.5}, 0.5, 1980)})
    where = draw(st.sampled_from(["device", "facts", "sweep", "reading", "work", "totals", "gauges"]))
    if where == "device":
        device = changed(draw, device)
    elif where == "facts":
        facts = draw(st.one_of(junk, st.dictionaries(st.text(), junk, max_size=2)))
    elif where == "reading":
        sweep = replace(sweep, readings=(changed(draw, reading),))
    elif where == "work" and work is not Growth:
        sweep = replace(sweep, readings=(replace(reading, work=changed(draw, reading.work)),))
    elif where == "totals":
        sweep = replace(sweep, readings=(replace(reading, totals=changed(draw, totals)),))
    elif where == "gauges":
        sweep = replace(sweep, gauges={device.uid: changed(draw, Gauges())})
    else:
        sweep = changed(draw, sweep)
    return (device,), facts, sweep


@settings(deadline=None)
@given(handed_over())
def test_accepted_answers_can_be_journalled_read_back_and_sealed(handed: tuple[Any, Any, Any]) -> None:
    devices, facts, sweep = handed
    try:
        check_devices(devices)
        check_facts(facts)
        check_sweep(sweep, 2000 * NS_PER_S)
    except ValueError as fault:
        assert str(fault)
        return
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "state")
        run.clock.advance(2000 * NS_PER_S - run.clock.boottime_ns())
        run.writer.take(Message("acme", run.clock.boottime_ns(), devices, sweep, opened=facts))
        run.clock.advance(NS_PER_S)
        run.writer.tick()
        assert run.writer.checkpoint()
        run.finish()
        history = history_of(run.state.journal)
        journal = JournalFacts("0" * 64, 1, history.records, "0" * 64)
        assert encode(statement(history, table(), journal, SealFacts("1", "2026-01-01T00:00:00Z")))


def refusal(check: Any, *arguments: Any) -> str:
    """What a check says; empty if it accepts."""
    try:
        check(*arguments)
    except ValueError as fault:
        return str(fault)
    return ""


parents = [None, "GPU-0", "GPU-1", "GPU-2"]
pool = [replace(H100, uid=f"GPU-{at % 3}", index=at % 4 - 1, parent=parents[at // 3]) for at in range(12)]


@given(st.lists(st.lists(st.sampled_from(pool), max_size=3), max_size=6))
def test_devices_that_are_remembered_are_judged_as_without_memory(lists: list[list[Any]]) -> None:
    checked = CheckedDevices()
    for devices in lists:
        assert refusal(check_devices, devices, checked) == refusal(check_devices, devices)


@given(st.one_of(st.floats(), st.sampled_from([math.nextafter(1e24, math.inf), 1e24, -0.0, 5e-324])))
def test_a_ratio_is_accepted_from_zero_to_ten_to_the_power_of_24(ratio: float) -> None:
    says = refusal(check_sweep, Sweep((), {H100.uid: Gauges({Pipe.FP32: ratio})}), 0)
    assert (says == "") == (0 <= ratio <= 10**24)
