"""Whatever a training process declares, the truth lies between both ends, and no verdict rests on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from flopsd.core.declarations import Base, Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.declared_facts import facts_from, work_from
from flopsd.core.figures import Figures
from flopsd.core.ledger.device_records import DeviceEntry
from flopsd.core.ledger.history import History, Incarnation
from flopsd.core.ledger.run_view import RunView, view_of
from flopsd.core.meter import advance
from flopsd.core.model import PPM, Active, Busy, Counted, Device, Evidence, Gap, GapReason, Pipe, Precision, Reading
from flopsd.core.part import HMMA_FORMATS, INTEGER_FORMATS
from flopsd.core.phases import ActivePhase
from flopsd.core.policy.finding import Verdict
from flopsd.core.session_protocol import DeclaredSession
from flopsd.core.tally import Tally
from tests.make_vectors.merged import of_one_node
from tests.second_implementation.arithmetic import payload_of
from tests.support.extent import examples
from tests.support.story import VECTORS, policy
from tests.support.strategies import table

S = 10**9
MOST = 10**11  # SM-cycles per second: fewer than any part here has
GPUS = ("h100-sxm5-80gb", "a100-sxm4-80gb", "t4", "v100-sxm2")
CHIP = next(part.id for part in table().parts.values() if part.chip_flop_per_s)
BUCKETS = ("undeclared", *(phase.value for phase in Phase), "train@bf16", "train@tf32", "train@fp16", "train@fp8", "evaluate@int8",
           "train@bf16:0.5,int8:0.5", "generate@fp16:0.3,fp64:0.7", "other@fp64")  # fmt: skip
TINY = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 512}  # fmt: skip


@dataclass(frozen=True)
class Second:
    """The work of a device in one second, how it was read, and the job's claim about it."""

    part: str
    format: str
    cycles: int
    seen: str
    phase: Phase
    said: str

    @property
    def flop(self) -> int:
        return 0 if self.format in INTEGER_FORMATS else self.operations

    @property
    def integers(self) -> int:
        return self.operations - self.flop

    @property
    def operations(self) -> int:
        known = table().parts[self.part]
        return self.cycles * (1000 if self.part == CHIP else known.tensor_flop_per_cycle[self.format])

    def reading(self, uid: str, at_ns: int) -> Reading:
        kind = Pipe.TENSOR_HMMA if self.format in HMMA_FORMATS else Pipe.TENSOR_DFMA
        kind = Pipe.TENSOR_IMMA if self.format in INTEGER_FORMATS else kind
        work: dict[str, Active | Busy | Gap | Counted] = {
            "as one": Active(Evidence.ACTIVITY, {Pipe.TENSOR: self.cycles}),
            "by kind": Active(Evidence.ACTIVITY, {kind: self.cycles}),
            "unread": Active(Evidence.ACTIVITY, {}, {}, (Pipe.TENSOR,)),
            "utilization": Busy(self.cycles),
            "gap": Gap(GapReason.DRIVER_ERROR),
            "count": Counted(self.operations),
        }
        return Reading(uid, at_ns, at_ns + S, work[self.seen])


@dataclass(frozen=True)
class Lie:
    """A run whose operator tells the truth, or nothing, and whose job claims anything."""

    seconds: Sequence[Second]
    operator: OperatorDeclarations
    precision: Precision | None
    share_ppm: int  # of the training that was not a recomputation
    facts: tuple[dict[str, Any], ...]

    def view(self, *, lying: bool = True) -> RunView:
        return view_of(self.history(lying=lying), table(), (policy(),))

    def history(self, *, lying: bool = True) -> History:
        begin = {"incarnation": 1, "run": "r", "node": "n", "declared": self.operator.for_journal(),
                 "context": {"node": {"rank": None, "jobNodes": []}}}  # fmt: skip
        start = Incarnation(begin)
        for number, part_id in enumerate(sorted({second.part for second in self.seconds})):
            part, uid, tally, at_ns = table().parts[part_id], f"GPU-{number}", Tally(0, 0), 0
            device = Device(uid, number, part.vendor, "x", sm_count=part.sm_count, sm_clock_max_mhz=2600)
            for second in (one for one in self.seconds if one.part == part_id):
                quiet = self.operator.phase.value if self.operator.phase else "undeclared"
                in_force = ActivePhase(second.said if lying else quiet, 0)
                tally = advance(tally, second.reading(uid, at_ns), table().limits(device, part), in_force)
                at_ns += S
            start.devices[number] = DeviceEntry(device, "sim", part_id, 0, self.precision)
            start.tallies[uid] = tally
        work = work_from({"train": {"tokens": 4096, "sequences": 64, "square_pairs": 64 * 4096}})
        stated = [DeclaredSession(str(n), n, 0, "0", facts_from(f), work) for n, f in enumerate(self.facts)]
        return History([start], sessions={one.id: one for one in stated if lying})


BOLD = ({"recomputation": "none", "method": "lora"},)
NEAR = Base("b", "known", 10**23 - 5 * 10**14, None, False)  # a second of BF16 at most crosses the rest
SINGLE = ["bf16", "tf32", "fp16", "fp8", "int8", "fp64"]
facts = st.fixed_dictionaries(
    {},
    optional={
        "precision": st.sampled_from(SINGLE).map(lambda name: {name: PPM}),
        "method": st.sampled_from([method.value for method in Method]),
        "recomputation": st.sampled_from([value.value for value in Recomputation]),
        "model_config": st.sampled_from([TINY, {**TINY, "vocab_size": 10**9}]),
        "parameters_total": st.just(7),
        "parameters_trainable": st.sampled_from([1, 7]),
    },
)


