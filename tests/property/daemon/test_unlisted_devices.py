"""A driver that lists its GPU in some daemon starts and not in others, while a job works on it all the time: the
real writer, journal and seal, on a fake clock. The upper bound holds, or there is none."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flopsd.core.meter import max_sm_cycles
from flopsd.core.model import ACCOUNTED_ELSEWHERE, UNBOUNDED, Evidence, Limits, Pipe
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.extent import examples
from tests.support.runs import H100, Run, history_of, verified

START = st.tuples(
    st.lists(st.booleans(), min_size=1, max_size=3),  # whether the GPU is listed, for some seconds each
    st.integers(1, 40),
    st.sampled_from(["ends", "is killed", "is killed by a reboot"]),
    st.integers(1, 30),  # seconds until the next start
)


@pytest.mark.long
@settings(max_examples=examples(30))
@given(st.lists(START, min_size=1, max_size=6))
@example([([False], 40, "ends", 3), ([True], 5, "ends", 1)])
@example([([True], 5, "ends", 3), ([False], 40, "is killed by a reboot", 9), ([False, True], 5, "ends", 1)])
def test_unlisted_time_of_a_device_is_never_outside_the_upper_bound(
    starts: list[tuple[list[bool], int, str, int]],
) -> None:
    worked_ns = 0
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "state", devices=())
        for at, (listed, seconds, how, pause) in enumerate(starts):
            if at:
                run.start()
            for is_listed in listed:
                run.devices = (H100,) if is_listed else ()
                run.meter(seconds)
            worked_ns += len(listed) * seconds * NS_PER_S
            is_last = at == len(starts) - 1
            if how == "ends" or is_last:
                run.finish()
            else:
                run.kill()
                worked_ns += pause * NS_PER_S  # no stop was requested
            if how == "is killed by a reboot":
                run.clock = FakeClock(min(20, pause) * NS_PER_S, run.clock.wall_ns() + pause * NS_PER_S)
                run.context = replace(run.context, boot_id=f"boot after {at}")
            else:
                run.clock.advance(pause * NS_PER_S)
        verified(run.seal(Path(folder) / "out" / "ledger.json"))
        history = history_of(run.state.journal)
    tallies = [tally for start in history.incarnations for tally in start.tallies.values()]
    if not tallies or any(reason in UNBOUNDED for tally in tallies for reason in tally.gap_ns):
        return  # no upper bound
    counted = sum(tally.active_sm_cycles.get((Evidence.ACTIVITY, Pipe.TENSOR_HMMA), 0) for tally in tallies)
    gaps_ns = sum(ns for tally in tallies for why, ns in tally.gap_ns.items() if why not in ACCOUNTED_ELSEWHERE)
    worked = 1500 * 132 * worked_ns // 2000
    assert counted <= worked <= counted + max_sm_cycles(Limits(132, 1980), gaps_ns)
