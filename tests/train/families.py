"""Small real models of every family, trained for one step on the CPU under PyTorch's own FLOP counter."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flopsd.core.architecture import ArchitectureFlop, flop, read_model, training_from
from flopsd.core.declared_facts import facts_from
from tests.train.decoder_families import DECODERS
from tests.train.hybrid_families import HYBRIDS
from tests.train.other_families import OTHERS
from tests.train.pytorch import torch
from tests.train.vision_families import BATCHES, VISION_FAMILIES, loss_of

BATCH, LENGTH, TARGET, RANK = 2, 24, 16, 4

_LLAMA = {
    "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 64,
}  # fmt: skip
_HEAD = {"head_dim": 24}
_MOE = {"num_experts_per_tok": 2}
_SIGLIP = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16,
    "patch_size": 4, "vision_use_head": False, "model_type": "siglip_vision_model",
}  # fmt: skip
_GEMMA3 = {**_LLAMA, **_HEAD, "sliding_window": 8}
# Each: the class of transformers, its configuration, the LoRA targets.
FAMILIES: Mapping[str, tuple[str, dict[str, Any], list[str]]] = {
    "llama": ("AutoModelForCausalLM", {**_LLAMA, "attention_bias": True, "mlp_bias": True}, ["q_proj", "v_proj"]),
    "llama, all-linear": ("AutoModelForCausalLM", {**_LLAMA, **_HEAD}, ["all-linear"]),
    "mistral": ("AutoModelForCausalLM", {**_LLAMA, "sliding_window": 8}, ["q_proj", "o_proj", "down_proj"]),
    "mixtral": ("AutoModelForCausalLM", {**_LLAMA, **_MOE, "num_local_experts": 4}, ["q_proj", "v_proj"]),
    "qwen2": ("AutoModelForCausalLM", {**_LLAMA, "tie_word_embeddings": True}, ["k_proj", "gate_proj"]),
    "qwen3": ("AutoModelForCausalLM", {**_LLAMA, **_HEAD}, ["q_proj", "v_proj"]),
    "qwen2_moe": (
        "AutoModelForCausalLM",
        {**_LLAMA, **_MOE, "num_experts": 6, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48,
         "decoder_sparse_step": 2},
        ["q_proj", "v_proj"],
    ),
    "qwen3_moe": (
        "AutoModelForCausalLM",
        {**_LLAMA, **_HEAD, **_MOE, "num_experts": 6, "moe_intermediate_size": 32, "mlp_only_layers": [1]},
        ["q_proj", "v_proj"],
    ),
    "gemma": ("AutoModelForCausalLM", {**_LLAMA, **_HEAD}, ["q_proj", "v_proj"]),
    "gemma2": ("AutoModelForCausalLM", {**_LLAMA, **_HEAD, "sliding_window": 8}, ["q_proj", "v_proj"]),
    "gemma3_text": ("AutoModelForCausalLM", _GEMMA3, ["q_proj", "v_proj"]),
    "gpt_oss": (
        "AutoModelForCausalLM",
        {**_LLAMA, **_HEAD, **_MOE, "num_local_experts": 4, "sliding_window": 8},
        ["q_proj", "v_proj"],
    ),
    "gpt2": (
        "AutoModelForCausalLM",
        {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 128, "n_positions": 64},
        ["c_attn"],
    ),
    "gpt_neox": (
        "AutoModelForCausalLM",
        {key: value for key, value in _LLAMA.items() if key != "num_key_value_heads"},
        ["query_key_value"],
    ),
    "phi3": ("AutoModelForCausalLM", {**_LLAMA, "pad_token_id": 0}, ["qkv_proj"]),
    **OTHERS,
    "t5": (
        "AutoModelForSeq2SeqLM",
        {"d_model": 64, "d_kv": 24, "d_ff": 160, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4,
         "vocab_size": 128, "feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0},
        ["q", "v"],
    ),
    "bart": (
        "AutoModelForSeq2SeqLM",
        {"d_model": 64, "encoder_layers": 3, "decoder_layers": 2, "encoder_ffn_dim": 160, "decoder_ffn_dim": 144,
         "encoder_attention_heads": 4, "decoder_attention_heads": 2, "vocab_size": 128, "dropout": 0.0,
         "max_position_embeddings": 64},
        ["q_proj", "v_proj"],
    ),
    "gemma3": (
        "AutoModelForImageTextToText",
        {"text_config": _GEMMA3, "vision_config": _SIGLIP, "mm_tokens_per_image": 4, "image_token_index": 3},
        ["q_proj", "v_proj"],
    ),
    **DECODERS,
    **VISION_FAMILIES,
    **HYBRIDS,
}  # fmt: skip


def build(name: str) -> Any:
    """A model of the family with random weights; attention and experts as plain products, so that they are counted."""
    import transformers

    kind, config, _ = FAMILIES[name]
    made = transformers.AutoConfig.for_model(name.split(",")[0], **config)
    auto = getattr(transformers, kind)
    return auto.from_config(made, attn_implementation="eager", experts_implementation="eager").train()


def inputs_of(model: Any, ids: Any) -> dict[str, Any]:
    """The model's inputs, as long as `ids`."""
    if model.config.model_type == "whisper":
        return {"input_features": torch.randn(len(ids), model.config.num_mel_bins, 2 * ids.shape[1])}
    return {"input_ids": ids}


