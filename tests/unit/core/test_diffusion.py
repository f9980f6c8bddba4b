"""Diffusion transformers by the fields of their published config.json, and the work that they declare."""

from typing import Any

import pytest

from flopsd.core.architecture import flop, forward_flop, parameters, read_model, training_from
from tests.support.architectures import refused

FLUX_DEV: dict[str, Any] = {
    "_class_name": "FluxTransformer2DModel", "_diffusers_version": "0.30.0.dev0",
    "_name_or_path": "../checkpoints/flux-dev/transformer", "attention_head_dim": 128, "guidance_embeds": True,
    "in_channels": 64, "joint_attention_dim": 4096, "num_attention_heads": 24, "num_layers": 19,
    "num_single_layers": 38, "patch_size": 1, "pooled_projection_dim": 768,
}  # fmt: skip
SD3: dict[str, Any] = {
    "_class_name": "SD3Transformer2DModel", "_diffusers_version": "0.29.0.dev0", "attention_head_dim": 64,
    "caption_projection_dim": 1536, "in_channels": 16, "joint_attention_dim": 4096, "num_attention_heads": 24,
    "num_layers": 24, "out_channels": 16, "patch_size": 2, "pooled_projection_dim": 2048, "pos_embed_max_size": 192,
    "sample_size": 128,
}  # fmt: skip
# The sizes are those of diffusers' classes with these fields; the model cards round them: 12 B, 2 B, 2.5 B, 8.1 B.
FILES: dict[str, tuple[dict[str, Any], int]] = {
    "FLUX.1-dev": (FLUX_DEV, 11_901_408_320),
    "FLUX.1-schnell": ({**FLUX_DEV, "guidance_embeds": False}, 11_891_178_560),
    "stable-diffusion-3-medium": (SD3, 2_028_328_000),
    "stable-diffusion-3.5-medium": (
        {**SD3, "dual_attention_layers": list(range(13)), "qk_norm": "rms_norm", "pos_embed_max_size": 384},
        2_243_171_520,
    ),
    "stable-diffusion-3.5-large": (
        {**SD3, "caption_projection_dim": 2432, "num_attention_heads": 38, "num_layers": 38, "qk_norm": "rms_norm",
         "dual_attention_layers": []},
        8_056_627_520,
    ),
}  # fmt: skip
WORK = {"sequences": 1, "tokens": 4096 + 512, "square_pairs": 4608**2, "patches": 4096, "patch_square_pairs": 4096**2}
FULL = training_from({"method": "full", "recomputation": "none"})


@pytest.mark.parametrize("name", FILES)
def test_published_files_are_read(name: str) -> None:
    config, total = FILES[name]
    assert parameters(read_model(config)).total == total


def test_an_absent_field_has_the_default_of_the_diffusers_class() -> None:
    flux, sd3 = ({"_class_name": one["_class_name"]} for one in (FLUX_DEV, SD3))
    assert read_model(flux) == read_model({**FLUX_DEV, "guidance_embeds": False})
    sizes = {"num_layers": 18, "num_attention_heads": 18, "caption_projection_dim": 18 * 64}
    assert read_model(sd3) == read_model({**SD3, **sizes})
    assert read_model({**FLUX_DEV, "patch_size": 2}).heads[0].outputs == 2 * 2 * 64
    for one in (FLUX_DEV, SD3):  # null or 0 output channels mean as many as input channels
        assert read_model({**one, "out_channels": 0}) == read_model({**one, "out_channels": one["in_channels"]})


def test_a_megapixel_image_through_flux_matches_a_count_by_hand() -> None:
    """By hand: 4096 image rows and 512 text rows, each through half of a double layer and all of a single layer, one
    vector through the modulation, and 4608 x 4608 pairs in 57 layers of width 3072."""
    width = 3072
    double, single = 12 * width**2 * 4608 * 19, (3 + 4 + 5) * width**2 * 4608 * 38
    modulation = (2 * 6 * 19 + 3 * 38 + 2) * width**2
    condition = (256 + 256 + 768 + 3 * width) * width
    ends = 4096 * 64 * width * 2 + 512 * 4096 * width
    attention = 2 * 4608**2 * width * 57
    by_hand = 2 * (double + single + modulation + condition + ends + attention)
    assert forward_flop(read_model(FLUX_DEV), WORK, FULL).computed == by_hand


@pytest.mark.parametrize(
    ("config", "work", "names"),
    [
        (FLUX_DEV, {"patches": None}, "no patches or no sequences"),
        (FLUX_DEV, {"sequences": None}, "no patches or no sequences"),
        (FLUX_DEV, {"patches": 5000, "patch_square_pairs": 5000**2}, "5000 patches of 4608 tokens"),
        (FLUX_DEV, {"patch_square_pairs": 5}, "5 square_pairs of 4096 tokens"),
        (FLUX_DEV, {"tokens": None}, "no tokens"),
        ({**FLUX_DEV, "new": 1}, {}, "does not know new"),
        ({**SD3, "caption_projection_dim": 1152}, {}, "caption_projection_dim is 1152"),
        ({**SD3, "qk_norm": "layer_norm"}, {}, "qk_norm"),
        ({"_class_name": "UNet2DConditionModel"}, {}, "UNet2DConditionModel"),
    ],
)
def test_missing_or_contradictory_work_is_refused_by_name(
    config: dict[str, Any], work: dict[str, int | None], names: str
) -> None:
    declared = {name: value for name, value in {**WORK, **work}.items() if value is not None}
    with refused(match=names) as caught:
        flop(read_model(config), declared, FULL)
    assert caught.value.hint


def test_image_attention_is_an_interval_without_patch_square_pairs() -> None:
    model, work = read_model(FILES["stable-diffusion-3.5-medium"][0]), {**WORK, "sequences": 4}
    less = {name: value for name, value in work.items() if name != "patch_square_pairs"}
    counted, bounded = (flop(model, one, FULL).required for one in (work, less))
    assert counted.low == counted.computed == counted.high
    assert bounded.low < counted.computed <= bounded.high


def test_recomputation_may_end_before_a_stream_without_gradients() -> None:
    """With an adapter on the image's feed-forward, no text behind the first layer's attention has a gradient."""
    width, text = 128, 16
    sizes = {"num_attention_heads": 2, "num_layers": 2, "caption_projection_dim": width}
    model = read_model({**SD3, **sizes})
    work = {"sequences": 1, "tokens": 64 + text, "square_pairs": 80**2, "patches": 64, "patch_square_pairs": 64**2}
    adapter = {"method": "lora", "lora": {"r": 4, "target_modules": ["ff.net.2"]}}
    training = training_from({**adapter, "recomputation": "full", "attention": "eager"})
    executed = flop(model, work, training).executed
    attention_output_and_feed_forward = (1 + 2 * 4) * width**2
    assert executed.computed is not None
    assert executed.computed - executed.low == 2 * text * attention_output_and_feed_forward
