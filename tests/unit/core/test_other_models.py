"""Models in addition to the trained one, and uncounted work: which bounds of the architecture basis they change."""

from collections.abc import Collection
from functools import partial
from typing import Any

import pytest

from flopsd.core.architecture import flop, forward_flop, read_model, training_from, why_not_read
from flopsd.core.declarations import NOTHING_DECLARED
from flopsd.core.declared_facts import facts_from
from flopsd.core.notes import Note, note, note_of
from flopsd.core.policy.bases import Declarations, declarations_of
from flopsd.core.policy.contradictions import contradictions
from flopsd.core.policy.other_models import WITHOUT_GRADIENTS
from flopsd.core.policy.reconcile import NO_PROCESS, NO_WORK
from flopsd.core.session_protocol import DeclaredSession
from tests.support.architectures import LLAMA_8B

TRAINED = {"model_config": LLAMA_8B, "method": "lora", "lora": {"r": 8, "target_modules": ["q_proj"]},
           "recomputation": "full", "attention": "eager"}  # fmt: skip
BESIDE = {"model_config": LLAMA_8B, "attention": "eager"}
REFUSED = why_not_read({"model_type": "new"})
assert REFUSED is not None
WORK = {"tokens": 10, "sequences": 1, "square_pairs": 100}


def found(
    *sessions: tuple[dict[str, Any], dict[str, dict[str, int]]], contradicted: Collection[str] = ()
) -> Declarations:
    declared = [DeclaredSession(str(n), n, 0, "0.1.0", facts_from(f), w) for n, (f, w) in enumerate(sessions)]
    assert {one.name for one in contradictions([NOTHING_DECLARED], declared, ())} <= {*contradicted}
    return declarations_of(NOTHING_DECLARED, declared)


ALONE = found((TRAINED, {"train": WORK}))
PASS = forward_flop(read_model(LLAMA_8B), WORK, training_from(BESIDE))
FULL = flop(read_model(LLAMA_8B), WORK, training_from({**BESIDE, "method": "full", "recomputation": "none"}))


@pytest.mark.parametrize(
    ("facts", "work", "required", "executed"),
    [
        ({"role": "reference"}, {"other": WORK}, (0, PASS.computed, PASS.high), (PASS.low, PASS.computed, PASS.high)),
        ({"role": "teacher"}, {"generate": WORK}, (0, 0, 0), (PASS.low, PASS.computed, PASS.high)),
        ({"role": "reward"}, {"evaluate": WORK}, (0, 0, 0), (PASS.low, PASS.computed, PASS.high)),
        (
            {"role": "critic", "method": "full", "recomputation": "none"}, {"train": WORK},
            (0, 0, FULL.required.high), (FULL.executed.low, FULL.executed.computed, FULL.executed.high),
        ),
        ({"role": "other", "model_config": {"model_type": "new"}}, {"other": WORK}, (0, None, None), (0, None, None)),
        ({"role": "other"}, {"other": {"forward_passes": 1}}, (0, None, None), (0, None, None)),
        ({"role": "reference", "not_counted": {"generate": ["vLLM"]}}, {}, (0, 0, 0), (0, None, None)),
        ({"role": "reference", "not_counted": {"other": ["a judge"]}}, {}, (0, None, None), (0, None, None)),
    ],
)  # fmt: skip
def test_work_of_another_model_adds_to_the_bounds(
    facts: dict[str, Any], work: dict[str, Any], required: tuple[Any, ...], executed: tuple[Any, ...]
) -> None:
    whole = found((TRAINED, {"train": WORK}), ({**BESIDE, **facts}, work))
    assert ALONE.architecture is not None
    assert whole.architecture is not None
    before, after = ALONE.architecture.counted, whole.architecture.counted
    assert after.tokens == before.tokens
    for one, other, added in ((before.required, after.required, required), (before.executed, after.executed, executed)):
        assert other.low == one.low + added[0]
        assert other.computed == (None if added[1] is None else (one.computed or 0) + added[1])
        assert other.high == (None if added[2] is None else (one.high or 0) + added[2])
    sizes = (whole.architecture.parameters_total, whole.architecture.parameters_trainable)
    assert sizes == (ALONE.architecture.parameters_total, ALONE.architecture.parameters_trainable)
    assert (WITHOUT_GRADIENTS in whole.architecture.assumptions) == (required[2] != 0)
    if None in required:
        assert whole.required.stated_ppm == 666_667, "no share by terms that are not all known"


