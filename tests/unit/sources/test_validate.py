"""Answers that a source may give: all others are refused by name, and are an outage of that source only."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from flopsd.attestation.seal import seal_journal
from flopsd.attestation.signing.keys import ensure_key
from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.model import (
    Active,
    Busy,
    Counted,
    Device,
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
from flopsd.daemon.loop import Daemon
from flopsd.daemon.recovery.local_journal import RecoveredRun
from flopsd.daemon.writing.writer import Writer
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.errors import SourceError
from flopsd.journal.journal import Journal
from flopsd.journal.reading import read_journal
from flopsd.journal.state_dir import StateDir
from flopsd.sources import Source
from flopsd.sources.calls import devices_of, read_source
from flopsd.sources.validate import AHEAD_NS, MOST, CheckedDevices, check_devices, check_facts, check_sweep, is_whole
from flopsd.system.clock import NS_PER_S, SystemClock
from flopsd.testing import FakeClock, ScriptedSource
from tests.support.runs import CONTEXT, H100
from tests.support.strategies import table

NOW = 1000 * NS_PER_S
NAN, HALF = float("nan"), "\ud800"
CYCLES = {Pipe.TENSOR_HMMA: 1}
TOTALS = Totals("boot", 2, CYCLES)
READING = Reading(H100.uid, NOW - NS_PER_S, NOW, Active(Evidence.ACTIVITY, CYCLES), {"energy_mj": 5}, TOTALS)
ACME = replace(H100, uid="ACME-1", index=7)


def read(**changed: Any) -> Sweep:
    return Sweep((replace(READING, **changed),))


def did(work: Any) -> Sweep:
    return read(work=work)


def active(**changed: Any) -> Sweep:
    return did(Active(**{"evidence": Evidence.ACTIVITY, "sm_cycles": CYCLES, **changed}))


def shows(*ratios: Any) -> Sweep:
    return Sweep((READING,), {H100.uid: Gauges(*ratios)})


SWEEPS: list[tuple[str, Any]] = [
    ("not a Sweep", None),
    ("readings is None", Sweep(None)),  # type: ignore[arg-type]
    ("holds None, which is not a Reading", Sweep((None,))),  # type: ignore[arg-type]
    ("the sweep: gauges is None", Sweep((READING,), None)),  # type: ignore[arg-type]
    ("GPU-h: gauges is None", Sweep((), {H100.uid: None})),  # type: ignore[dict-item]
    ("gauges is 7", Sweep((), {7: Gauges()})),  # type: ignore[dict-item]
    ("patience_ns is 'x'", Sweep((), patience_ns="x")),  # type: ignore[arg-type]
    ("patience_ns is -1", Sweep((), patience_ns=-1)),
    ("not_ours is None", Sweep((), not_ours=None)),  # type: ignore[arg-type]
    ("not_ours is", Sweep((), not_ours=frozenset({7}))),  # type: ignore[arg-type]
    ("not_ours_at_ns is", Sweep((), not_ours_at_ns=-1)),
    ("ours_until_ns is", Sweep((), ours_until_ns=1.5)),  # type: ignore[arg-type]
    ("renamed is", Sweep((), renamed=["GPU-a"])),  # type: ignore[arg-type]
    ("renamed is", Sweep((), renamed={7: H100})),  # type: ignore[dict-item]
    ("which is not a Device", Sweep((), renamed={"GPU-a": "GPU-b"})),  # type: ignore[dict-item]
    ("device is 7", read(device=7)),
    ("begin_ns is -1", read(begin_ns=-1)),
    ("end_ns is", read(end_ns=float(NOW))),
    ("above its begin_ns", read(begin_ns=NOW)),
    ("not in the future", read(end_ns=NOW + AHEAD_NS + 1)),
    ("expected Active, Growth", did(None)),
    ("work.reason is 'oops'", did(Gap("oops"))),  # type: ignore[arg-type]
    ("work.clocked_sm_cycles is -1", did(Busy(1, -1))),
    ("work.square_sum is -1", did(Busy(1, 1, -1))),
    ("work.sm_cycles is None", did(Busy(None))),  # type: ignore[arg-type]
    ("work.counted_flop is -1", did(Gap(GapReason.STARTING, -1))),
    ("work.sm_cycles is -1", did(Busy(-1))),
    ("work.flop is", did(Counted(10**40))),
    ("work.flop is 1000.0", did(Counted(1e3))),  # type: ignore[arg-type]
    ("work.unread is", did(Growth(("warp",)))),  # type: ignore[arg-type]
    ("work.evidence is <Evidence.GAP", active(evidence=Evidence.GAP)),
    ("work.evidence is 'guess'", active(evidence="guess")),
    ("work.sm_cycles is None", active(sm_cycles=None)),
    ("work.sm_cycles is 'tensor_hmma', expected by Pipe", active(sm_cycles={"tensor_hmma": 5})),
    (r"work.sm_cycles\[fp32\] is 1.5", active(sm_cycles={Pipe.FP32: 1.5})),
    (r"work.sm_cycles\[fp32\] is -1", active(sm_cycles={Pipe.FP32: -1})),
    (r"work.sm_cycles\[fp32\] is 10{23}1", active(sm_cycles={Pipe.FP32: MOST + 1})),
    (r"work.sm_cycles\[fp32\] is True", active(sm_cycles={Pipe.FP32: True})),
    (r"work.uncertainty_sm_cycles\[fp32\] is -1", active(uncertainty_sm_cycles={Pipe.FP32: -1})),
    (r"work.square_sum\[fp32\] is -1", active(square_sum={Pipe.FP32: -1})),
    ("work.unread is None", active(unread=None)),
    ("work.uncertainty_sm_cycles is None", active(uncertainty_sm_cycles=None)),
    ("counters is None", read(counters=None)),
    ("counters is 7", read(counters={7: 1})),
    ("counters is", read(counters={HALF: 1})),
    (r"counters\['energy_mj'\] is -5", read(counters={"energy_mj": -5})),
    (r"counters\['energy_mj'\] is a int", read(counters={"energy_mj": 10**5000})),
    ("totals is 5", read(totals=5)),
    ("totals.origin is ''", read(totals=replace(TOTALS, origin=""))),
    ("totals.origin is", read(totals=replace(TOTALS, origin=HALF))),
    ("totals.elapsed_sm_cycles is -1", read(totals=replace(TOTALS, elapsed_sm_cycles=-1))),
    (r"totals.sm_cycles\[tensor\] is -1", read(totals=replace(TOTALS, sm_cycles={Pipe.TENSOR: -1}))),
    ("pipe_activity_ratio is None", shows(None)),
    ("pipe_activity_ratio is 'x'", shows({"x": 0.5})),
    (r"pipe_activity_ratio\[fp32\] is -0.5", shows({Pipe.FP32: -0.5})),
    (r"pipe_activity_ratio\[fp32\] is inf", shows({Pipe.FP32: float("inf")})),
    (r"pipe_activity_ratio\[fp32\] is '0.5'", shows({Pipe.FP32: "0.5"})),
    (r"pipe_activity_ratio\[fp32\] is 10{59}, expected a number from 0", shows({Pipe.FP32: 10**400})),
    ("utilization_ratio is inf", shows({}, float("inf"))),
    ("sm_clock_mhz is -0.1", shows({}, None, -0.1)),
]


@pytest.mark.parametrize(("words", "sweep"), SWEEPS)
def test_an_invalid_sweep_is_refused_by_device_and_field(words: str, sweep: Any) -> None:
    with pytest.raises(ValueError, match=words):
        check_sweep(sweep, NOW)


@pytest.mark.parametrize(
    "sweep",
    [
        Sweep(()),
        Sweep([READING], patience_ns=NS_PER_S, not_ours=frozenset({"GPU-z"})),  # type: ignore[arg-type]
        read(end_ns=NOW + AHEAD_NS),
        did(Gap(GapReason.STARTING)),
        did(Growth((Pipe.FP16,))),
        active(sm_cycles={Pipe.FP16: type("Count", (int,), {})(5)}),
        did(Busy(0)),
        did(Busy(MOST, MOST, 0)),
        did(Counted(MOST)),
        active(evidence=Evidence.CYCLES, uncertainty_sm_cycles={Pipe.TENSOR_HMMA: 0}, unread=(Pipe.FP16,)),
        read(counters={}, totals=None),
        read(counters=MappingProxyType({"energy_mj": 0})),
        shows({Pipe.FP32: 0}, 0, 0.0),
        shows({Pipe.FP32: 1, Pipe.FP16: 0.0}, 0.5, 1980),
    ],
)
def test_a_valid_sweep_passes(sweep: Sweep) -> None:
    check_sweep(sweep, NOW)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("uid", value) for value in (None, "", 7, HALF)),
        ("vendor", None),
        ("model", "x" * 10_001),
        *(("index", value) for value in (-1, 1.0, True, None, 2**33)),
        *(("sm_count", value) for value in (132.0, 0, -1, "132", 2**33)),  # 0 would be a ceiling of zero
        ("sm_clock_max_mhz", NAN),
        ("pci_device_id", -1),
        ("gpu_instance", "1"),
        *(("mig_profile", value) for value in (7, HALF)),
        ("serial", 165),
        ("parent", 0),
        ("driver", b"595"),
        ("shared", ["pod"]),
        ("evidence", "cycles"),
        ("evidence_fix", HALF),
    ],
)
def test_a_device_that_the_journal_cannot_hold_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f": {field} is "):
        check_devices((ACME, replace(H100, **{field: value})))


@pytest.mark.parametrize(
    ("words", "devices"),
    [
        ("'GPU', which is not a Device", ("GPU",)),
        ("two devices of one uid", (H100, H100)),
        ("GPU-h: parent is 'GPU-h', expected the uid of a whole device", (replace(H100, parent="GPU-h"),)),
        ("parent is 'GPU-s', expected", (replace(H100, parent="GPU-s"), replace(H100, uid="GPU-s", parent="GPU-w"))),
    ],
)
def test_an_invalid_list_of_devices_is_refused(words: str, devices: Sequence[Any]) -> None:
    with pytest.raises(ValueError, match=words):
        check_devices(devices)


def test_a_source_that_lists_ever_new_devices_is_refused_before_records_overflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flopsd.sources.validate.MOST_DEVICES", 3)
    known = CheckedDevices()
    for number in (0, 1, 2, 2, 0):
        check_devices([replace(H100, uid=f"GPU-{number}")], known)
    with pytest.raises(ValueError, match="more than 3 devices"):
        check_devices([replace(H100, uid="GPU-3")], known)
    check_devices([replace(H100, uid="GPU-1")], known)


def test_checked_devices_are_remembered_and_not_checked_again() -> None:
    wrong = replace(H100, uid="GPU-x", index=-1)
    checked = CheckedDevices({ACME.uid: ACME, wrong.uid: wrong})
    check_devices((H100, wrong), checked)
    check_devices((replace(H100, model="x" * 10_000),))
    assert checked == CheckedDevices({ACME.uid: ACME, wrong.uid: wrong, H100.uid: H100}, (H100, wrong))
    renamed = CheckedDevices({ACME.uid: H100})
    check_sweep(Sweep((), renamed={"GPU-a": ACME}), NOW, renamed)
    assert renamed == CheckedDevices({ACME.uid: ACME}, (ACME,))
    with pytest.raises(ValueError, match="index is -1"):
        check_devices((replace(wrong),), checked)


class Counting(tuple[Device, ...]):
    """Counts how often its devices are gone through one by one."""

    passes = 0

    def __iter__(self) -> Iterator[Device]:
        self.passes += 1
        return super().__iter__()


def test_a_list_of_the_same_devices_is_not_gone_through_again_until_it_holds_another() -> None:
    checked, same, larger = CheckedDevices(), (H100, ACME), replace(ACME, index=8)
    check_devices(same, checked)
    again, other = Counting(same), (H100, replace(larger, index=-1))
    check_devices(again, checked)
    assert again.passes == 1  # for the comparison
    with pytest.raises(ValueError, match="index is -1"):
        check_devices(other, checked)
    with pytest.raises(ValueError, match="index is -1"):
        check_devices(other, checked)
    check_devices((H100, larger), checked)
    assert checked.accepted == (H100, larger)


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError("nothing to see")


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ("not a mapping", ["replay"]),
        (r"\['x'\] is a Silent", {"x": Silent()}),
        (r"\['x'\] is 1.5", {"x": 1.5}),
        (r"\['x'\] is True", {"x": True}),
        (r"\['x'\] is b'ab'", {"x": b"ab"}),
        (r"\['x'\] is '\\ud800'", {"x": HALF}),
        (r"\['x'\] is a int", {"x": 10**5000}),
        (r"\['x'\]\[0\]\['y'\] is -1", {"x": [{"y": -(10**41)}]}),
        ("has the key 7", {7: "x"}),
        (r"\['replay'\] is 'yes'", {"replay": "yes"}),
        ("more than 262144 bytes", {str(n): "x" * 9000 for n in range(40)}),
    ],
)
def test_facts_that_the_ledger_cannot_hold_are_refused(words: str, facts: Any) -> None:
    with pytest.raises(ValueError, match=words):
        check_facts(facts)


def test_text_integers_and_null_are_valid_facts_and_cycles_are_refused() -> None:
    check_facts(
        {
            "driver": "ü",
            "n": -3,
            "replay": {"recording": "r", "sha256": "s", "origin": "o", "versions": [1, ("x", None)]},
        }
    )
    facts: dict[str, Any] = {}
    facts["x"] = facts
    with pytest.raises(ValueError, match="nested too deeply"):
        check_facts(facts)
    for around in (lambda inner: {"x": inner}, lambda inner: [inner]):
        deepest: Any = None
        for _ in range(7):
            deepest = around(deepest)
        check_facts({"x": deepest})
        with pytest.raises(ValueError, match="nested too deeply"):
            check_facts({"x": around(deepest)})


def test_facts_of_exactly_the_limit_are_accepted() -> None:
    facts = {str(n): "x" * 9000 for n in range(29)}
    facts["28"] += "x" * (256 * 1024 - len(json.dumps(facts)))
    check_facts(facts)
    facts["28"] += "x"
    with pytest.raises(ValueError, match="more than 262144 bytes"):
        check_facts(facts)


def test_a_refusal_names_the_source() -> None:
    source, clock = ScriptedSource("acme", [replace(ACME, index=-1)], lambda: Sweep((None,))), FakeClock()  # type: ignore[arg-type]
    for call in (lambda: read_source(source, clock), lambda: devices_of(source)):
        with pytest.raises(SourceError, match="^source 'acme': ") as caught:
            call()
        assert caught.value.hint


class Metered:
    """A daemon over a good source and a bad one, for as long as the good one has readings."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.state = SystemClock(), StateDir(folder / "state")
        self.state.acquire()
        self.journal = Journal(self.state)
        self.journal.recover("aside")
        wanted = WriterSettings(NS_PER_S // 20, NS_PER_S // 10, "0" * 64, None, ("good", "bad"))
        self.writer = Writer(self.journal, table(), wanted, CONTEXT, self.clock, lambda _: None)
        self.writer.begin("run", RecoveredRun(read_history(self.journal.read())))
        self.since_ns, self.left = self.clock.boottime_ns(), 8

    def good(self) -> Sweep:
        self.left -= 1
        if self.left == 0:
            self.daemon.stop("enough")
        begin_ns, self.since_ns = self.since_ns, self.clock.boottime_ns()
        return Sweep((Reading(H100.uid, begin_ns, self.since_ns, Active(Evidence.ACTIVITY, CYCLES)),))

    def run(self, bad: Callable[[], Source], each_tick: Callable[[], None] = lambda: None) -> None:
        good = ScriptedSource("good", [H100], self.good)
        self.daemon = Daemon(self.writer, {"good": lambda: good, "bad": bad}, self.clock, 0.02)
        assert self.daemon.run(each_tick) == "enough"
        assert self.writer.close("sigterm")
        self.journal.close()
        self.state.release()

    def check(self, folder: Path) -> None:
        """The good source lost nothing, and the ledger can be sealed."""
        state = next(state for state in self.writer.snapshot.devices if state.device.uid == H100.uid)
        assert state.tally.active_sm_cycles[Evidence.ACTIVITY, Pipe.TENSOR_HMMA] >= 8
        assert set(state.tally.gap_ns) <= {GapReason.STARTING, GapReason.STOPPING}
        uri, _ = ensure_key(None, self.state.path)
        seal_journal(self.state.journal, uri, folder / "out" / "ledger.json", self.clock)


class Bad(ScriptedSource):
    def __init__(self, bench: Metered, *, sweep: Any = None, devices: Any = (ACME,), facts: Any = None) -> None:
        super().__init__("bad", devices, lambda: sweep(bench.clock.boottime_ns()) if sweep else Sweep(()))
        self.facts = facts or {"replay": None}

    def describe(self) -> Mapping[str, Any]:
        facts: Mapping[str, Any] = self.facts
        return facts


def reads(work: Any) -> Callable[[int], Sweep]:
    return lambda now_ns: Sweep((Reading(ACME.uid, now_ns - 10**7, now_ns, work),))


BAD: list[tuple[str, str, dict[str, Any]]] = [
    ("a reading of nothing", "not a Reading", {"sweep": lambda _: Sweep((None,))}),  # type: ignore[arg-type]
    ("no devices", "'NoneType' object is not iterable", {"devices": None}),
    ("half a character", "describe()", {"facts": {"x": HALF}}),
]


@pytest.mark.parametrize(("words", "changed"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_an_invalid_answer_is_an_outage_of_its_source_only(tmp_path: Path, words: str, changed: dict[str, Any]) -> None:
    bench = Metered(tmp_path)
    bench.run(lambda: Bad(bench, **changed))
    bench.check(tmp_path)
    state = bench.writer.snapshot.sources["bad"]
    assert not state.up
    assert words in state.reason
    assert set(state.errors) == {"driver_error"}


def test_a_writer_error_is_an_outage_of_its_source_whose_facts_are_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Metered(tmp_path)
    take, refused = bench.writer.take, list[Message]()

    def fails_twice(message: Message) -> None:
        if message.source == "bad" and message.sweep is not None and len(refused) < 2:
            refused.append(message)
            raise ZeroDivisionError("what no check foresaw")
        take(message)

    monkeypatch.setattr(bench.writer, "take", fails_twice)
    bench.run(lambda: Bad(bench, sweep=reads(Busy(0))))
    bench.check(tmp_path)
    assert bench.writer.snapshot.sources["bad"].errors["driver_error"] == 2
    records = [line.record() for line in read_journal(bench.state.journal)]
    assert [record["facts"] for record in records if record.get("name") == "bad"] == [{"replay": None}]
    found = [record.getMessage() for record in caplog.records if record.exc_info]
    assert found == [
        "internal error in a message of source 'bad': ZeroDivisionError('what no check foresaw'); "
        "metering goes on without it; please report this with the traceback"
    ]


def test_a_failing_view_does_not_end_metering(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Metered(tmp_path)

    def broken() -> None:
        raise KeyError("a view")

    with caplog.at_level(logging.ERROR):
        bench.run(lambda: Bad(bench), broken)
    bench.check(tmp_path)
    assert [record.getMessage() for record in caplog.records] == [
        "internal error in the background tasks: KeyError('a view'); "
        "metering goes on without it; please report this with the traceback"
    ]


def test_whole_numbers_are_limited_to_what_a_ledger_holds() -> None:
    assert [is_whole(value) for value in (MOST, -MOST, 0, MOST + 1, -MOST - 1, True, 1.0)] == [True] * 3 + [False] * 4
