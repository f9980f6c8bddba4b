"""Refusals of the pure readers: a case for each reason, and values just inside and just outside each limit."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from flopsd.core.architecture import bare_model, flop, forward_flop, read_model, training_from
from flopsd.core.declarations import Phase, base_from, precision_from
from flopsd.core.declared_facts import facts_from, refuse_unprintable, work_from
from flopsd.core.field_reader import words_of
from flopsd.core.phases import split_bucket
from flopsd.core.rounding import magnitude, significant
from flopsd.core.values import millijoules, parse_flop, span_seconds
from tests.support.architectures import refused

LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 50,
}  # fmt: skip


@pytest.mark.parametrize("model", [bare_model(1000), read_model(LLAMA)], ids=["size", "llama"])
def test_work_without_tokens_is_refused(model: Any) -> None:
    for counted in (lambda: flop(model, {}, training_from({})), lambda: forward_flop(model, {}, training_from({}))):
        with refused(match="the work has no tokens"):
            counted()


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        ({"tokens": 4, "padding_tokens": 5}, "5 padding_tokens of 4 tokens"),
        ({"tokens": 4, "sequences": 5}, "5 sequences of 4 tokens"),
        ({"tokens": 4, "sequences": 2, "square_pairs": 7}, "7 square_pairs of 4 tokens in 2 sequences"),
        ({"tokens": 4, "square_pairs": 17}, "17 square_pairs of 4 tokens$"),
        ({"tokens": 4, "square_pairs": 3}, "3 square_pairs of 4 tokens$"),
    ],
)
def test_counters_that_contradict_each_other_are_refused(work: dict[str, int], reason: str) -> None:
    with refused(match=reason):
        flop(read_model(LLAMA), work, training_from({"method": "full"}))


def test_counters_at_the_edge_of_a_contradiction_are_accepted() -> None:
    squares = [{"tokens": 4, "sequences": n, "square_pairs": pairs} for n, pairs in ((4, 4), (2, 8), (1, 16))]
    for work in ({"tokens": 4, "padding_tokens": 4}, {"tokens": 0, "sequences": 3}, *squares):
        assert flop(read_model(LLAMA), work, training_from({"method": "full"})).executed.high >= 0


BASE = {"name": "base", "kind": "estimated", "flop": "7", "method": "6ND", "systemic": None}


def base_with(**changed: object) -> object:
    return base_from({**BASE, **changed})


REFUSED: list[tuple[Callable[[Any], object], Sequence[object], str | None]] = [
    (lambda kind: base_with(kind=kind), ("unknown", "known", "guessed"), None),
    (lambda flop: base_with(flop=flop), (None, 7, "07", "-7", "0", str(10**39)), None),
    (lambda method: base_with(method=method), (None, 7), None),
    (lambda name: base_with(name=name), (7,), None),
    (lambda systemic: base_with(systemic=systemic), ("no",), None),
    (work_from, ([],), "work is not a mapping of phases"),
    (work_from, ({"train": 7},), "the work of phase 'train' is not a mapping of counters"),
    (work_from, ({"sleep": {"tokens": 1}}, {"undeclared": {"tokens": 1}}), "'(sleep|undeclared)' is not a valid Phase"),
    (work_from, ({"train": {"naps": 1}},), "'naps' is not a known counter"),
    (lambda tokens: work_from({"train": {"tokens": tokens}}), (-1, True, 1.0, 10**40), "is not a count"),
    (facts_from, ([],), "must be a mapping"),
    (facts_from, ({"colour": "blue"},), "colour: unknown"),
    (facts_from, ({"method": "guessing"},), "method: must be one of"),
    (facts_from, ({"recomputation": "some"},), "recomputation: must be one of"),
    (facts_from, ({"parameters_total": -1},), "parameters_total: must be a whole number"),
    (facts_from, ({"packing": "yes"},), "packing: must be true or false"),
    (facts_from, ({"precision": "bf17"},), "precision: expected one of"),
    (
        lambda shares: facts_from({"precision": shares}),
        ({"bf16": 999_999}, {"bf16": 1_000_000, "tf32": 0}),
        "precision: shares must be positive and add up to a million",
    ),
    (facts_from, ({"lora": {"r": 1, "alpha": 2}},), "lora.alpha: unknown"),
    (facts_from, ({"lora": {"target_modules": ["q"]}},), "lora.r: must be a whole number"),
    (facts_from, ({"lora": {"r": 1, "target_modules": "q"}},), "lora.target_modules: must be a list"),
    (
        lambda modules: facts_from({"lora": {"r": 1, "target_modules": modules}}),
        ([""], ["q" * 201], ["q"] * 257),
        "lora.target_modules: must be a list of at most",
    ),
    (
        refuse_unprintable,
        ({"lora": {"r": 1, "target_modules": ["q", "\x1b"]}}, {"lora": {"r": 1, "target_modules": [" "]}}),
        "lora: must be of printable characters, is {'r': 1",
    ),
    (refuse_unprintable, ({"not_counted": {"other": ["x\n"]}},), "not_counted: must be of printable characters, is "),
    (facts_from, ({"model_config": {"a": {1}}},), "model_config: set is not JSON"),
    (facts_from, ({"model_config": []},), "model_config: must be a mapping"),
    (
        lambda text: span_seconds(text, "2026-11-02T10:00:00Z"),
        ("", "2026-11-02", "2026-11-02T10:00:00", "2026-11-02 10:00:00Z", "2026-11-02T10:00:00+00:00"),
        "is not a time in UTC",
    ),
    (millijoules, ("1.02", "1.0020", "1", "-1.000", "x"), "is not an amount with 3 decimals"),
]


@pytest.mark.parametrize(
    ("read", "given", "reason"), [(read, given, reason) for read, each, reason in REFUSED for given in each]
)
def test_malformed_values_are_refused(read: Callable[[Any], object], given: object, reason: str | None | None) -> None:
    assert base_from(BASE) is not None
    with pytest.raises((ValueError, TypeError), match=reason):
        read(given)


def test_a_configuration_is_json_of_bounded_depth_and_size() -> None:
    def nested(depth: int) -> dict[str, Any]:
        return {"a": 1} if depth == 1 else {"a": nested(depth - 1)}

    for accepted in (nested(4), {f"n{at}": at for at in range(400)}, {"n": [0] * 398}):
        assert facts_from({"model_config": accepted}) == {"model_config": accepted}
    with pytest.raises(ValueError, match="nested too deep"):
        facts_from({"model_config": nested(5)})
    for large in ({f"n{at}": at for at in range(401)}, {"n": [0] * 400}):
        with pytest.raises(ValueError, match="more than 400 entries"):
            facts_from({"model_config": large})
    config = {"x": 0.1, "y": [True, None, "z"], "long": "z" * 300}
    assert facts_from({"model_config": config}) == {
        "model_config": {"x": "0.1", "y": [True, None, "z"], "long": "z" * 200}
    }


def test_shares_of_formats_are_kept_in_order_and_a_single_format_is_all() -> None:
    assert precision_from("bf16", "me").shares_ppm == (("bf16", 1_000_000),)
    assert precision_from({"tf32": 1, "bf16": 999_999}, "me").shares_ppm == (("bf16", 999_999), ("tf32", 1))


def test_only_a_positive_number_has_a_magnitude() -> None:
    assert [magnitude(number) for number in (1, 9, 10, 99, 100)] == [0, 0, 1, 1, 2]
    for number in (0, -1):
        with pytest.raises(ValueError, match="only a positive number"):
            magnitude(number)
    for number, figures in ((-1, 2), (1, 0)):
        with pytest.raises(ValueError, match="not negative, and one figure at least"):
            significant(number, figures)
    assert significant(0, 1) == (0, 0)


def test_flop_and_energy_texts_are_parsed_exactly() -> None:
    assert [parse_flop(text) for text in ("1e25", "989.4e12", "0", 7)] == [10**25, 989_400_000_000_000, 0, 7]
    assert millijoules("1.002") == 1002


@pytest.mark.parametrize("value", [1e25, True, None, "1.5", "-1", -1, "1e", "ten", "1e25\n", "0x10", "1e999", "٣"])
def test_other_flop_values_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="count|whole number|negative"):
        parse_flop(value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sleep", "'sleep' is not known"),
        (None, "null is not known"),
        ("train@bf16:x", "'train@bf16:x' is not a phase, or a phase and its number format"),
        ("train@bf16:inf", "'train@bf16:inf' is not a phase, or a phase and its number format"),
    ],
)
def test_a_refused_name_is_reported_without_the_words_of_python(name: str | None, said: str) -> None:
    with pytest.raises(ValueError, match="is not") as fault:
        split_bucket(name) if name else Phase(name)
    assert words_of(fault.value) == said
    assert (
        words_of(ValueError("could not convert string to float: 'x'")) == "a member has another form than in the format"
    )
