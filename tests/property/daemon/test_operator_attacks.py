"""Processes that lie about their operators in every way at once, to the real writer: no ceiling changes, no bound is
violated."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flopsd.core.declarations import MAX_COUNT, OperatorDeclarations, Phase
from flopsd.core.figures import Figures
from flopsd.core.ledger.run_view import DeviceView, RunView, view_of
from flopsd.core.model import Busy, GapReason, Pipe
from flopsd.core.operator_count import counted_flop
from flopsd.core.session_protocol import FactsDeclared, SessionClosed, SessionOpened, WorkCounted
from tests.support.runs import history_of
from tests.support.story import A100, CONTEXT, H100, Story, active, gap, table

PROCESSES = tuple(digit * 32 for digit in "abcd")
DEVICES = (A100.uid, H100.uid, "GPU-elsewhere")
PLANS: dict[str, Any] = {
    "busy": {A100: lambda _: Busy(113_000_000_007), H100: active(132, 1700, {Pipe.TENSOR_HMMA: 300_000})},
    "idle": {A100: lambda _: Busy(0), H100: active(132, 1700, {})},
    "gap": {A100: gap(GapReason.DRIVER_TIMEOUT), H100: gap(GapReason.DRIVER_TIMEOUT)},
}
# A process may count all that a device can have executed until now, which anybody can read, or a part of it, or more.
AMOUNTS = {
    "ceiling": (1, 0), "beyond": (1, 1), "tenfold": (10, 0), "tenth": (0.1, 0), "one": (0, 1), "most": (0, MAX_COUNT),
}  # fmt: skip
Step = tuple[Any, ...]
STEPS = st.one_of(
    st.tuples(st.sampled_from(list(PLANS)), st.integers(1, 7)),
    st.tuples(st.sampled_from(["kill", "reboot"]), st.integers(0, 90)),
    st.tuples(st.just("open"), st.integers(0, 3), st.integers(1, 3)),
    st.tuples(st.just("close"), st.integers(0, 3)),
    st.tuples(st.just("device"), st.integers(0, 3), st.sampled_from(DEVICES)),
    st.tuples(
        st.just("count"), st.integers(0, 3), st.sampled_from(list(AMOUNTS)), st.sampled_from(DEVICES[:2]),
        st.sampled_from([phase.value for phase in Phase]),
    ),
)  # fmt: skip
TO_THE_CEILING = ("count", 0, "ceiling", A100.uid, "train")
A_DAY = 5 * [("idle", 3), ("gap", 1), ("busy", 2), TO_THE_CEILING]
TWO_OF_ONE = [("busy", 5), ("count", 0, "tenth", A100.uid, "train"), ("count", 2, "ceiling", A100.uid, "other")]
OVER_A_GAP = [("busy", 3), ("gap", 4), ("kill", 9), ("busy", 2), ("count", 1, "ceiling", H100.uid, "train")]
ANOTHER_BOOT = [
    ("busy", 6), TO_THE_CEILING, ("reboot", 5), ("open", 0, 3), ("count", 0, "one", A100.uid, "train"),
    ("count", 0, "tenfold", A100.uid, "train"), ("busy", 2),
]  # fmt: skip
THEN_ANOTHER_GPU = [
    ("busy", 5), TO_THE_CEILING, ("device", 0, H100.uid), ("count", 0, "ceiling", H100.uid, "train"), ("kill", 1), ("busy", 1),
]  # fmt: skip
NO_GPU_AT_FIRST = [("busy", 5), ("open", 3, 1), ("count", 3, "most", A100.uid, "train"), ("device", 3, A100.uid)]


class Attacked:
    """A run. At first process 0 and 2 count an A100 that is only bounded, and 1 an H100 that counters measure."""

    def __init__(self, folder: Path) -> None:
        self.story = Story(folder, (H100, A100), declared=OperatorDeclarations(Phase.TRAIN))
        self.connected: set[int] = set()  # the session server passes on nothing before a hello
        self.do("busy", 1)
        for process, device in enumerate((A100.uid, H100.uid, A100.uid)):
            self.do("open", process, 1)
            self.do("device", process, device)

    def do(self, what: str, *how: Any) -> None:
        story = self.story
        if what in PLANS:
            story.during(how[0], PLANS[what])
        elif what in ("kill", "reboot"):
            story.kill(how[0] + 30 * (what == "reboot"))
            if what == "reboot":
                story.reboot(replace(CONTEXT, boot_id=f"00000000-0000-4000-8000-{story.clock.wall_ns() % 10**12:012d}"))
            story.start()
            for process in self.connected:
                story.says(SessionOpened(PROCESSES[process], 1, 1000, "0.1.0"))
        elif what == "open":
            self.connected.add(how[0])
            story.says(SessionOpened(PROCESSES[how[0]], how[1], 1000, "0.1.0"))
        elif how[0] not in self.connected:
            pass
        elif what == "close":
            self.connected.discard(how[0])
            story.says(SessionClosed(PROCESSES[how[0]], clean=True))
        elif what == "device":
            story.says(FactsDeclared(PROCESSES[how[0]], {"device": how[1]}))
        else:
            process, amount, device, phase = how
            factor, more = AMOUNTS[amount]
            high = next(
                (one.figures.high_flop for one in story.writer.snapshot.view.devices if one.device.uid == device), 0
            )
            flop = min(int((high or 0) * factor) + more, MAX_COUNT)
            story.says(WorkCounted(PROCESSES[process], {phase: {"operator_flop": flop, "steps": 1}}))
        story.writer.tick()


@pytest.mark.long
@given(st.lists(STEPS, max_size=12))
@example(A_DAY)
@example(TWO_OF_ONE)
@example(OVER_A_GAP)
@example(ANOTHER_BOOT)
@example(THEN_ANOTHER_GPU)
@example(NO_GPU_AT_FIRST)
def test_no_lie_exceeds_or_changes_a_ceiling(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        attacked = Attacked(Path(folder))
        for step in steps:
            attacked.do(*step)
            if step[0] == "count":
                ordered(attacked.story.writer.snapshot.view)
        shown = attacked.story.writer.snapshot.view
        attacked.story.so_far()
        history = history_of(attacked.story.state.journal)
    stated, silent = view_of(history, table()), view_of(replace(history, has_counts=False), table())
    ordered(stated)
    assert stated.figures == shown.figures
    assert stated.unused == shown.unused
    pairs = [(stated.figures, silent.figures), (stated.bases.guidelines.updates, silent.bases.guidelines.updates),
             *((one.figures, other.figures) for one, other in zip(stated.devices, silent.devices, strict=True))]  # fmt: skip
    for one, other in pairs:
        assert one.high_flop == other.high_flop
        assert one.low_flop >= other.low_flop
    in_no_figure = {one.session for one in stated.unused}
    for name, session in history.sessions.items():
        assert name in in_no_figure or counted_flop(session.work) <= most_of(stated, session.facts.get("device"))


def ordered(view: RunView) -> None:
    for one in (view.figures, *(device.figures for device in view.devices)):
        assert one.low_flop <= (one.measured_flop or 0)
        assert one.high_flop is None or (one.measured_flop or 0) <= one.high_flop
    for device in view.devices:
        added(device)


def added(device: DeviceView) -> None:
    """A count adds at most the work that was only bounded, and nothing of work that was not this job's."""
    rows = Figures(0, 0, 0)
    for row in device.operator_rows:
        rows += row.figures
    most = device.read.unmeasured_high
    assert rows.high_flop == 0
    assert most is None or rows.low_flop <= most


def most_of(view: RunView, uid: str | None) -> int:
    return next((one.figures.high_flop or 0 for one in view.devices if one.device.uid == uid), 0)
