"""Whatever training processes claim to have run, no ceiling changes, and the ends keep their order."""

from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from flopsd.core.declarations import FORMATS, OperatorDeclarations, Phase
from flopsd.core.declared_facts import facts_from, work_from
from flopsd.core.figures import Figures, sum_figures
from flopsd.core.ledger.run_view import RunView, view_of
from flopsd.core.model import Evidence
from flopsd.core.operator_count import OPERATOR_FLOP, DeviceCount, ReadFigures, as_claimed
from flopsd.core.policy.finding import OPERATOR_COUNT, Verdict
from flopsd.core.session_protocol import DeclaredSession
from tests.property.core.test_claims import Lie, a_second, lies, within
from tests.support.story import policy
from tests.support.strategies import table

Counts = dict[str, dict[str, int]]  # by device, by phase
counts = st.dictionaries(
    st.sampled_from(["GPU-0", "GPU-1", "GPU-elsewhere"]),
    st.dictionaries(st.sampled_from([phase.value for phase in Phase]), st.integers(0, 10**17), min_size=1),
    max_size=3,
)
ONE_SECOND = {"GPU-0": {"train": 10**14, "evaluate": 3 * 10**13}}


def counting(lie: Lie, stated: Counts, left_out: str | None = None) -> RunView:
    """The view of a run whose processes also count operators."""
    history = replace(lie.history(), has_counts=True)
    for device, by_phase in stated.items():
        facts = {"device": device} | ({} if left_out is None else {"not_counted": {left_out: ["a server"]}})
        work = work_from({phase: {OPERATOR_FLOP: flop} for phase, flop in by_phase.items()})
        history.sessions[device] = DeclaredSession(device, 1, 0, "0", facts_from(facts), work)
    return view_of(history, table(), (policy(),))


def truth_of(lie: Lie) -> Counts:
    found: Counts = {}
    parts = sorted({second.part for second in lie.seconds})
    for second in lie.seconds:
        of_device = found.setdefault(f"GPU-{parts.index(second.part)}", {})
        of_device[second.phase.value] = of_device.get(second.phase.value, 0) + second.flop
    return found


@given(lies(), counts, st.none() | st.sampled_from([phase.value for phase in Phase]))
@example(a_second(seen="utilization"), ONE_SECOND, None)
@example(a_second(seen="utilization", operator=OperatorDeclarations(Phase.TRAIN)), ONE_SECOND, "train")
@example(a_second(seen="as one", said="train@bf16"), ONE_SECOND, None)
@example(a_second(seen="utilization"), {"GPU-0": {"train": 10**17}}, None)
def test_no_count_changes_a_ceiling_or_lowers_an_end(lie: Lie, stated: Counts, left_out: str | None) -> None:
    counted, silent = counting(lie, stated, left_out), lie.view()
    pairs = [
        (counted.figures, silent.figures),
        (counted.bases.guidelines.updates, silent.bases.guidelines.updates),
        (counted.bases.guidelines.cumulative, silent.bases.guidelines.cumulative),
        *((one.figures, other.figures) for one, other in zip(counted.devices, silent.devices, strict=True)),
    ]
    for one, other in pairs:
        assert one.high_flop == other.high_flop
        assert one.low_flop >= other.low_flop
        assert one.high_flop is None or one.low_flop <= one.high_flop
    for one, other in (pairs[0], *pairs[3:]):
        assert one.low_flop <= (one.measured_flop or 0)
        assert (one.measured_flop or 0) >= (other.measured_flop or 0)
        assert one.high_flop is None or (one.measured_flop or 0) <= one.high_flop
    assert counted.integers == silent.integers
    for phase, figures in silent.bases.by_phase.items():
        assert counted.bases.by_phase[phase].high_flop == figures.high_flop
    by_phase = sum_figures(counted.bases.by_phase.values())
    assert (by_phase.low_flop, by_phase.high_flop) == (counted.figures.low_flop, counted.figures.high_flop)
    for said_of, known_of in zip(counted.findings, silent.findings, strict=True):
        assert (said_of.rests_on is None) == (said_of.state is known_of.state)
        assert said_of.rests_on is None or (said_of.rests_on, said_of.state) == (OPERATOR_COUNT, Verdict.ABOVE)


@given(lies())
@example(a_second(seen="utilization", operator=OperatorDeclarations(Phase.TRAIN)))
@example(a_second(seen="as one", said="evaluate"))
def test_an_honest_processs_count_is_between_both_ends(lie: Lie) -> None:
    view = counting(lie, truth_of(lie))
    assert view.unused == ()
    assert within(sum(second.flop for second in lie.seconds), view.figures)
    trained = sum(second.flop for second in lie.seconds if second.phase is Phase.TRAIN)
    generated = sum(second.flop for second in lie.seconds if second.phase is Phase.GENERATE)
    assert within(trained * lie.share_ppm / 10**6, view.bases.guidelines.updates)
    assert within(trained * lie.share_ppm / 10**6 + generated, view.bases.guidelines.cumulative)
    for device in view.devices:
        if any(row.evidence is Evidence.OPERATOR_COUNT for row in device.operator_rows):
            assert device.figures.measured_flop is not None


@given(lies())
def test_figures_as_claimed_are_true_for_an_honest_process(lie: Lie) -> None:
    labels = {name: f"@{name}" for name in FORMATS}
    honest = replace(
        lie, seconds=[replace(one, said=one.phase.value + labels.get(one.format, "")) for one in lie.seconds]
    )
    claimed = counting(honest, truth_of(honest)).bases.claimed
    if claimed is not None:
        trained, generated = (
            sum(second.flop for second in honest.seconds if second.phase is phase)
            for phase in (Phase.TRAIN, Phase.GENERATE)
        )
        updates = trained * honest.share_ppm / 10**6
        for truth, figures in ((updates, claimed.counted.updates), (updates + generated, claimed.counted.cumulative)):
            assert within(truth, figures)
            assert figures.measured_flop is None or figures.low_flop <= figures.measured_flop


@given(lies())
def test_without_a_measurement_the_count_is_the_measured_figure(lie: Lie) -> None:
    bounded = replace(lie, seconds=[replace(one, seen="gap") for one in lie.seconds])
    truth, view = truth_of(bounded), counting(bounded, truth_of(bounded))
    for device in view.devices:
        flop = sum(truth[device.device.uid].values())
        assert device.figures == Figures(flop, flop or None, device.figures.high_flop)


def test_a_count_beyond_the_ceiling_is_not_used_and_named() -> None:
    lie = a_second(seen="utilization")
    most = lie.view().figures.high_flop
    assert most is not None
    assert counting(lie, {"GPU-0": {"train": most}}).figures == Figures(most, most, most)
    view = counting(lie, {"GPU-0": {"train": most, "other": 1}})
    assert view.figures == lie.view().figures
    (unused,) = view.unused
    assert (unused.reason.value, unused.device) == ("count_exceeds_ceiling", "GPU-0")
    assert (unused.counted_flop, unused.ceiling_flop) == (most + 1, most)


def test_only_a_count_beyond_the_time_of_its_phase_adds_the_time_of_evaluation() -> None:
    def high(counted: int, most: int | None) -> int | None:
        by_phase = {"train": Figures(1, None, most), "evaluate": Figures(0, None, 7)}
        read = ReadFigures(Figures(1, None, 17), by_phase, 17)
        return as_claimed(DeviceCount({"train": counted}, ()), read)["train"].high_flop

    assert (high(10, 10), high(11, 10), high(11, None)) == (0, 7, 0)
