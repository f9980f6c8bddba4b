"""Figures of others: every worked example of the Commission's Guidelines, computed exactly by our formulae and rounded
as printed; and the published example of the tool that flopsd answers, reproduced, and why it is wrong.

Guidelines: every format counts alike and the peak is a dense one: annex A.3 takes 300 TFLOP/s for A100 and 989 for
H100, both BF16. They do not define the utilisation U. The share of time that a driver reports is not U: it reads 2.4
to 5.8 times too high (Vilanakis 2026); the examples fit model FLOP utilisation.

The tool: the example `flops_meter.json` in the blog post "Navigating EU AI Act requirements for LLM fine-tuning on
Amazon SageMaker AI" (12 May 2026) and in the README of aws-samples/amazon-sagemaker-generativeai.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest

from flopsd.core.architecture import Lora, Model, adapters, flop, parameters, read_model, training_from
from flopsd.core.rounding import Towards, format_flop, significant
from flopsd.core.values import parse_flop
from tests.support.paths import ROOT, SAMPLES

SAMPLE = SAMPLES / "guidelines_annex_a3_examples.json"
EXAMPLES: list[dict[str, Any]] = json.loads(SAMPLE.read_text())


def computed(example: dict[str, Any]) -> Fraction:
    if example["approach"] == "architecture":
        return Fraction(dense_transformer_flop(parse_flop(example["parameters"]), parse_flop(example["tokens"])))
    # The text gives the product N x L as unit-hours.
    unit_seconds = Fraction(int(example["unit_hours"]) * 3600)
    peak = Fraction(parse_flop(example["peak_flop_per_s"]))
    return hardware_flop([Period(1, unit_seconds, peak, Fraction(example["utilization"]))])


def value(text: str) -> Fraction:
    return Fraction(parse_flop(text))


def figures(text: str) -> int:
    return len(text.partition("e")[0].replace(".", ""))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e['version']}: {e['label']}")
def test_each_printed_figure_is_reproduced(example: dict[str, Any]) -> None:
    digits, exponent = significant(computed(example), figures(example["printed"]), Towards(example["rounding"]))
    assert digits * Fraction(10) ** exponent == value(example["printed"])
    if "flopcheck" in example:
        digits, exponent = significant(computed(example), figures(example["flopcheck"]))
        assert digits * Fraction(10) ** exponent == value(example["flopcheck"])


def test_all_eight_final_examples_are_included() -> None:
    assert {e["label"][0] for e in EXAMPLES if e["version"].startswith("final")} == set("ABCDEFGH")


@dataclass(frozen=True, slots=True)
class Period:
    """A time in which the number of units does not change. `utilization` is the share of the peak achieved."""

    units: int
    seconds: Fraction
    peak_flop_per_s: Fraction
    utilization: Fraction


def hardware_flop(periods: Iterable[Period]) -> Fraction:
    """C = N x L x H x U, summed over periods (annex A.2.1)."""
    return sum((p.units * p.seconds * p.peak_flop_per_s * p.utilization for p in periods), Fraction(0))


def dense_transformer_flop(parameters: int, tokens: int) -> int:
    """C = 6 x P x D (annex A.2.2): all parameters, and each token as often as it was trained on. Only for large
    dense transformers: parameters must far exceed a twelfth of the context's tokens (footnote 13)."""
    return 6 * parameters * tokens


def test_the_published_example_counts_packed_elements_and_contradicts_itself() -> None:
    gemma = read_model(GEMMA_4B)
    found = packed(gemma)
    assert (found.elements, found.trainable) == (N_TOTAL, N_TRAINABLE)
    assert parameters(gemma).total == 4_300_079_472
    assert parameters(read_model(LLAMA_3B)).total == 3_212_749_824
    assert 2.71 < Fraction(parameters(gemma).total, N_TOTAL) < 2.72

    assert adapters(read_model(LLAMA_3B), LORA) == 2_293_760
    assert adapters(read_model(GEMMA_4B), LORA) < N_TRAINABLE // 200

    assert their_formula(N_TOTAL, N_TRAINABLE, TOKENS) == 16_557_941_750_400 != FLOPS_ARCHITECTURE
    assert 1000 * round(Fraction(FLOPS_ARCHITECTURE, 33 * 10**21), 12) == PERCENT
    assert round(FLOPS_HARDWARE / SECONDS / PEAK_FLOP_PER_S, 4) == Fraction(496, 10_000)


def test_the_table_matches_the_docs_page() -> None:
    page = (ROOT / "docs" / "model-flop.md").read_text()
    assert "\n".join(table()) in page


N_TOTAL, N_TRAINABLE, TOKENS = 1_585_294_704, 680_094_720, 2_150
FLOPS_ARCHITECTURE, FLOPS_HARDWARE, PERCENT = 14_500_000_000_000, 1_520_000_000_000_000, Fraction(439, 10**9)
SECONDS, PEAK_FLOP_PER_S = Fraction(24530, 100), 125 * 10**12  # of an A10G, from the tool's own table
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
    """The element count of a 4-bit model: modules that bitsandbytes replaced hold `weights` / 4 elements, and
    neither their weights nor their biases remain trainable."""

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
    """The example's figures, what they refer to, and flopsd's figures for the same inputs."""
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
