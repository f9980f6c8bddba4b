"""Diffusion transformers of diffusers, trained for one step on the CPU under PyTorch's own FLOP counter, counted by
hooks."""

from pathlib import Path
from typing import Any

import pytest

from flopsd.core.architecture import adapters, flop, parameters, read_model, training_from
from flopsd.core.declared_facts import facts_from
from flopsd.integrations.describe_model import describe
from tests.support.architectures import assumed
from tests.train.families import flop_counter
from tests.train.pytorch import torch
from tests.train.trainers import counted

pytestmark = [pytest.mark.training("diffusers", "peft"), pytest.mark.filterwarnings("ignore")]

ROWS, PATCHES, TEXT = 2, 16, 6
_ATTENTION = {
    "attention_head_dim": 16,
    "num_attention_heads": 4,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 24,
}
_FLUX = {**_ATTENTION, "in_channels": 16, "num_layers": 2, "num_single_layers": 2, "axes_dims_rope": (4, 6, 6)}
_SD3 = {
    **_ATTENTION, "sample_size": 8, "patch_size": 2, "in_channels": 4, "num_layers": 3, "caption_projection_dim": 64,
    "out_channels": 4, "pos_embed_max_size": 8,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "FLUX": ("FluxTransformer2DModel", _FLUX),
    "FLUX, guided": ("FluxTransformer2DModel", {**_FLUX, "guidance_embeds": True}),
    "SD 3": ("SD3Transformer2DModel", _SD3),
    "SD 3.5": ("SD3Transformer2DModel", {**_SD3, "dual_attention_layers": (0, 1), "qk_norm": "rms_norm"}),
}
# As the training scripts of diffusers name them.
ADAPTED = {
    "FLUX": ["to_q", "to_k", "to_v"],
    "FLUX, guided": ["attn.to_q", "attn.add_k_proj", "attn.to_out.0", "ff.net.0.proj", "ff_context.net.2"],
    "SD 3": ["attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0"],
    "SD 3.5": ["attn.to_k", "attn.to_q", "attn.to_v", "attn.add_k_proj", "ff.net.2"],
}


def build(name: str) -> Any:
    import diffusers

    kind, config = MODELS[name]
    return getattr(diffusers, kind)(**config).train()


def inputs(name: str) -> dict[str, Any]:
    found = {
        "hidden_states": torch.randn(ROWS, 4, 8, 8), "encoder_hidden_states": torch.randn(ROWS, TEXT, 32),
        "pooled_projections": torch.randn(ROWS, 24), "timestep": torch.rand(ROWS),
    }  # fmt: skip
    if not name.startswith("FLUX"):
        return found
    ids = {"img_ids": torch.zeros(PATCHES, 3), "txt_ids": torch.zeros(TEXT, 3)}
    guidance = torch.rand(ROWS) if "guided" in name else None
    return {**found, **ids, "hidden_states": torch.randn(ROWS, PATCHES, 16), "guidance": guidance}


@pytest.mark.parametrize(
    ("method", "checkpointing"), [("full", False), ("full", True), ("lora", False), ("lora", True)]
)
@pytest.mark.parametrize("name", MODELS)
def test_a_step_counts_what_pytorch_counts(tmp_path: Path, name: str, method: str, checkpointing: bool) -> None:
    import peft
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model = build(name)
    total = sum(parameter.numel() for parameter in model.parameters())
    if method == "lora":
        model.requires_grad_(False)
        model.add_adapter(peft.LoraConfig(r=4, target_modules=ADAPTED[name]))
    if checkpointing:
        model.enable_gradient_checkpointing()
    given, socket = inputs(name), tmp_path / "client.sock"
    # PyTorch's counter counts the work of the flash kernel as zero.
    with counted(socket, model) as (_, declared), flop_counter() as seen, sdpa_kernel(SDPBackend.MATH):
        model(given.pop("hidden_states"), **given).sample.sum().backward()
    work = declared["train"]
    length = PATCHES + TEXT
    assert work == {
        "forward_passes": 1, "sequences": ROWS, "tokens": ROWS * length, "square_pairs": ROWS * length**2,
        "patches": ROWS * PATCHES, "patch_square_pairs": ROWS * PATCHES**2,
    }  # fmt: skip
    stated = {key: value for key, value in describe(model, None).items() if value is not None}
    facts = facts_from({"method": "full", **stated, "attention": "eager"})
    assert (facts["method"], facts["recomputation"]) == (method, "full" if checkpointing else "none")
    read, training = read_model(facts["model_config"]), training_from(facts)
    assert parameters(read).total == total
    ours = flop(read, work, training)
    assert ours.executed.computed == seen.get_total_flops()
    assert ours.executed.low <= seen.get_total_flops() <= ours.executed.high
    assert "the process" not in assumed(ours)
    if training.lora is not None:
        assert adapters(read, training.lora) == facts["parameters_trainable"]


def test_no_tokens_are_counted_for_other_models_of_diffusers(tmp_path: Path) -> None:
    """The first input of a U-Net is latents, whose channels are not tokens."""
    import diffusers

    model = diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(32, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    with counted(tmp_path / "client.sock", model) as (_, declared):
        model(torch.randn(2, 3, 8, 8), 1)
    (work,) = declared.values()
    assert not {"tokens", "square_pairs", "patches"} & set(work)
    assert work["weight_products"] > 0, "its weights are counted instead"


@pytest.mark.parametrize(("name", "target"), [("FLUX", "1.attn.to_out.0"), ("SD 3.5", "1.ff.net.2")])
def test_recomputation_may_end_before_a_stream_without_gradients(name: str, target: str) -> None:
    import peft
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from tests.train.intervals import Loop

    model = build(name)
    model.requires_grad_(False)
    model.add_adapter(peft.LoraConfig(r=4, target_modules=[target]))
    model.enable_gradient_checkpointing()
    loop = Loop(model)
    given = inputs(name)
    rows = given.pop("hidden_states")
    with sdpa_kernel(SDPBackend.MATH):
        loop.counts(lambda: model(rows, **given).sample.sum().backward())
    executed = loop.basis().counted.executed
    assert executed.high is not None
    assert executed.low <= loop.flop <= executed.high
