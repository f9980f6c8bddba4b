"""Whisper through the forward counter: its encoder's rows, and FLOP that equal PyTorch's own count."""

from pathlib import Path
from typing import Any

import pytest

from flopsd.core.architecture import flop, read_model, training_from
from flopsd.core.declared_facts import facts_from
from flopsd.integrations.describe_model import describe
from tests.train.families import build, flop_counter
from tests.train.pytorch import torch
from tests.train.trainers import counted

pytestmark = [pytest.mark.training("transformers", "peft"), pytest.mark.filterwarnings("ignore")]
ROWS, ENCODED, TARGET = 2, 24, 16
DECLARED = {
    "tokens": ROWS * ENCODED, "sequences": ROWS, "square_pairs": ROWS * ENCODED**2, "target_tokens": ROWS * TARGET,
    "target_square_pairs": ROWS * TARGET**2, "cross_pairs": ROWS * ENCODED * TARGET,
}  # fmt: skip


@pytest.mark.parametrize("named", [True, False])
def test_a_pass_of_whisper_declares_enough_for_pytorchs_count(tmp_path: Path, named: bool) -> None:
    """Its process sees that the encoder's positions have no gradient, which could be taken for partial training."""
    model = build("whisper")
    facts = {name: value for name, value in describe(model, None).items() if value is not None}
    features, labels = torch.randn(ROWS, 20, 2 * ENCODED), torch.randint(4, 128, (ROWS, TARGET))
    mask: Any = torch.ones(ROWS, 2 * ENCODED)  # of frames: Whisper masks none of them
    with counted(tmp_path / "client.sock", model) as (_, declared), flop_counter() as seen:
        if named:
            model(input_features=features, attention_mask=mask, labels=labels).loss.backward()
        else:
            model(features, mask, labels=labels).loss.backward()
    work = declared["train"]
    assert work == {**DECLARED, "cross_tokens": ROWS * ENCODED, "forward_passes": 1}
    assert facts["method"] == "partial"
    ours = flop(read_model(facts["model_config"]), work, training_from(facts_from(facts)))
    assert ours.executed.computed == seen.get_total_flops()
    assert ours.required.low * 1.2 > ours.required.high


def test_generation_of_whisper_passes_the_encoder_once(tmp_path: Path) -> None:
    model = build("whisper").eval()
    with counted(tmp_path / "client.sock", model, lambda *_: "evaluate") as (_, declared):
        model.generate(torch.randn(ROWS, 20, 2 * ENCODED), max_new_tokens=4, min_new_tokens=4, do_sample=False)
    work = declared["evaluate"]
    assert work["tokens"] == ROWS * ENCODED
    assert work["cross_pairs"] == work["target_tokens"] * ENCODED