@st.composite
def lies(draw: st.DrawFn) -> Lie:
    always = draw(st.none() | st.sampled_from(list(Phase)))
    stated = draw(st.none() | st.sampled_from(SINGLE))
    seconds = []
    for part_id in draw(st.lists(st.sampled_from((*GPUS, CHIP)), min_size=1, max_size=2, unique=True)):
        part = table().parts[part_id]
        names = sorted(part.tensor_flop_per_cycle) or ["bf16", "int8"]
        if stated is not None:
            names = [stated] if stated in names else names
        for _ in range(draw(st.integers(1, 4))):
            seen = ["count", "gap"] if part_id == CHIP else ["as one", "by kind", "unread", "utilization", "gap"]
            seconds.append(
                Second(
                    part_id,
                    draw(st.sampled_from(names)),
                    draw(st.integers(0, MOST)),
                    draw(st.sampled_from(seen)),
                    always or draw(st.sampled_from(list(Phase))),
                    draw(st.sampled_from(BUCKETS)),
                )
            )
    stated = stated if all(stated in table().parts[one.part].tensor_flop_per_cycle for one in seconds) else None
    how = draw(st.none() | st.sampled_from(list(Recomputation)))
    base = draw(st.none() | st.sampled_from([NEAR, Base("b", "unknown", None, None, None)]))
    method = draw(st.none() | st.sampled_from(list(Method)))
    return Lie(
        seconds,
        OperatorDeclarations(draw(st.sampled_from([None, always])), method, how, base),
        None if stated is None else Precision(((stated, PPM),), "config"),
        draw(st.integers(857_143 if how is Recomputation.NONE else 666_667, PPM)),
        tuple(draw(st.lists(facts, max_size=2))),
    )


def within(truth: float, figures: Figures) -> bool:
    return figures.low_flop <= truth and (figures.high_flop is None or truth <= figures.high_flop)


def a_second(**changed: Any) -> Lie:
    """A second of BF16 training on an H100, without declarations."""
    second = Second(GPUS[0], "bf16", MOST, "by kind", Phase.TRAIN, "undeclared")
    named = {name: changed.pop(name) for name in ("said", "seen", "phase", "format") if name in changed}
    return replace(Lie((replace(second, **named),), OperatorDeclarations(), None, PPM, ()), **changed)


@settings(max_examples=examples(40))
@given(lies())
@example(a_second(said="train@tf32"))
@example(a_second(said="train@fp64", seen="gap"))
@example(a_second(said="train@int8", seen="as one"))
@example(a_second(said="train@bf16", seen="as one", format="int8"))
@example(a_second(said="evaluate"))
@example(a_second(said="evaluate", operator=OperatorDeclarations(Phase.TRAIN)))
@example(a_second(said="train", phase=Phase.EVALUATE))
@example(
    a_second(said="train", format="tf32", share_ppm=666_667, facts=BOLD, operator=OperatorDeclarations(Phase.TRAIN))
)
def test_the_truth_of_a_lying_job_is_between_both_ends(lie: Lie) -> None:
    view = lie.view()
    assert within(sum(second.flop for second in lie.seconds), view.figures)
    assert within(sum(second.integers for second in lie.seconds), view.integers)
    for counted, name in ((view.bases.guidelines, "flop"), (view.bases.integers, "integers")):
        trained, generated = (
            sum(getattr(second, name) for second in lie.seconds if second.phase is phase)
            for phase in (Phase.TRAIN, Phase.GENERATE)
        )
        updates = trained * lie.share_ppm / PPM
        assert within(updates, counted.updates), name
        assert within(updates + generated, counted.cumulative), name
        for figures in (counted.updates, counted.cumulative):
            if (measured := figures.measured_flop) is not None:
                assert within(measured, figures)


@given(lies())
@example(a_second(said="train", operator=OperatorDeclarations(None, Method.PRETRAINING)))
@example(a_second(said="evaluate", facts=BOLD))
@example(a_second(said="evaluate", operator=OperatorDeclarations(Phase.TRAIN, Method.FULL, None, NEAR)))
def test_no_claim_of_a_job_narrows_an_end_or_decides_a_rule(lie: Lie) -> None:
    lied, silent = lie.view(), lie.view(lying=False)
    for said, known in (
        (lied.figures, silent.figures),
        (lied.integers, silent.integers),
        (lied.bases.guidelines.updates, silent.bases.guidelines.updates),
        (lied.bases.guidelines.cumulative, silent.bases.guidelines.cumulative),
        (lied.bases.integers.cumulative, silent.bases.integers.cumulative),
    ):
        assert said.low_flop <= known.low_flop
        assert (said.high_flop is None) == (known.high_flop is None)
        assert (said.high_flop or 0) >= (known.high_flop or 0)
    for said_of, known_of in zip(lied.findings, silent.findings, strict=True):
        assert (said_of.applies, said_of.limit) == (known_of.applies, known_of.limit)
        assert said_of.state in (known_of.state, Verdict.INDETERMINATE)


def test_a_merged_ledger_adds_claims_up_and_is_judged_without_them() -> None:
    node = payload_of(VECTORS / "valid" / "lying-declarations" / "ledger.json")["predicate"]
    merged = of_one_node("lying-declarations")["predicate"]
    assert [one["stateIfClaimsHold"] for one in node["findings"]].count("below") == 1
    for ours, its in zip(merged["findings"], node["findings"], strict=True):
        assert {name: ours[name] for name in ("state", "stateIfClaimsHold", "value")} == {
            name: its[name] for name in ("state", "stateIfClaimsHold", "value")
        }
