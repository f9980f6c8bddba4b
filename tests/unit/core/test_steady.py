"""The column check accepts a checkpoint only where a device-by-device reading accepts the same journal."""

import copy
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.declarations import NOTHING_DECLARED
from flopsd.core.ledger import history_from_records
from flopsd.core.ledger.history import History
from flopsd.core.ledger.history_from_records import read_history
from flopsd.core.ledger.steady import Steady
from flopsd.core.model import Busy, GapReason, Growth, Pipe
from flopsd.core.session_protocol import FactsDeclared, PhaseChanged, SessionOpened, WorkCounted
from flopsd.errors import JournalDamagedError
from tests.make_vectors.files import parsed
from tests.support.story import A10G, A100, CYCLES_H100, Second, Story, Work, active, gap, tell

J = dict[str, Any]
SESSION = "5e55" * 8


class Never(Steady):
    """Every checkpoint is read device by device."""

    def goes_on(self, *_: object) -> bool:
        return False


@cache
def _journal() -> tuple[J, ...]:
    """Three GPUs, one of which has had a gap and running counters; several phases, and then none."""

    def story(folder: Path) -> bytes:
        run = Story(folder, (CYCLES_H100, A100, A10G), declared=NOTHING_DECLARED)

        works = active(80, 1700, {Pipe.TENSOR_HMMA: 500_000, Pipe.FP32: 9}, 3, (Pipe.FP16,), 5)

        def plan(seconds: int, other: Callable[[Second], Work] = works) -> None:
            run.during(seconds, {CYCLES_H100: lambda _: Growth(()), A100: lambda _: Busy(5), A10G: other})

        run.says(SessionOpened(SESSION, 1, 2, "0.1.0"), FactsDeclared(SESSION, {"method": "lora"}))
        plan(6, gap(GapReason.DRIVER_TIMEOUT))
        for phase in ("train", "evaluate", "train"):
            run.says(PhaseChanged(SESSION, phase), WorkCounted(SESSION, {phase: {"tokens": 7}}))
            plan(11)
        return run.finish()

    return tuple(dict(line.record()) for line in parsed(tell(story)))


def outcome(records: list[J]) -> History | str:
    try:
        found = read_history(records)
    except JournalDamagedError as fault:
        return str(fault)
    for start in found.incarnations:
        assert start.tallies is start.read
        start.newest, start.is_read = None, True
    return found


def leaves(columns: J) -> list[list[Any]]:
    return [leaf for c in columns.values() for leaf in (leaves(c) if isinstance(c, dict) else [c])]


@pytest.fixture
def device_by_device(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[J]], History | str]:
    def read(records: list[J]) -> History | str:
        with monkeypatch.context() as patched:
            patched.setattr(history_from_records, "Steady", Never)
            return outcome(records)

    return read


def test_nearly_all_checkpoints_are_checked_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, seen = Steady.goes_on, list[bool]()
    monkeypatch.setattr(Steady, "goes_on", lambda *given: seen.append(goes_on(*given)) or seen[-1])  # type: ignore[func-returns-value]
    history = outcome(list(_journal()))
    assert isinstance(history, History)
    assert len(seen) >= 5
    assert seen.count(False) <= 2, "at most the first in a phase"


@pytest.mark.long
def test_any_edited_checkpoint_gives_the_same_outcome_as_device_by_device(
    device_by_device: Callable[[list[J]], History | str],
) -> None:
    """A sample of edits: one amount, changed by little or by much, or two amounts."""
    chance, refused = random.Random(7), 0
    at = [at for at, record in enumerate(_journal()) if record["kind"] == "checkpoint"][-2]
    columns = leaves(_journal()[at]["tallies"])
    places = [(leaf, device) for leaf, column in enumerate(columns) for device in range(len(column))]
    alone = [[(place, by)] for place in places for by in (-1, 10**9)]
    several = [[(place, chance.choice((-1, 1, 10**9))) for place in chance.sample(places, 2)] for _ in range(200)]
    assert outcome(list(_journal())) == device_by_device(list(_journal()))
    chosen = chance.sample([*alone, *several], 80)
    for edits in chosen:
        records = list(_journal())
        records[at] = copy.deepcopy(records[at])
        for (leaf, device), by in edits:
            column = leaves(records[at]["tallies"])[leaf]
            column[device] = (column[device] or 0) + by
        found = outcome(records)
        assert found == device_by_device(records)
        refused += isinstance(found, str)
    assert 0 < refused < len(chosen)


WRONG: list[tuple[str, Callable[[J], object]]] = [
    ("true", lambda c: c["tallies"]["energy_mj"].__setitem__(0, True)),
    ("none", lambda c: c["tallies"]["energy_mj"].__setitem__(0, None)),
    ("text", lambda c: c["tallies"]["counters"]["energy_mj"].__setitem__(0, "5")),
    ("other devices", lambda c: c.update(devices=[0, 1, True])),
    ("a column less", lambda c: c["tallies"].pop("energy_mj")),
    ("a phase less", lambda c: c["tallies"]["phases"].popitem()),
    ("a column of its own", lambda c: c["tallies"].update(more=[1, 2, 3])),
    ("objects for columns", lambda c: c["tallies"].update(energy_mj={"energy_mj": c["tallies"]["energy_mj"]})),
    ("too short", lambda c: c["tallies"]["energy_mj"].pop()),
    ("time that has not come", lambda c: c.update(ns=c["ns"] - 2 * 10**9)),
    ("no gaps", lambda c: c.update(gaps=None)),
    ("a phase has more than there is", lambda c: c["tallies"]["phases"]["train"]["busy_sm_cycles"].__setitem__(1, 121)),
    ("phases have more than there is", lambda c: c["tallies"]["busy_sm_cycles"].__setitem__(1, 144)),
    ("gaps", lambda c: c.update(gaps=[[0, 1, 2, "overlap"]])),
    ("sessions", lambda c: c.update(sessions=[{}])),
]


@pytest.mark.parametrize("edit", [edit for _, edit in WRONG], ids=[name for name, _ in WRONG])
def test_any_malformed_checkpoint_gives_the_same_outcome_as_device_by_device(
    edit: Callable[[J], object], device_by_device: Callable[[list[J]], History | str]
) -> None:
    records = copy.deepcopy(list(_journal()))
    edit([record for record in records if record["kind"] == "checkpoint"][-2])
    assert outcome(records) == device_by_device(records)