def test_passes_of_the_trained_model_without_tokens_leave_no_computed_value() -> None:
    passed = {"train": {"forward_passes": 3, "steps": 3}, "evaluate": WORK}
    whole = found((TRAINED, passed)).architecture
    assert whole is not None
    assert (whole.counted.required.low, whole.counted.required.computed, whole.counted.executed.high) == (0, None, None)
    assert note("trained_tokens_not_counted") in whole.assumptions


def test_an_unreadable_model_is_counted_by_its_size() -> None:
    sized = {"role": "teacher", "model_config": {"model_type": "new"}, "parameters_total": 10**6}
    whole = found((TRAINED, {"train": WORK}), (sized, {"other": WORK}))
    assert whole.architecture is not None
    assert ALONE.architecture is not None
    added = (whole.architecture.counted.executed.computed or 0) - (ALONE.architecture.counted.executed.computed or 0)
    assert added == 2 * 10**6 * 10


@pytest.mark.parametrize(("trainable", "stated_ppm"), [(9, 750_000), (3, None)])
def test_a_process_that_trains_all_weights_has_the_full_method(trainable: int, stated_ppm: int | None) -> None:
    sizes = {"parameters_total": 9, "parameters_trainable": trainable, "recomputation": "full"}
    assert found((sizes, {"train": {"steps": 1}})).required.stated_ppm == stated_ppm


@pytest.mark.parametrize(
    "sessions",
    [
        ({"method": "full", "recomputation": "full"}, {"method": "full"}),
        ({"method": "full", "recomputation": "none"}, {"method": "full"}),
        ({"method": "full"}, {"method": "partial"}),
        ({"method": "partial"}, {"method": "lora"}),
        ({"method": "full"}, {}),
    ],
)
def test_what_a_process_leaves_open_is_not_that_of_another(sessions: tuple[dict[str, Any], ...]) -> None:
    sizes = {"model_config": LLAMA_8B} | dict.fromkeys(("parameters_total", "parameters_trainable"), 8_030_261_248)
    each = [({**sizes, **one}, {"train": WORK}) for one in sessions]
    counted = partial(found, contradicted={"TRAINABLE_SHARE_DIFFERS"})
    alone = [one.architecture.counted.executed for one in map(counted, each) if one.architecture is not None]
    whole = counted(*each).architecture
    assert whole is not None
    assert whole.counted.executed.low == sum(one.low for one in alone)
    assert whole.counted.executed.high == sum(one.high or 0 for one in alone)


def test_own_passes_count_like_passes_of_other_models_and_need_a_trained_model() -> None:
    assert found(({**BESIDE, "role": "reference"}, {"other": WORK})).architecture is None
    own, other = found((TRAINED, {"train": WORK, "other": WORK})), found((TRAINED, {"train": WORK}))
    assert own.architecture is not None
    assert other.architecture is not None
    adapted = forward_flop(read_model(LLAMA_8B), WORK, training_from(TRAINED))
    assert own.architecture.counted.required.low == other.architecture.counted.required.low
    assert own.architecture.counted.required.computed == (
        (other.architecture.counted.required.computed or 0) + adapted.computed
    )
    assert own.architecture.counted.executed.low == other.architecture.counted.executed.low + adapted.low
    # A pass that is computed once lowers the share of the work that is recomputed.
    assert (own.required.stated_ppm or 0) > (other.required.stated_ppm or 0)


@pytest.mark.parametrize(
    ("facts", "absent"),
    [
        ({}, NO_PROCESS),
        ({"method": "full"}, NO_PROCESS),
        ({"parameters_total": 9}, NO_WORK),
        ({"model_config": LLAMA_8B}, NO_WORK),
        ({"model_config": {"model_type": "new"}}, note_of(REFUSED)),
    ],
)
def test_the_first_missing_declaration_is_the_reason_before_any_work(facts: dict[str, Any], absent: Note) -> None:
    assert found((facts, {})).absent == (absent,)


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"role": "trained"}, "role"),
        ({"not_counted": {"sometimes": ["x"]}}, "sometimes"),
        ({"not_counted": {"other": ["x"] * 17}}, "at most 16 texts"),
        ({"not_counted": {"other": [""]}}, "at most 16 texts"),
        ({"not_counted": ["x"]}, "not_counted"),
    ],
)
def test_roles_and_uncounted_work_accept_only_known_words(facts: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        facts_from(facts)
    assert facts_from({"not_counted": {"other": ["b", "a", "b"], "train": []}}) == {
        "not_counted": {"other": ["a", "b"]}
    }
