"""The published example of the tool that this one answers: its figures, reproduced, and why they are wrong.

They are those of the example `flops_meter.json` in the blog post "Navigating EU AI Act requirements for LLM fine-tuning
on Amazon SageMaker AI" (12 May 2026) and in the README of aws-samples/amazon-sagemaker-generativeai.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from flopsd.core.architecture import Lora, Model, adapters, flop, parameters, read_model, training_from
from flopsd.core.rounding import Towards, format_flop
from tests.support.paths import ROOT


def test_its_parameters_are_packed_elements_of_another_model() -> None:
    gemma = read_model(GEMMA_4B)
    found = packed(gemma)
    assert (found.elements, found.trainable) == (N_TOTAL, N_TRAINABLE)
    assert parameters(gemma).total == 4_300_079_472
    assert parameters(read_model(LLAMA_3B)).total == 3_212_749_824
    assert 2.71 < Fraction(parameters(gemma).total, N_TOTAL) < 2.72


def test_its_trainable_parameters_are_not_the_adapters() -> None:
    assert adapters(read_model(LLAMA_3B), LORA) == 2_293_760
    assert adapters(read_model(GEMMA_4B), LORA) < N_TRAINABLE // 200


def test_its_figures_do_not_follow_from_each_other() -> None:
    assert their_formula(N_TOTAL, N_TRAINABLE, TOKENS) == 16_557_941_750_400 != FLOPS_ARCHITECTURE
    assert 1000 * round(Fraction(FLOPS_ARCHITECTURE, 33 * 10**21), 12) == PERCENT
    assert round(FLOPS_HARDWARE / SECONDS / PEAK_FLOP_PER_S, 4) == Fraction(496, 10_000)


def test_the_table_is_that_of_the_page() -> None:
    page = (ROOT / "docs" / "model-flop.md").read_text()
    assert "\n".join(table()) in page


N_TOTAL, N_TRAINABLE, TOKENS = 1_585_294_704, 680_094_720, 2_150
FLOPS_ARCHITECTURE, FLOPS_HARDWARE, PERCENT = 14_500_000_000_000, 1_520_000_000_000_000, Fraction(439, 10**9)
SECONDS, PEAK_FLOP_PER_S = Fraction(24530, 100), 125 * 10**12  # of an A10G, as the tool's own table has it
PER_ELEMENT = 4  # 4-bit weights in one element of bfloat16, as the recipes store them

LLAMA_3B = {
    "model_type": "llama", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
    "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256,
    "tie_word_embeddings": True,
}  # fmt: skip
GEMMA_4B = {
    "model_type": "gemma3",
    "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
                    "num_hidden_layers": 34, "sliding_window": 1024},
    "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
                      "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 896, "patch_size": 14,
                      "vision_use_head": False},
}  # fmt: skip
LORA = Lora(8, ("q_proj", "v_proj"))


@dataclass(frozen=True)
class Packed:
    """What an element count says of a 4-bit model: modules that bitsandbytes replaced hold `weights` / 4 elements, and
    neither their weights nor their biases are trainable any more."""

    weights: int
    elements: int
    trainable: int


def packed(model: Model) -> Packed:
    heads = set(map(id, model.heads))
    replaced = [linear for linear in model.linears() if linear.adaptable and id(linear) not in heads]
    weights = sum(linear.weights for linear in replaced)
    biases = sum(linear.outputs for linear in replaced if linear.bias)
    whole = parameters(model).total
    return Packed(weights, whole - weights + weights // PER_ELEMENT, whole - weights - biases)


def their_formula(total: int, trainable: int, tokens: int) -> int:
    return (4 * total + 2 * trainable) * tokens


def table() -> Iterator[str]:
    """The example's figures, what they come to, and what flopsd makes of the same inputs."""
    gemma, llama = read_model(GEMMA_4B), read_model(LLAMA_3B)
    found = packed(gemma)
    rows: list[tuple[str, str, str]] = [
        ("N_total", f"{N_TOTAL:,}", f"elements of Gemma 3 4B packed to 4 bit: {found.elements:,}"),
        ("N_trainable", f"{N_TRAINABLE:,}", f"what is left unpacked of Gemma 3 4B: {found.trainable:,}"),
        ("parameters of Gemma 3 4B", "", f"{parameters(gemma).total:,}"),
        ("parameters of Llama 3.2 3B, which it names", "", f"{parameters(llama).total:,}"),
        ("adapters, r = 8 on q and v, Gemma's image tower too", "", f"{adapters(gemma, LORA):,}"),
        ("adapters, r = 8 on q and v, Llama", "", f"{adapters(llama, LORA):,}"),
        (
            "(4 N_total + 2 N_trainable) x 2,150 tokens",
            format_flop(FLOPS_ARCHITECTURE),
            format_flop(their_formula(N_TOTAL, N_TRAINABLE, TOKENS)),
        ),
    ]
    facts = {"method": "qlora", "recomputation": "full", "lora": {"r": 8, "target_modules": ["q_proj", "v_proj"]}}
    for name, model in (("Gemma 3 4B", gemma), ("Llama 3.2 3B", llama)):
        ours = flop(model, {"tokens": TOKENS}, training_from(facts))
        for basis, bounds in (("required", ours.required), ("executed", ours.executed)):
            words = f"{format_flop(bounds.low, Towards.DOWN)} to {format_flop(bounds.high, Towards.UP)}, computed {format_flop(bounds.computed)}"
            rows.append((f"QLoRA of {name}, {basis}", "", words))
    share = Fraction(FLOPS_ARCHITECTURE) / 33 / 10**21
    rows += [
        ("pct_of_pretrain, of 3.3e22", f"{float(PERCENT):.3g}", f"{float(share):.3g}"),
        (
            "hardware FLOP / (time x peak), said to be an upper bound",
            "1.0",
            f"{float(FLOPS_HARDWARE / SECONDS / PEAK_FLOP_PER_S):.4f}",
        ),
    ]
    yield "| figure | printed by the tool | by flopsd |"
    yield "|---|---|---|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


if __name__ == "__main__":
    for line in table():
        print(line)
