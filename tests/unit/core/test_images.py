"""Models that read images: published sizes, and bounds where counters of images are missing."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flopsd.core.architecture import ArchitectureFlop, flop, parameters, read_model, training_from
from tests.support.architectures import assumed, refused
from tests.support.published_images import PUBLISHED_IMAGES

_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
          "image_size": 16, "patch_size": 4}  # fmt: skip
_VIT = {"model_type": "vit", **_TOWER}
_CLIP = {"model_type": "clip", "vision_config": _TOWER, "text_config": {"num_hidden_layers": 1}}
_GEMMA3 = {
    "model_type": "gemma3", "mm_tokens_per_image": 4, "vision_config": {**_TOWER, "vision_use_head": False},
    "text_config": {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
                    "num_hidden_layers": 2, "intermediate_size": 32, "vocab_size": 64},
}  # fmt: skip
_TEXT = {"tokens": 48, "sequences": 2, "square_pairs": 2 * 24**2}


def _changed(name: str, **fields: Any) -> dict[str, Any]:
    """A published configuration with other fields; a dict value updates the nested configuration of that name."""
    config = PUBLISHED_IMAGES[name][0]
    inner = {key: {**config[key], **value} for key, value in fields.items() if isinstance(value, dict)}
    return {**config, **fields, **inner}


def trained(config: dict[str, object], work: dict[str, int], method: str = "full") -> ArchitectureFlop:
    return flop(read_model(config), work, training_from({"method": method, "attention": "eager"}))


@pytest.mark.parametrize("name", PUBLISHED_IMAGES)
def test_published_models_have_their_published_parameters(name: str) -> None:
    config, total = PUBLISHED_IMAGES[name]
    assert parameters(read_model(config)).total == total


def test_fields_that_transformers_4_gives_every_configuration_change_nothing() -> None:
    assert read_model({**_VIT, "is_decoder": False, "tie_word_embeddings": True}) == read_model(_VIT)


def test_a_classifier_of_images_has_neither_the_text_nor_the_projections() -> None:
    classifier = {**_CLIP, "architectures": ["CLIPForImageClassification"], "id2label": {"0": "a", "1": "b", "2": "c"}}
    tower = parameters(read_model({"model_type": "clip_vision_model", **_TOWER})).total
    assert parameters(read_model(classifier)).total == tower + 3 * 32 + 3


@pytest.mark.parametrize(
    ("name", "prefix"), [("CLIPVisionModel", ""), ("CLIPVisionModelWithProjection", "vision_model.")]
)
def test_a_tower_has_the_names_of_its_class(name: str, prefix: str) -> None:
    tower = read_model({"model_type": "clip_vision_model", **_TOWER, "architectures": [name]})
    layers = [block.path for block in tower.blocks if "layers" in block.path]
    assert layers
    assert all(path.startswith(f"{prefix}encoder.layers.") for path in layers)


@pytest.mark.long
@given(st.integers(0, 5), st.sampled_from([_VIT, _CLIP, _GEMMA3]), st.sampled_from(["full", "lora"]))
def test_bounds_without_image_counters_contain_the_counted_work(
    count: int, config: dict[str, object], method: str
) -> None:
    each = 16 if config is _GEMMA3 else 17
    rows = {"images": count, "patches": count * each, "patch_square_pairs": count * each**2}
    text = {} if config is _VIT else dict(_TEXT)
    if config is _CLIP:
        text["cross_pairs"] = 2 * count
    exact = trained(config, {**text, **rows}, method)
    for left in (("images",), ("patch_square_pairs",), ("images", "patch_square_pairs")):
        wide = trained(config, {**text, **{name: n for name, n in rows.items() if name not in left}}, method)
        for ours, theirs in ((exact.required, wide.required), (exact.executed, wide.executed)):
            assert theirs.low <= ours.low <= ours.computed <= ours.high <= theirs.high
            assert theirs.low <= theirs.computed <= theirs.high
            assert theirs.computed == ours.computed  # if all images have the configuration's size


def test_uncounted_images_raise_only_the_upper_bound() -> None:
    """48 tokens can stand for 12 images of 4 tokens each."""
    unknown = trained(_GEMMA3, dict(_TEXT))
    none, most = (
        trained(_GEMMA3, {**_TEXT, "images": n, "patches": 16 * n, "patch_square_pairs": 256 * n}) for n in (0, 12)
    )
    assert unknown.executed.computed == none.executed.computed
    assert unknown.executed.low == none.executed.low
    assert unknown.executed.high == most.executed.high > none.executed.high
    assert "how many images" in assumed(unknown)
    assert "how many images" not in assumed(none)


@pytest.mark.long
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4))
@example([(2, 4, 8), (1, 4, 4)])
def test_uncounted_image_windows_are_bounded_by_full_windows(grids: list[tuple[int, int, int]]) -> None:
    """Qwen2.5-VL: frames of height x width tokens of 2 x 2 patches, in windows of 4 x 4 tokens."""
    config = PUBLISHED_IMAGES["Qwen2.5-VL 7B"][0]
    patches = sum(4 * frames * height * width for frames, height, width in grids)
    square = sum(frames * (4 * height * width) ** 2 for frames, height, width in grids)

    def along(length: int) -> int:
        return length // 4 * 16 + (length % 4) ** 2

    windows = sum(16 * frames * along(height) * along(width) for frames, height, width in grids)
    seen = {"patches": patches, "patch_square_pairs": square}
    exact, wide, unseen = (
        trained(config, {"tokens": patches // 4, "square_pairs": (patches // 4) ** 2, **more})
        for more in ({**seen, "patch_window_pairs": windows}, seen, {})
    )
    assert wide.executed.low <= exact.executed.low <= exact.executed.high <= wide.executed.high <= unseen.executed.high
    assert unseen.executed.low <= wide.executed.low
    if all(height % 4 == width % 4 == 0 for _, height, width in grids):
        assert wide.executed.high == exact.executed.high


@pytest.mark.parametrize(
    ("config", "work", "words"),
    [
        (_VIT, {"tokens": 10}, "vit: the work has no patches"),
        (_VIT, {"patches": 17, "patch_square_pairs": 290}, "290 patch_square_pairs of 17 patches"),
        (_VIT, {"patches": 34, "images": 2, "patch_square_pairs": 577}, "577 patch_square_pairs of 34 patches"),
        (_CLIP, {**_TEXT, "patches": 17}, "clip: the work has no cross_pairs"),
        (_CLIP, {"patches": 17, "cross_pairs": 1}, "the work has no tokens"),
        ({**_VIT, "patch_size": [4, 2]}, {}, "patch_size"),
        ({**_VIT, "architectures": ["ViTForMaskedImageModeling"]}, {}, "ViTForMaskedImageModeling"),
        ({**_CLIP, "text_config": 3}, {}, "text_config is not an object"),
        ({**_GEMMA3, "mm_tokens_per_image": 5}, {}, "mm_tokens_per_image"),
        (_changed("Llama 4 Scout", vision_config={"pixel_shuffle_ratio": "0.3"}), {}, "pixel_shuffle_ratio is '0.3'"),
        (_changed("Llama 4 Scout", vision_config={"pixel_shuffle_ratio": "half"}), {}, "pixel_shuffle_ratio"),
        (_changed("Llama 4 Scout", vision_config={"pixel_shuffle_ratio": -0.5}), {}, "pixel_shuffle_ratio is -0.5"),
        (_changed("LLaVA 1.5 7B", vision_feature_layer=-30), {}, "vision_feature_layer is -30"),
        (_changed("LLaVA 1.5 7B", vision_feature_select_strategy="full"), {}, "vision_feature_select_strategy"),
        (_changed("LLaVA 1.5 7B", vision_config={"model_type": "pixtral"}), {}, "does not read llama and pixtral"),
        (_changed("SmolVLM 500M", text_config={"model_type": "mamba"}), {}, "does not read mamba"),
        (_changed("SmolVLM 500M", text_config={"use_resampler": True}), {}, "use_resampler"),
        (_changed("Qwen2.5-VL 7B", vision_config={"window_size": 14}), {}, "window_size is 14"),
        (_changed("Qwen3-VL 8B", vision_config={"deepstack_visual_indexes": [27]}), {}, "deepstack_visual_indexes"),
    ],
)  # fmt: skip
def test_work_that_cannot_be_computed_is_refused_with_a_reason(
    config: dict[str, object], work: dict[str, int], words: str
) -> None:
    with refused(match=words) as fault:
        trained(config, work)
    assert fault.value.hint


def test_without_pixel_shuffle_each_patch_is_a_token() -> None:
    half, whole = (_changed("Llama 4 Scout", vision_config={"pixel_shuffle_ratio": one}) for one in (0.5, 1))
    merges = [read_model(config).images for config in (half, whole)]
    assert [images and images.merge for images in merges] == [4, 1]
