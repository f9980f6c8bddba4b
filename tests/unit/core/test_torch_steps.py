"""Values that transformers and PyTorch give for a small model of each family, recorded by `python -m
tests.train.record`: figures are compared with them here without torch, and in tests/train with the real libraries."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from flopsd.core.architecture import Lora, adapters, flop, parameters, read_model, training_from
from flopsd.core.declared_facts import facts_from
from flopsd.errors import ArchitectureError
from tests.support.architectures import digest_of, paths_of_model, refused
from tests.support.extent import unless_quick
from tests.support.paths import SAMPLES

RANK = 4
STEPS = {row["name"]: row for row in map(json.loads, (SAMPLES / "torch_steps.jsonl").read_text().splitlines())}
WITHIN = ("text_config", "vision_config")
ALSO_NAMED = {"num_local_experts": "num_experts", "mamba_d_ssm": "mamba_d_head"}
families = pytest.mark.parametrize("row", unless_quick(list(STEPS.values()), 4), ids=lambda row: row["name"])


@families
def test_the_configuration_states_what_a_step_computes(row: dict[str, Any]) -> None:
    model = read_model(row["filled"])
    assert parameters(model).total == row["parameters"]
    assert adapters(model, Lora(RANK, tuple(row["target_modules"]))) == row["trainable"]
    named = digest_of(paths_of_model(model))
    assert named == row.get("modules", named), "adapters are named by the names that PyTorch has"
    for case, counted in row["flop"].items():
        method, recomputation = case.split()
        facts: dict[str, Any] = {"method": method, "recomputation": recomputation, "attention": "eager"}
        if method == "lora":
            facts["lora"] = {"r": RANK, "target_modules": row["target_modules"]}
        executed = flop(model, row["work"], training_from(facts_from(facts))).executed
        assert executed.computed == counted
        assert executed.low <= counted <= executed.high


@families
def test_an_adapter_on_any_matrix_makes_the_layers_above_compute_gradients(row: dict[str, Any]) -> None:
    model = read_model(row["filled"])
    for path, counted in row.get("alone", {}).items():
        lora = {"r": RANK, "target_modules": [path]}
        facts = {"method": "lora", "recomputation": "none", "attention": "eager", "lora": lora}
        executed = flop(model, row["work"], training_from(facts)).executed
        assert executed.low <= counted <= executed.high
        # The text that deepstack adds after the first layers is counted as if present before them.
        assert executed.computed == counted or ("deepstack" in path and executed.computed > counted), path


def test_training_all_parameters_but_constant_positions_is_full_training() -> None:
    """The positions of Whisper's encoder: a process sees that some parameters have no gradient."""
    row = STEPS["whisper"]
    model, facts = read_model(row["filled"]), {"recomputation": "none", "attention": "eager"}
    full = flop(model, row["work"], training_from({**facts, "method": "full"})).required
    for trainable, is_full in ((row["parameters"] - model.constants, True), (row["parameters"] // 2, False)):
        partial = training_from({**facts, "method": "partial", "parameters_trainable": trainable})
        assert (flop(model, row["work"], partial).required == full) is is_full
    everything = training_from({**facts, "method": "full", "parameters_trainable": row["parameters"] - model.constants})
    assert flop(model, row["work"], everything) == flop(model, row["work"], training_from({**facts, "method": "full"}))


def test_a_head_in_modules_to_save_is_trained_with_its_biases() -> None:
    model = read_model(STEPS["bert, BertForSequenceClassification"]["filled"])
    alone, beside = (adapters(model, Lora(RANK, ("query",), saved)) for saved in ((), ("classifier",)))
    (head,) = (one for one in model.heads if one.path == "classifier")
    assert beside - alone == head.inputs * head.outputs + head.outputs


@families
def test_an_absent_field_has_the_default_of_transformers(row: dict[str, Any]) -> None:
    assert as_filled(row["given"], row["filled"])
    for field, otherwise in row["left_out"].items():
        given, filled = json.loads(json.dumps([row["given"], row["filled"]]))
        *outer, name = field.split(".")
        del (given[outer[0]] if outer else given)[name]
        for inner in otherwise.keys() & {*WITHIN}:
            otherwise[inner] = {**filled[inner], **otherwise[inner]}
        assert as_filled(given, {**filled, **otherwise}), field


@families
def test_an_unknown_field_is_refused_at_any_nesting(row: dict[str, Any]) -> None:
    for inner in row["filled"].keys() & {*WITHIN}:
        with refused(match="a_new_field"):
            read_model({**row["filled"], inner: {**row["filled"][inner], "a_new_field": 7}})
    with refused(match="a_new_field"):
        read_model({**row["filled"], "a_new_field": 7})


ALL = ("",)
# Fields that may be 0, meaning none, by the prefix of the family's name.
MAY_BE_NONE: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("attention_chunk_size", "first_k_dense_replace", "moe_latent_size", "n_shared_experts", "num_dense_layers",
         "num_kv_shared_layers", "num_nextn_predict_layers", "q_lora_rank"), ALL,
    ),
    "num_key_value_heads": ("bamba", "falcon_h1", "gemma3n", "gemma4", "granitemoehybrid", "lfm2", "nemotron_h",
                            "qwen3_5", "qwen3_next"),
    "num_experts": ("qwen3_next",),
    "sliding_window": ("cohere2", "gemma2", "gemma3_", "gpt_oss", "ministral", "mistral", "olmo3", "smollm3"),
    "num_local_experts": ("granitemoehybrid",),
    "hidden_size_per_layer_input": ("gemma4",),
}  # fmt: skip
ALSO_TAKEN = {("intermediate_size", "5"), ("vision_feature_layer", "0"), ("vision_feature_layer", "-1")}
ODD: Mapping[type, tuple[Any, ...]] = {
    int: (0, -1, True, 1.5, 10**9 + 1, "4"),
    bool: (1, 0, "yes", []),
    list: (5, "list", {}),
}


