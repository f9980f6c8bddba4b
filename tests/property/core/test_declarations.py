"""Whatever a process declares: its model has an architecture basis or a reason why not, and nothing else happens."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flopsd.core.declarations import (
    COUNTERS,
    Method,
    OperatorDeclarations,
    Phase,
    Recomputation,
    facts_from,
    work_from,
)
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
def test_a_declaration_is_counted_or_its_reason_is_told(facts: dict[str, Any], work: dict[str, dict[str, int]]) -> None:
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
            assert 0 <= bounds.low <= bounds.computed <= bounds.high
