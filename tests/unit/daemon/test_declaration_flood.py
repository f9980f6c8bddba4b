"""A job that declares without end: memory is bounded, and no declaration keeps a measurement out of the journal."""

import json
from pathlib import Path

import pytest

import flopsd.core.policy.model_basis  # noqa: F401  # imported during a test, it would keep what is patched there
from flopsd.core.declarations import COUNTERS, MAX_COUNT, Phase
from flopsd.core.kernel_windows import KERNEL_COUNTERS
from flopsd.core.session_protocol import (
    FactsDeclared,
    NotServed,
    PhaseChanged,
    SessionClosed,
    SessionOpened,
    WorkCounted,
)
from flopsd.daemon.sessions.agreed_phase import MAX_BUCKETS
from flopsd.daemon.sessions.tracker import MAX_FACTS_BYTES, MAX_SESSIONS
from flopsd.daemon.sessions.unwritten_work import BYTES_A_MINUTE, RECORD_BYTES
from flopsd.journal.framing import MAX_LINE_BYTES
from tests.support.paths import ROOT
from tests.support.runs import Run, history_of, verified

ALL_COUNTERS = {name: MAX_COUNT for name in COUNTERS if name not in KERNEL_COUNTERS}
TEXTS = ["x" * 200] * 299
BIG = {"model_config": {"texts": TEXTS}}


def flood(run: Run, sessions: int, facts: object = None) -> None:
    for number in range(sessions):
        name = f"{number:032x}"
        run.writer.take_event(SessionOpened(name, 100 + number, 0, "0.1.0"))
        run.writer.take_event(FactsDeclared(name, facts or BIG))  # type: ignore[arg-type]
        run.writer.take_event(WorkCounted(name, {phase.value: ALL_COUNTERS for phase in Phase}))
        run.writer.take_event(SessionClosed(name, clean=True))


@pytest.mark.long
def test_eighty_processes_with_large_facts_displace_no_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    run.meter(5)
    flood(run, 80)
    assert run.writer.checkpoint()
    run.meter(30)
    run.finish()
    sealed = run.seal(tmp_path / "ledger.json")
    assert verified(sealed).history.ended
    history = history_of(run.state.journal)
    assert history.incarnations[0].tallies["GPU-h"].watermark_ns == run.clock.boottime_ns()
    assert sum(len(json.dumps(session.facts)) for session in history.sessions.values()) <= MAX_FACTS_BYTES
    assert max(map(len, run.state.journal.read_bytes().splitlines())) < RECORD_BYTES + 70_000 < MAX_LINE_BYTES
    counted = [session.work["other"] for session in history.sessions.values() if session.work]
    assert counted == [ALL_COUNTERS] * len(counted)
    assert len(counted) > 60