@families
def test_a_value_of_the_wrong_type_or_size_is_refused_by_name(row: dict[str, Any]) -> None:
    filled, plain = row["filled"], read_model(row["filled"])
    for inner, part in (("", filled), *((name, filled[name]) for name in WITHIN if name in filled)):
        for field, value in ((name, odd) for name, old in part.items() for odd in ODD.get(type(old), ())):
            if (field, value) == ("max_position_embeddings", 0):
                continue  # only a table of positions needs them
            changed = {**part, field: value}
            none = value == 0 and str(part.get("model_type")).startswith(MAY_BE_NONE.get(field, ()))
            try:
                found = read_model({**filled, inner: changed} if inner else changed)
            except ArchitectureError as fault:
                assert dict(fault.parameters).get("name") in (field, ALSO_NAMED.get(field)), (field, value)
                assert not none, (field, value)
            else:
                assert none or (field, str(value)) in ALSO_TAKEN or found == plain, (field, value)


HEADS = re.compile("(?!mamba|linear).*heads?")
# The width of a head is a field of its own, for queries, keys and values alike.
OWN_WIDTH = ("t5", "FLUX", "deepseek", "glm4_moe_lite")


@families
def test_a_head_count_that_does_not_divide_the_width_is_refused(row: dict[str, Any]) -> None:
    """Seven heads, with widths that seven does not divide."""
    filled = row["filled"]
    for inner, part in (("", filled), *((name, filled[name]) for name in WITHIN if name in filled)):
        for field in (name for name, value in part.items() if type(value) is int and HEADS.fullmatch(name)):
            changed = {**part, field: 7}
            try:
                read_model({**filled, inner: changed} if inner else changed)
            except ArchitectureError as fault:
                named = (field, "head_dim", "num_key_value_heads", "caption_projection_dim")
                assert dict(fault.parameters).get("name") in named
            else:
                assert row["name"].startswith(OWN_WIDTH), field


def as_filled(config: Mapping[str, Any], filled: Mapping[str, Any]) -> bool:
    """Whether both describe the same model. A model without positions need not bound a sequence here, since rotary
    positions do not end one."""
    ours, theirs = read_model(config), read_model(filled)
    return ours in (theirs, replace(theirs, max_positions=None))
