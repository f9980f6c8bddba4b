"""Parameter counts against real models: from the configuration, and of live, adapted, packed and sharded ones."""

from dataclasses import replace
from typing import Any

import pytest

from flopsd.core.architecture import Lora, Model, adapters, parameters, read_model
from flopsd.core.architecture.decoder_families import STYLES as DECODERS
from flopsd.core.architecture.delta_decoders import _STYLES as DELTA
from flopsd.core.architecture.families import READERS as ARCHITECTURES
from flopsd.core.architecture.qwen_vl import _TEXTS as QWEN_VL
from flopsd.core.declared_facts import facts_from
from flopsd.errors import ArchitectureError
from flopsd.integrations.describe_model import count_parameters, size_of
from tests.train.decoder_families import NEEDED, WITHOUT_CLASS
from tests.train.families import FAMILIES, RANK, adapt, build, config_of
from tests.train.hybrid_families import HYBRIDS_NEED, HYBRIDS_NEED_WHOLE
from tests.train.pytorch import torch
from tests.train.vision_families import VISION_DEFAULTS, VISION_FAMILIES

_CLASSES = [family for family in ARCHITECTURES if family not in WITHOUT_CLASS]
FEW_LAYERS = {**NEEDED, **HYBRIDS_NEED}  # what a configuration of two layers needs in addition
WITHIN = ("text_config", "vision_config")
pytestmark = [pytest.mark.training("transformers", "peft"), pytest.mark.filterwarnings("ignore")]
# One family for each reader; the others, two seconds each, are for `make test-all`.
_SAMPLE = ("llama", "gpt2", "bert", "t5", "gemma3_text", "deepseek_v3", "mamba2", "qwen3_next", "whisper", "clip")


def _param(name: str) -> Any:
    return name if name in _SAMPLE else pytest.param(name, marks=pytest.mark.exhaustive)


SAMPLED_CLASSES = [_param(family) for family in _CLASSES]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_configuration_states_every_parameter(name: str) -> None:
    model = build(name)
    assert parameters(read_model(config_of(model))).total == sum(p.numel() for p in model.parameters())


def test_an_alias_of_the_number_of_experts_is_accepted_by_the_class() -> None:
    from transformers import CONFIG_MAPPING

    other = {
        family: (style.experts.held, style.experts.alias)
        for family, style in {**DECODERS, **DELTA, **QWEN_VL}.items()
        if style.experts is not None and style.experts.alias is not None
    }
    assert set(other) == {"mixtral", "qwen3_moe", "gpt_oss", "olmoe", "qwen3_vl_moe_text"}
    for family, (held, alias) in other.items():
        assert getattr(CONFIG_MAPPING[family](**{alias: 7}), held) == 7, family


@pytest.mark.parametrize("family", SAMPLED_CLASSES)
def test_an_absent_field_has_the_default_of_the_class(family: str) -> None:
    """Every field of every family, one at a time, compared with the configuration that transformers fills from the
    rest."""
    import transformers

    small = next(config for name, (_, config, _) in FAMILIES.items() if name.split(",")[0] == family)
    windowed = {"use_sliding_window": True, "num_hidden_layers": 30} if family in ("qwen2", "qwen3") else {}
    headless = (
        {"vision_config": {"vision_use_head": False}} if family == "gemma3" else HYBRIDS_NEED_WHOLE.get(family, {})
    )
    compared = 0
    # Only the small configuration for families with images: their default sizes have hundreds of layers.
    for sizes in (small,) if family in VISION_FAMILIES else (headless, small, windowed):
        whole = transformers.AutoConfig.for_model(family, **sizes).to_dict()
        bare = {name: value for name, value in whole.items() if name != "layer_types"}
        for left in [without(config, path) for config in (whole, bare) for path in paths_of(config)]:
            both = read_both(left)
            if both is None:
                continue
            ours, theirs = both
            assert ours == theirs, left
            assert parameters(ours).total == parameters(theirs).total, left
            compared += 1
    assert compared > (20 if family in VISION_FAMILIES else 60)


@pytest.mark.parametrize("family", SAMPLED_CLASSES)
def test_the_classs_own_configuration_states_every_parameter(family: str) -> None:
    import transformers

    kind = next(kind for name, (kind, _, _) in FAMILIES.items() if name.split(",")[0] == family)
    layers = {"num_layers": 2} if family == "t5" else {"n_layer": 2} if family == "gpt2" else {"num_hidden_layers": 2}
    vision = {"num_hidden_layers": 2, "vision_use_head": False}
    text = (
        {"text_config": layers, "vision_config": vision} if family == "gemma3" else {} if family == "bart" else layers
    )
    config = transformers.AutoConfig.for_model(
        family, **VISION_DEFAULTS.get(family, text), **FEW_LAYERS.get(family, {})
    )
    with torch.device("meta"):
        model = getattr(transformers, kind).from_config(config)
    model.tie_weights()
    assert parameters(read_model(config_of(model))).total == sum(p.numel() for p in model.parameters())


