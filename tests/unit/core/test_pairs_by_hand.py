"""Pairs, rows and bounds by hand, for work small enough to count."""

from dataclasses import replace
from typing import Any

import pytest

from flopsd.core.architecture import Bounds, bare_model, flop, forward_flop, training_from
from flopsd.core.architecture.attention_pairs import Kernel, Level, Pairs, Side, side_from
from flopsd.core.architecture.image_work import ImageWork, image_work
from flopsd.core.architecture.model import Attention, Block, Images, Linear, Mask, Model, Stream
from flopsd.core.architecture.parameters_only import most_looked_up

# Sequences of 2 and 10 tokens, and of 6 and 6. PADDED: one token of the first is padding, so 5 and 6 give the least.
UNEVEN, EVEN, PADDED = Side(12, 0, 2, 104, 104), Side(12, 0, 2, 72, 72), Side(12, 1, 2, 104, 104)
UNKNOWN, NOTHING = Side(12, 0, None, 12, 144), Side(0, 0, 2, 0, 0)


@pytest.mark.parametrize(
    ("side", "causal", "window_3", "chunk_4", "square", "local_1"),
    [
        (UNEVEN, 3 + 55, 2 * 15, 2 * 13, 104, 2 * 16),
        (EVEN, 2 * 21, 2 * 15, 2 * 13, 72, 2 * 16),
        # A padding position removes at most its row of 10, and from a square its column too.
        (PADDED, 58 - 10, 12 + 15, 10 + 13, 104 - 20, 13 + 16),
        (UNKNOWN, 12, 12, 12, 12, 12),
        (NOTHING, 0, 0, 0, 0, 0),
    ],
)
def test_the_least_pairs_match_a_count_by_hand(
    side: Side, causal: int, window_3: int, chunk_4: int, square: int, local_1: int
) -> None:
    """Within a window, a chunk or a distance the bound assumes equal sequences, which have the fewest pairs."""
    assert side.least(None) == causal
    assert side.least(3) == window_3
    assert side.least_chunked(4) == chunk_4
    assert side.least_square() == square
    assert side.least_local(1) == local_1
    packed = Pairs({Stream.TOKENS: side}, 0, Kernel.SKIPS, True, side.tokens, 3)
    low = {packed.of(mask, 3, Stream.TOKENS, Level.LOW) for mask in Mask if mask is not Mask.CROSS}
    assert low == {side.tokens - side.padding}, "each token of a packed row sees itself"


def test_each_token_has_at_most_a_whole_window_unless_sequences_are_equal() -> None:
    assert (EVEN.most_local(1), UNEVEN.most_local(1), UNKNOWN.most_local(1)) == (2 * 16, 12 * 3, 12 * 3)
    assert (EVEN.length(), UNEVEN.length(), PADDED.length(), UNKNOWN.length()) == (6, None, None, None)
    assert Side(12, 1, 2, 72, 72).length() is None


@pytest.mark.parametrize(
    ("work", "most", "cached", "side"),
    [
        ({"tokens": 12, "sequences": 2, "square_pairs": 104}, 9, False, UNEVEN),
        ({"tokens": 12, "sequences": 2}, None, False, Side(12, 0, 2, 72, 144)),
        ({"tokens": 12, "sequences": 2}, 7, False, Side(12, 0, 2, 72, 84)),
        ({"tokens": 12, "sequences": 2}, 5, False, Side(12, 0, 2, 72, 72)),
        ({"tokens": 12}, 7, False, Side(12, 0, None, 12, 84)),
        ({"tokens": 12, "padding_tokens": 12}, 100, False, Side(12, 12, None, 12, 144)),
        ({"tokens": 12, "sequences": 5}, 3, False, Side(12, 0, 5, 29, 36)),
        ({"tokens": 0, "sequences": 5}, None, False, Side(0, 0, 5, 0, 0)),
        ({"tokens": 12, "sequences": 2, "square_pairs": 500}, None, True, Side(12, 0, None, 500, 500)),
        ({"tokens": 12, "sequences": 13, "square_pairs": 500}, None, True, Side(12, 0, None, 500, 500)),
    ],
)
def test_work_left_open_by_counters_is_bounded_by_max_positions(
    work: dict[str, int], most: int | None, cached: bool, side: Side
) -> None:
    assert side_from(work, "", most, cached=cached) == side


SIZE = {"active": 500, "embedding": 100, "layers": 2, "attention_width": 8}
WORK = {"tokens": 10, "padding_tokens": 2, "sequences": 1, "square_pairs": 100}
ATTENTION = 4 * 100 * 2 * 8  # scores and their product with values, in two layers of width 8
# 8 non-padding tokens pass 400 weights, less one in a hundred for norms; 10 pass at most 500.
LOW, COMPUTED, HIGH = 2 * 8 * 396, 2 * 10 * 500, 2 * 10 * 500 + ATTENTION


