"""The architecture basis against real models of transformers under PyTorch's own FLOP counter."""

from collections.abc import Sequence

import pytest

from flopsd.core.architecture import flop, read_model, training_from
from tests.train.decoder_families import DECODERS
from tests.train.families import FAMILIES, RANK, alone, build, config_of, flop_counter, step
from tests.train.hybrid_families import HYBRIDS
from tests.train.other_families import OTHERS
from tests.train.table import CASES

pytestmark = [pytest.mark.training("transformers", "peft"), pytest.mark.filterwarnings("ignore")]


def _sampled(name: str) -> Sequence[tuple[str, str]]:
    return CASES[3:] if name in (*DECODERS, *HYBRIDS, *OTHERS) else CASES[::3]


@pytest.mark.parametrize(
    ("name", "method", "recomputation"),
    [
        # In CI one training method covers each product, or two for the oldest families; `make test-all` has all four.
        pytest.param(name, *case, marks=() if case in _sampled(name) else pytest.mark.exhaustive)
        for name in FAMILIES
        for case in CASES
    ],
)
def test_every_product_is_counted_once(name: str, method: str, recomputation: str) -> None:
    found = step(name, method, recomputation)
    bounds = found.ours.executed
    assert bounds.computed == found.counted
    assert bounds.low <= found.counted <= bounds.high
    assert sum(found.ours.terms.values()) == bounds.computed


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FAMILIES)
def test_an_adapter_on_any_matrix_makes_the_layers_above_compute_gradients(name: str) -> None:
    model, work = read_model(config_of(build(name))), step(name, "full", "none").work
    for path, counted in alone(name).items():
        facts = {"method": "lora", "recomputation": "none", "attention": "eager",
                 "lora": {"r": RANK, "target_modules": [path]}}  # fmt: skip
        executed = flop(model, work, training_from(facts)).executed
        assert executed.computed == counted or ("deepstack" in path and executed.low <= counted), path


@pytest.mark.parametrize("method", ["full", "lora"])
def test_reentrant_checkpointing_recomputes_the_whole_layer_within_the_bounds(method: str) -> None:
    found = step("llama", method, "full", reentrant=True)
    assert found.ours.executed.computed < found.counted <= found.ours.executed.high


@pytest.mark.parametrize("name", ["qwen3_5_text", "qwen3_5_text, rate"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_states_pass_from_chunk_to_chunk(name: str, method: str) -> None:
    found = step(name, method, "none", length=150)  # three chunks of 64
    assert found.ours.executed.computed == found.counted


def test_uncounted_images_are_within_the_upper_bound() -> None:
    """The batch is as full of images as possible; nothing counts them, so they are in no other figure."""
    import torch

    model = build("gemma3")
    ids = torch.full((1, 16), 3)  # four images of four tokens
    with flop_counter() as counter:
        model(
            input_ids=ids, pixel_values=torch.zeros(4, 3, 16, 16), token_type_ids=torch.ones_like(ids), labels=ids
        ).loss.backward()
    work = {"tokens": 16, "sequences": 1, "square_pairs": 256}
    facts = {"method": "full", "recomputation": "none", "attention": "eager"}
    ours = flop(read_model(config_of(model)), work, training_from(facts)).executed
    assert ours.computed < counter.get_total_flops() <= ours.high
    assert ours.high < 1.1 * counter.get_total_flops()