def test_layers_of_known_models_are_bounded_and_each_model_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2000 layers take a third of a second to compute, in the thread that counts readings, and each name takes some
    bytes."""
    monkeypatch.setattr("flopsd.daemon.sessions.declared_models.MAX_LAYERS", 3 * 2200)
    read: list[int] = []
    monkeypatch.setattr("flopsd.core.architecture.why_not_read", lambda config: read.append(config["hidden_size"]))
    run = Run(tmp_path / "state")
    # The third process ends with the model of the second last, and its first model is no longer computed.
    for number, width in ((0, 1), (1, 1), (2, 2), (3, 3), (4, 4), (5, 1), (2, 1), (6, 4)):
        name = f"{number:032x}"
        run.writer.take_event(SessionOpened(name, 100 + number, 0, "0.1.0"))
        config = {"model_type": "llama", "hidden_size": width, "num_hidden_layers": 2000}
        run.writer.take_event(FactsDeclared(name, {"model_config": config}))
    run.finish()
    sessions = history_of(run.state.journal).sessions.values()
    recorded = [one.facts["model_config"]["hidden_size"] for one in sessions if one.facts]
    assert (read, recorded) == ([1, 2, 3], [1, 1, 1, 3, 1, 4])


@pytest.mark.long
def test_recorded_processes_are_bounded_and_the_phase_of_others_is_undeclared(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    flood(run, MAX_SESSIONS, {"method": "full"})
    run.meter(1)
    one_more = f"{MAX_SESSIONS:032x}"
    known = f"{0:032x}"
    run.writer.take_event(SessionOpened(known, 100, 0, "0.1.0"))
    run.writer.take_event(PhaseChanged(known, "train"))
    run.meter(2)
    run.writer.take_event(SessionOpened(one_more, 1, 0, "0.1.0"))
    run.writer.take_event(PhaseChanged(one_more, "train"))
    run.meter(10)
    (state, _) = run.writer.snapshot.devices
    assert state.tally.phases["train"].span_ns == 2 * 10**9
    run.writer.take_event(SessionClosed(one_more, clean=True))
    run.meter(3)
    (state, _) = run.writer.snapshot.devices
    assert state.tally.phases["train"].span_ns == 5 * 10**9
    run.finish()
    assert len(history_of(run.state.journal).sessions) == MAX_SESSIONS
    limits = f"A run records at most {MAX_SESSIONS} processes and {MAX_FACTS_BYTES >> 20} MiB of what they declare"
    assert limits in (ROOT / "docs" / "training-process.md").read_text()


def test_a_process_with_unrecorded_facts_counts_as_undeclared(tmp_path: Path) -> None:
    """Its number format may have changed in the facts that were left out, so the old format is not assumed."""
    run = Run(tmp_path / "state")
    name = "a" * 32
    run.writer.take_event(SessionOpened(name, 1, 0, "0.1.0"))
    run.writer.take_event(FactsDeclared(name, {"precision": "bf16"}))
    run.writer.take_event(PhaseChanged(name, "train"))
    run.meter(2)
    for number in range(MAX_FACTS_BYTES // 60_000 + 1):
        run.writer.take_event(FactsDeclared(name, {"model_config": {"texts": [*TEXTS, str(number)]}}))
        run.writer.tick()  # facts that are replaced before they are written take no space
    run.writer.take_event(FactsDeclared(name, {"precision": "fp8"}))
    run.meter(10)
    (state, _) = run.writer.snapshot.devices
    assert state.tally.phases["train@bf16"].span_ns == 2 * 10**9
    assert set(state.tally.phases) == {"train@bf16"}


def test_a_tally_has_a_bounded_number_of_phases_and_formats(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    name = "a" * 32
    run.writer.take_event(SessionOpened(name, 1, 0, "0.1.0"))
    run.writer.take_event(PhaseChanged(name, "train"))
    for ppm in range(1, MAX_BUCKETS + 2):
        run.writer.take_event(FactsDeclared(name, {"precision": {"bf16": 1_000_000 - ppm, "fp8": ppm}}))
        run.meter(2)
    (state, _) = run.writer.snapshot.devices
    assert len(state.tally.phases) == MAX_BUCKETS - 2, "no time passed in undeclared, and in train without a format"
    assert run.writer.checkpoint()


def test_an_unknown_model_is_logged_once_with_a_remedy_when_declared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path / "state")
    name, other = "a" * 32, "b" * 32
    for session in (name, other):
        run.writer.take_event(SessionOpened(session, 1, 0, "0.1.0"))
        run.writer.take_event(FactsDeclared(session, {"model_config": {"model_type": "gpt9"}}))
    (warning,) = caplog.messages
    assert warning.startswith("the FLOP of the model that a training process declares cannot be computed: ")
    assert "gpt9" in warning
    assert "declare its size alone" in warning
    run.writer.take_event(WorkCounted(name, {"train": {"steps": 1}}))
    run.meter(20)
    assert [one for one in caplog.messages if "gpt9" in one] == [warning]


SIZED = {"method": "full", "parameters_total": 1000, "parameters_trainable": 1000, "recomputation": "none"}


def declare(run: Run, number: int, tokens: int, facts: object = None) -> str:
    name = f"{number:032x}"
    run.writer.take_event(SessionOpened(name, 100 + number, 0, "0.1.0"))
    run.writer.take_event(FactsDeclared(name, facts or SIZED))  # type: ignore[arg-type]
    run.writer.take_event(WorkCounted(name, {"train": {"tokens": tokens}}))
    return name


def test_facts_up_to_the_bound_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flopsd.daemon.sessions.tracker.MAX_FACTS_BYTES", 2 * (len(json.dumps(SIZED)) - len("{}")))
    run = Run(tmp_path / "state")
    names = [declare(run, number, 10) for number in range(2)]
    run.finish()
    sessions = history_of(run.state.journal).sessions
    assert [sessions[name].facts for name in names] == [SIZED, SIZED]


@pytest.mark.parametrize("bound", ["MAX_SESSIONS", "MAX_FACTS_BYTES", "MAX_COUNTERS", "connections"])
def test_unrecorded_work_leaves_model_flop_without_an_upper_bound(
    bound: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such work was in no figure, without any note. No later declaration or daemon start may restore the upper
    bound."""
    most = {"MAX_SESSIONS": 2, "MAX_FACTS_BYTES": 250, "MAX_COUNTERS": 2}
    if bound in most:
        monkeypatch.setattr(f"flopsd.daemon.sessions.tracker.{bound}", most[bound])
    run = Run(tmp_path / "state")
    if bound == "connections":
        run.writer.take_event(NotServed())
    first = declare(run, 0, 10)
    run.meter(2)
    declare(run, 1, 10)
    if bound == "connections":
        run.writer.take_event(NotServed())
    else:
        assert run.writer.checkpoint()
        assert history_of(run.state.journal).sessions[first].facts == SIZED
        declare(run, 2, 10**9)
    run.writer.take_event(SessionOpened(first, 100, 0, "0.1.0"))
    run.writer.take_event(FactsDeclared(first, {"not_counted": {"train": ["mine"]}}))
    run.meter(2)
    run.restart()
    run.writer.take_event(SessionOpened(first, 100, 0, "0.1.0"))
    run.writer.take_event(FactsDeclared(first, {"not_counted": {"train": [f"text {n}" for n in range(16)]}}))
    run.finish()
    ledger = verified(run.seal(tmp_path / "ledger.json"))
    found = ledger.statement["predicate"]["totals"]["architecture"]
    assert (int(found["executed"]["low"]) > 0, found["high"], found["executed"]["high"]) == (True, None, None)
    texts = ledger.history.sessions[first].facts["not_counted"]["train"]
    assert "processes, facts and counters beyond what flopsd records of a run" in texts
    assert len(texts) == (2 if bound == "MAX_FACTS_BYTES" else 16)