def paths_of(config: dict[str, Any]) -> list[tuple[str, ...]]:
    """Every field except the model's type, including those of nested configurations."""
    inner = [(name, *path) for name in WITHIN if name in config for path in paths_of(config[name])]
    return [(name,) for name in config if name not in ("model_type", *WITHIN)] + inner


def without(config: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    first, *rest = path
    if rest:
        return {**config, first: without(config[first], tuple(rest))}
    return {name: value for name, value in config.items() if name != first}


def read_both(left: dict[str, Any]) -> tuple[Model, Model] | None:
    """Read the rest and transformers' completion of it; None where either refuses it. Positions are left out:
    without their field nothing bounds a sequence here, since rotary ones do not end one."""
    import transformers

    try:
        filled = transformers.AutoConfig.for_model(**left).to_dict()
    except Exception:  # noqa: BLE001 (each version refuses with its own error)
        return None
    try:
        ours, theirs = (replace(read_model(config), max_positions=None) for config in (left, filled))
    except ArchitectureError as fault:
        assert fault.code in ("field_missing", "field_invalid") or ("name", "vision_use_head") in fault.parameters, (
            fault
        )
        return None
    return ours, theirs


@pytest.mark.parametrize("name", ["llama", "mistral", "bert", "roberta", "gpt2"])
def test_a_classifier_is_counted_by_its_own_class_not_by_its_configurations(name: str) -> None:
    import transformers

    from flopsd.integrations.describe_model import describe

    config = transformers.AutoConfig.for_model(name, **FAMILIES[name][1])
    config.architectures, config.num_labels = ["SomethingForCausalLM"], 5
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    facts = facts_from({key: value for key, value in describe(model, None).items() if value is not None})
    assert parameters(read_model(facts["model_config"])).total == facts["parameters_total"]


@pytest.mark.parametrize("name", [_param(name) for name in FAMILIES])
def test_adapters_are_counted_as_by_peft(name: str) -> None:
    model, targets = build(name), FAMILIES[name][2]
    config, adapted = config_of(model), adapt(model, targets)
    trainable, total = adapted.get_nb_trainable_parameters()
    assert adapters(read_model(config), Lora(RANK, tuple(targets))) == trainable
    assert count_parameters(adapted) == (total, trainable)


def test_modules_to_save_are_counted_as_copies() -> None:
    model = build("llama")
    config = config_of(model)
    adapted = adapt(model, ["q_proj"], modules_to_save=["lm_head", "embed_tokens"])
    trainable, total = adapted.get_nb_trainable_parameters()
    assert adapters(read_model(config), Lora(RANK, ("q_proj",), ("lm_head", "embed_tokens"))) == trainable
    assert count_parameters(adapted) == (total, trainable)


def test_tied_weights_count_once() -> None:
    model = build("qwen2")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert count_parameters(model) == (parameters(read_model(config_of(model))).total,) * 2


@pytest.mark.parametrize("storage", ["uint8", "bfloat16", "float32"])
@pytest.mark.training("bitsandbytes")
def test_four_bit_weights_count_by_their_original_size(storage: str) -> None:
    import bitsandbytes

    layer = bitsandbytes.nn.Linear4bit(64, 48, bias=False, quant_storage=getattr(torch, storage))
    assert size_of(layer.weight) == 64 * 48  # not packed yet
    layer = layer.to("cpu")
    assert layer.weight.numel() < 64 * 48
    assert size_of(layer.weight) == 64 * 48
    layer.weight.quant_state = None  # as if another process had packed it
    assert size_of(layer.weight) == 64 * 48


@pytest.mark.training("bitsandbytes")
def test_a_quantized_model_has_the_original_number_of_parameters() -> None:
    import bitsandbytes

    model = build("llama")
    before = count_parameters(model)
    assert before is not None
    for block in model.model.layers:
        old = block.mlp.down_proj
        block.mlp.down_proj = bitsandbytes.nn.Linear4bit(
            old.in_features, old.out_features, quant_storage=torch.bfloat16
        ).to("cpu")
    found = count_parameters(model)
    assert found is not None
    assert sum(p.numel() for p in model.parameters()) < before[0]
    assert found[0] == before[0]


def test_sharded_weights_count_in_full() -> None:
    """As left by DeepSpeed ZeRO-3 on each rank: empty tensors with their true size as attributes."""
    model = build("llama")
    before = count_parameters(model)
    for parameter in model.parameters():
        parameter.ds_numel, parameter.ds_shape = parameter.numel(), parameter.shape
        parameter.data = torch.empty(0, dtype=parameter.dtype)
    assert count_parameters(model) == before


def test_an_empty_parameter_of_unknown_size_makes_the_count_unknown() -> None:
    model = build("llama")
    model.lm_head.weight.data = torch.empty(0)
    assert count_parameters(model) is None


def test_a_quantization_that_keeps_weights_in_buffers_is_not_counted() -> None:
    model = build("llama")
    model.config.quantization_config = {"quant_method": "gptq", "bits": 4}
    assert count_parameters(model) is None