def adapt(model: Any, targets: list[str], **more: Any) -> Any:
    """The model with LoRA, as added by PEFT."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        named = "all-linear" if targets == ["all-linear"] else targets
        return peft.get_peft_model(model, peft.LoraConfig(r=RANK, target_modules=named, **more)).train()


def config_of(model: Any) -> dict[str, Any]:
    """The configuration as a training process declares it."""
    declared = {**model.config.to_dict(), "architectures": [type(model).__name__]}
    found: dict[str, Any] = facts_from({"model_config": declared})["model_config"]
    return found


def flop_counter() -> Any:
    """PyTorch's FlopCounterMode, with a correct gradient of a grouped convolution's weights. PyTorch 2.13 ignores
    the groups: its count for a depthwise convolution is too large by the number of channels."""
    from torch.utils.flop_counter import FlopCounterMode, conv_backward_flop

    def backward(*shapes: Any, out_shape: Any = None, **_: Any) -> int:
        *most, groups, mask = shapes
        of_input, of_weight = (
            int(conv_backward_flop(*most, groups, sides, out_val=out_shape))
            for sides in ([mask[0], False, False], [False, mask[1], False])
        )
        return int(of_input + of_weight // groups)

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: backward})


@dataclass(frozen=True)
class Step:
    """One training step: PyTorch's count and flopsd's figures."""

    name: str
    method: str
    recomputation: str
    work: dict[str, int]
    counted: int
    ours: ArchitectureFlop

    @property
    def ratio(self) -> float:
        return self.ours.executed.computed / self.counted


def step(name: str, method: str, recomputation: str, *, reentrant: bool = False, length: int = LENGTH) -> Step:
    """Forward and backward pass of one batch under torch's FlopCounterMode."""
    torch.manual_seed(1)
    model = build(name)
    config = config_of(model)
    facts: dict[str, Any] = {"method": method, "recomputation": recomputation, "attention": "eager"}
    if method == "lora":
        targets = FAMILIES[name][2]
        model = adapt(model, targets)
        facts["lora"] = {"r": RANK, "target_modules": targets}
    if recomputation == "full":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    inputs, work = BATCHES[name]() if name in BATCHES else text_batch(model, length)
    with flop_counter() as counter:
        loss_of(model(**inputs)).backward()
    ours = flop(read_model(config), work, training_from(facts_from(facts)))
    return Step(name, method, recomputation, work, counter.get_total_flops(), ours)


def alone(name: str) -> dict[str, int]:
    """PyTorch's counts of a step with an adapter on only one matrix, by path: the first of each name that PEFT can
    adapt. They show that gradients are computed for everything above the matrix, and nowhere else."""

    model = build(name)
    inputs, _ = BATCHES[name]() if name in BATCHES else text_batch(model, LENGTH)
    paths = [linear.path for linear in read_model(config_of(model)).linears() if linear.adaptable]
    first = {re.sub(r"\.\d+\.", ".", path): path for path in reversed(paths)}
    found = {}
    for path in reversed(first.values()):
        try:
            adapted = adapt(build(name), [path])
            on = [of.partition(".lora_A")[0] for of, _ in adapted.named_modules() if of.endswith(".lora_A.default")]
            if len(on) != 1 or not on[0].endswith(path):
                continue  # PEFT takes the name for that of experts
            with flop_counter() as counter:
                loss = loss_of(adapted(**inputs))
                if loss.requires_grad:
                    loss.backward()
                    found[path] = counter.get_total_flops()
        except (AttributeError, TypeError, ValueError):
            continue  # PEFT refuses it in this family, or alone; or the family's code does
    return found


def text_batch(model: Any, length: int) -> tuple[dict[str, Any], dict[str, int]]:
    """Tensors, and the counters of their work."""
    two_sided = model.config.is_encoder_decoder
    ids = torch.randint(4, 128, (BATCH, length))
    labels = torch.randint(4, 128, (BATCH, TARGET if two_sided else length))
    work = {"tokens": BATCH * length, "sequences": BATCH, "square_pairs": BATCH * length**2, "padding_tokens": 0}
    if two_sided:
        work |= {
            "target_tokens": BATCH * TARGET,
            "target_square_pairs": BATCH * TARGET**2,
            "cross_pairs": BATCH * length * TARGET,
        }
    return {**inputs_of(model, ids), "labels": labels}, work