NEWEST = {phase.value: dict.fromkeys(ALL_COUNTERS, 10**29 + 5) for phase in Phase}


def count_all(run: Run, sessions: int, minute: int) -> None:
    for number in range(sessions):
        name = f"{number:032x}"
        run.writer.take_event(SessionOpened(name, 100 + number, 0, "0.1.0"))
        work = {phase.value: dict.fromkeys(ALL_COUNTERS, 10**29 + minute) for phase in Phase}
        run.writer.take_event(WorkCounted(name, work))
    run.clock.advance(59 * 10**9)
    run.meter(1)


def works(run: Run) -> list[object]:
    return [session.work for session in history_of(run.state.journal).sessions.values()]


def test_counters_are_written_at_a_limited_rate_and_completely_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Processes that connected in turn and sent counters used to write 17 GB a day."""
    run = Run(tmp_path / "state")
    run.meter(1)
    before = run.journal.size_bytes
    for minute in range(6):
        count_all(run, 100, minute)
        assert ("processes count more than can be recorded" in caplog.text) == (minute == 5)
    written = run.journal.size_bytes - before
    assert RECORD_BYTES + 4 * BYTES_A_MINUTE < written < RECORD_BYTES + 6 * BYTES_A_MINUTE + 40_000
    run.writer.prepare_seal()
    assert run.journal.size_bytes == before + written, "what is sealed says that not all is in it"
    run.finish()
    assert works(run) == [NEWEST] * 100
    assert run.journal.size_bytes - before - written < 700_000


def test_all_counters_are_written_before_a_seal(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    count_all(run, 50, 5)
    assert 0 < works(run).count(NEWEST) < 50
    run.writer.prepare_seal()
    assert works(run) == [NEWEST] * 50
    size = run.journal.size_bytes
    run.writer.prepare_seal()
    assert run.journal.size_bytes == size