@pytest.mark.parametrize(
    ("facts", "back", "weights", "adapters"),
    [
        ({"method": "full"}, LOW, (LOW, COMPUTED, COMPUTED), 0),
        ({"method": "pretraining", "parameters_trainable": 1000}, LOW, (LOW, COMPUTED, COMPUTED), 0),
        ({"method": "full", "parameters_trainable": 999}, 0, (0, 2 * 10 * 499, COMPUTED), 0),
        ({"method": "partial", "parameters_trainable": 100}, 0, (0, 2 * 10 * 50, 2 * 10 * 100), 0),
        ({"method": "partial"}, 0, (0, COMPUTED, COMPUTED), 0),
        ({}, 0, (0, COMPUTED, COMPUTED), 0),
        ({"method": "lora"}, 0, (0, 0, COMPUTED), 0),
        ({"method": "qlora", "parameters_trainable": 30}, 0, (0, 2 * 10 * 30, 2 * 10 * 30), 2 * 10 * 30),
    ],
)
def test_bounds_from_a_size_match_a_count_by_hand(
    facts: dict[str, Any], back: int, weights: tuple[int, int, int], adapters: int
) -> None:
    model, high = bare_model(1000, **SIZE), HIGH + adapters
    required = Bounds(LOW + back + weights[0], 2 * COMPUTED + weights[1], 2 * high + ATTENTION + weights[2])
    for again, computed, more in (("none", 0, 0), ("full", COMPUTED, high), (None, 0, high), ("selective", 0, high)):
        training = training_from({**facts, **({"recomputation": again} if again else {})})
        found = flop(model, WORK, training)
        assert found.required == required
        executed = Bounds(required.low, required.computed + computed, required.high + more + ATTENTION)
        assert found.executed == executed
        assert forward_flop(model, WORK, training) == Bounds(LOW, COMPUTED, high)


def test_bounds_from_parameters_alone_allow_for_experts_tables_and_attention() -> None:
    forward = forward_flop(bare_model(24 * 10**6), WORK, training_from({}))
    # At least a 64th of the parameters; at most 200 layers, each with at least 12 x 100^2 parameters.
    attention = 4 * 100 * (24 * 10**6 // (12 * 100))
    assert forward == Bounds(2 * 8 * 375_000, 2 * 10 * 24 * 10**6, 2 * 10 * 24 * 10**6 + attention)
    assert forward_flop(bare_model(1000), WORK, training_from({})).low == 250  # of 15.6 weights
    tiny = forward_flop(bare_model(13), WORK, training_from({}))
    assert tiny.high == 2 * 10 * 13 + 4 * 100 * 2
    for active in (2, 10**6, 10**12, 10**12 + 1):
        width = most_looked_up(active) // 300_000
        assert most_looked_up(active) == active // 2 or (width - 1) ** 3 < 32 * active <= width**3
    assert most_looked_up(10**12) == 300_000 * 31_749


def images_of(images: Images, tokens: int, work: dict[str, int]) -> tuple[ImageWork, ...]:
    model = Model("seeing", blocks=(Block("layer", ()),), images=images)
    found = image_work(model, work, Side(tokens, 0, 1, tokens**2, tokens**2))
    return tuple(found[level] for level in Level)


SEVENTEEN = Images(4, 17, 1, merge=2)  # squares of 4 x 4 patches and a class token; 2 patches make one text token
ANY_SIZE = Images(4, merge=4)


@pytest.mark.parametrize(
    ("images", "tokens", "work", "low", "computed", "high"),
    [
        # 41 tokens can stand for 5 images of 8 tokens; with any image size, each is four patches of one image.
        (SEVENTEEN, 41, {}, ImageWork(), ImageWork(), ImageWork(85, 80, 5, 40, 5 * 17**2)),
        (ANY_SIZE, 10, {}, ImageWork(), ImageWork(), ImageWork(40, 40, 10, 10, 4**2 * 10**2)),
        # 51 rows are 3 images; or 1 to 51 images, which leaves no rows for patches.
        (
            SEVENTEEN, 99, {"patches": 51}, ImageWork(51, 0, 1, 0, 51), ImageWork(51, 48, 3, 24, 51 * 17),
            ImageWork(51, 50, 51, 25, 51**2),
        ),
        (
            SEVENTEEN, 99, {"patches": 51, "images": 3}, ImageWork(51, 48, 3, 24, 867), ImageWork(51, 48, 3, 24, 867),
            ImageWork(51, 48, 3, 24, 51**2),
        ),
        (
            SEVENTEEN, 99, {"patches": 51, "images": 2, "patch_square_pairs": 2000, "patch_window_pairs": 7},
            *[ImageWork(51, 49, 2, 24, 2000, 7)] * 3,
        ),
        (
            ANY_SIZE, 99, {"patches": 40}, ImageWork(40, 40, 1, 10, 40), ImageWork(40, 40, 1, 10, 40),
            ImageWork(40, 40, 40, 10, 1600),
        ),
        (
            ANY_SIZE, 99, {"patches": 40, "images": 3}, ImageWork(40, 40, 3, 10, 534), ImageWork(40, 40, 3, 10, 534),
            ImageWork(40, 40, 3, 10, 1600),
        ),
        (ANY_SIZE, 99, {"patches": 0}, *[ImageWork()] * 3),
    ],
)  # fmt: skip
def test_image_rows_match_a_count_by_hand(
    images: Images, tokens: int, work: dict[str, int], low: ImageWork, computed: ImageWork, high: ImageWork
) -> None:
    assert images_of(images, tokens, work) == (low, computed, high)


def test_a_mask_of_windows_without_a_size_has_all_pairs() -> None:
    work = ImageWork(patches=9, square=81)
    windows = Attention(Mask.WINDOW, 1, 8, (), (), Linear("o", 8, 8, False), stream=Stream.PATCHES)
    assert [work.pairs(windows, level) for level in Level] == [81] * 3
    assert [work.pairs(replace(windows, window=4), level) for level in Level] == [9, 36, 36]


def test_a_model_without_images_has_no_image_work() -> None:
    found = image_work(Model("reading"), {"patches": 9}, EVEN)
    assert list(found.values()) == [ImageWork()] * 3
    assert ImageWork(9, 8, 1, 4).rows() == {
        Stream.PATCHES: 9, Stream.PIXELS: 8, Stream.IMAGES: 1, Stream.SOFT: 4,
    }  # fmt: skip
