"""Whatever a process declares: its model has an architecture basis or a reason why not, and nothing else happens.
And the integral of a sampled clock: exact where the clock is known, and never off by more than its doubt."""

from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flopsd.core.clock_integral import Cycles, integrate
from flopsd.core.declarations import COUNTERS, Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.declared_facts import facts_from, work_from
from flopsd.core.model import PPM
from flopsd.core.policy.bases import declarations_of
from flopsd.core.session_protocol import DeclaredSession
from tests.support import architectures
from tests.support.extent import examples

CONFIGS = [value for value in vars(architectures).values() if isinstance(value, dict) and "model_type" in value]
FAMILIES = ["llama", "mixtral", "qwen2_moe", "gemma3_text", "gpt_oss", "gpt2", "bert", "t5", "bart", "gpt_neox", "phi3"]
odd: st.SearchStrategy[Any] = st.sampled_from(
    [None, 0, -1, 1, 3, 2**70, 0.5, "x", "0.5", [], [1, 2], ["full_attention"], {}, {"a": 1}, True, False]
)
fields = st.sampled_from(
    [
        "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
        "intermediate_size", "vocab_size", "layer_types", "sliding_window", "num_local_experts", "num_experts_per_tok",
        "tie_word_embeddings", "rope_scaling", "architectures", "quantization_config", "unheard_of",
    ]
)  # fmt: skip
counts = st.integers(0, 10**30) | st.sampled_from([0, 1])


@st.composite
def declarations(draw: st.DrawFn) -> dict[str, Any]:
    config = {**draw(st.sampled_from(CONFIGS)), **draw(st.dictionaries(fields, odd, max_size=3))}
    if draw(st.booleans()):
        config["model_type"] = draw(st.sampled_from(FAMILIES))
    facts: dict[str, Any] = {"model_config": config}
    for name, values in (("method", Method), ("recomputation", Recomputation)):
        if draw(st.booleans()):
            facts[name] = draw(st.sampled_from(values)).value
    if draw(st.booleans()):
        facts["lora"] = {
            "r": draw(counts),
            "target_modules": draw(st.sampled_from([["q_proj"], ["none"], [], ["all-linear"]])),
        }
    for name in ("parameters_total", "parameters_trainable", "window"):
        if draw(st.booleans()):
            facts[name] = draw(counts)
    return facts


@settings(max_examples=examples(400))
@given(
    declarations(),
    st.dictionaries(
        st.sampled_from([phase.value for phase in Phase]), st.dictionaries(st.sampled_from(COUNTERS), counts)
    ),
)
def test_a_declaration_is_counted_or_its_reason_is_reported(
    facts: dict[str, Any], work: dict[str, dict[str, int]]
) -> None:
    found = declarations_of(
        OperatorDeclarations(), [DeclaredSession("a" * 32, 1, 1, "0.1.0", facts_from(facts), work_from(work))]
    )
    assert (found.architecture is None) == bool(found.absent)
    share = found.required
    assert 0 <= share.low_ppm <= (share.stated_ppm if share.stated_ppm is not None else share.high_ppm) <= PPM
    assert share.low_ppm <= share.high_ppm <= PPM
    if share.stated_ppm is not None:
        assert share.stated_ppm <= share.high_ppm
    if found.architecture is not None:
        for bounds in (found.architecture.counted.required, found.architecture.counted.executed):
            assert (bounds.computed is None) == (bounds.high is None)
            if bounds.computed is not None and bounds.high is not None:
                assert 0 <= bounds.low <= bounds.computed <= bounds.high


MHZ = st.integers(210, 2062)
STEPS = st.lists(st.tuples(st.integers(1_000_000, 900_000_000), MHZ), min_size=1, max_size=12)


def truth(steps: list[tuple[int, int]], begin_ns: int, end_ns: int) -> Fraction:
    """Cycles of a clock that holds each (duration, MHz) in turn, the last for ever."""
    total, at_ns = Fraction(0), 0
    for duration_ns, mhz in [*steps[:-1], (10**18, steps[-1][1])]:
        part_ns = min(end_ns, at_ns + duration_ns) - max(begin_ns, at_ns)
        total += Fraction(max(0, part_ns) * mhz, 1000)
        at_ns += duration_ns
    return total


@given(STEPS, st.integers(0, 3 * 10**9), st.integers(0, 3 * 10**9))
def test_samples_at_every_step_bound_the_truth(steps: list[tuple[int, int]], one_ns: int, other_ns: int) -> None:
    begin_ns, end_ns = sorted((one_ns, other_ns))
    samples, at_ns = [], 0
    for duration_ns, mhz in steps:
        samples.append((at_ns, mhz))
        at_ns += duration_ns
    found = integrate(samples, begin_ns, end_ns)
    assert found is not None
    assert abs(found.cycles - truth(steps, begin_ns, end_ns)) <= found.doubt_cycles + 1


@given(MHZ, st.lists(st.integers(0, 10**10), min_size=1, max_size=9), st.integers(0, 10**10), st.integers(0, 10**10))
def test_a_constant_clock_is_exact_wherever_it_was_sampled(
    mhz: int, times: list[int], one_ns: int, other_ns: int
) -> None:
    begin_ns, end_ns = sorted((one_ns, other_ns))
    assert integrate([(at_ns, mhz) for at_ns in sorted(times)], begin_ns, end_ns) == Cycles(
        mhz * (end_ns - begin_ns) // 1000, 0
    )


@given(STEPS, st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_splitting_an_interval_changes_nothing(steps: list[tuple[int, int]], a: int, b: int, c: int) -> None:
    samples, at_ns = [], 0
    for duration_ns, mhz in steps:
        samples.append((at_ns, mhz))
        at_ns += duration_ns
    begin_ns, middle_ns, end_ns = sorted((a, b, c))
    whole, parts = (
        integrate(samples, begin_ns, end_ns),
        [integrate(samples, begin_ns, middle_ns), integrate(samples, middle_ns, end_ns)],
    )
    assert whole is not None
    assert abs(whole.cycles - sum(part.cycles for part in parts if part)) <= 1


def test_without_a_sample_the_clock_is_unknown() -> None:
    assert integrate([], 0, 10) is None
