"""Estimates compared with the published training compute of ten models: `python -m
tests.unit.core.test_published_estimates` prints the table of docs/estimate.md.

FLOP are published for few models. For the others the published accelerator hours are used, which the estimate must fit
into at a usual share of the peak, or the published number of parameters that multiply a token.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Any

import pytest

from flopsd.core.architecture import Bounds, Model, bare_model, flop, read_model, training_from
from flopsd.core.rounding import Towards, flop_number
from flopsd.report.estimate.estimate import work_from_lengths
from tests.support.architectures import LLAMA_8B, PUBLISHED
from tests.support.paths import ROOT
from tests.support.published_decoders import PUBLISHED_DECODERS

H100_FLOP_PER_S = 989 * 10**12  # dense BF16, H800 too
BILLION, TRILLION = 10**9, 10**12
PRETRAINING = training_from({"method": "pretraining", "recomputation": "none"})
LLAMA_70B = {**LLAMA_8B, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
             "num_attention_heads": 64}  # fmt: skip
LLAMA_405B = {**LLAMA_8B, "hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126,
              "num_attention_heads": 128}  # fmt: skip
QWEN_72B = {**PUBLISHED["Qwen2.5 7B"][0], "hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80,
            "num_attention_heads": 64, "num_key_value_heads": 8, "max_window_layers": 80}  # fmt: skip


CONFIGS = {**PUBLISHED, **PUBLISHED_DECODERS}


@dataclass(frozen=True)
class Training:
    """As published. Parameters in millions, `flop` in total or `hours` of H100; `config` where flopsd reads the
    family."""

    name: str
    millions: int
    layers: int
    width: int  # of attention
    tokens: int
    length: int
    source: str
    flop: int | None = None
    hours: int | None = None
    active_millions: int | None = None  # None: dense
    config: dict[str, Any] | None = None

    def required(self, model: Model) -> Bounds:
        return flop(model, work_from_lengths(self.tokens, self.length, None), PRETRAINING).required

    def by_size(self) -> Bounds:
        active = (self.active_millions or self.millions) * 10**6
        return self.required(
            bare_model(self.millions * 10**6, active=active, layers=self.layers, attention_width=self.width)
        )


TRAININGS = (
    Training("GPT-3", 174_600, 96, 12288, 300 * BILLION, 2048, "maker", 314 * 10**21),
    Training("PaLM 540B", 540_350, 118, 12288, 780 * BILLION, 2048, "maker", 25272 * 10**20),
    Training("Llama 3.1 8B", 8_030, 32, 4096, 15 * TRILLION, 8192, "Ai2", 72 * 10**22,
             config=LLAMA_8B),
    Training("Llama 3.1 70B", 70_554, 80, 8192, 15 * TRILLION, 8192, "maker", hours=7_000_000,
             config=LLAMA_70B),
    Training("Llama 3.1 405B", 405_853, 126, 16384, 156 * TRILLION // 10, 8192, "maker", 38 * 10**24,
             config=LLAMA_405B),
    Training("DeepSeek-V3", 671_000, 61, 24576, 148 * TRILLION // 10, 4096, "maker",
             hours=2_664_000, active_millions=37_000, config=PUBLISHED_DECODERS["DeepSeek V3"][0]),
    Training("OLMo 2 7B", 7_299, 32, 4096, 405 * TRILLION // 100, 4096, "maker", 18 * 10**22,
             config=PUBLISHED_DECODERS["OLMo 2 7B"][0]),
    Training("OLMo 2 13B", 13_716, 40, 5120, 56 * TRILLION // 10, 4096, "maker", 46 * 10**22),
    Training("Qwen2.5 72B", 72_706, 80, 8192, 18 * TRILLION, 4096, "Epoch AI", 78 * 10**23,
             config=QWEN_72B),
)  # fmt: skip
# Without published token counts: parameters that a token goes through, in millions, and whether they include
# embeddings.
ACTIVE = {"Mixtral 8x7B": (12_900, True, "maker"), "gpt-oss 120B": (5_130, False, "maker")}


@pytest.mark.parametrize("training", TRAININGS, ids=lambda training: training.name)
def test_published_compute_lies_within_the_bounds(training: Training) -> None:
    found = training.by_size()
    if training.flop is not None:
        assert found.low <= training.flop <= found.high
        assert abs(found.computed - training.flop) * 100 <= 3 * training.flop
    else:
        assert Fraction(1, 5) < _share(training, found.low) < _share(training, found.high) < Fraction(1, 2)
    assert found.high * 100 <= 175 * found.low
    if training.config is not None:
        exact = training.required(read_model(training.config))
        assert found.low <= exact.low <= exact.high <= found.high


@pytest.mark.parametrize("name", ACTIVE)
def test_a_token_is_multiplied_by_the_published_active_parameters(name: str) -> None:
    millions, embeddings, _ = ACTIVE[name]
    ours = _multiplied(name) + (_looked_up(name) if embeddings else 0)
    assert abs(ours - millions * 10**6) * 100 <= millions * 10**6


def test_the_table_is_that_of_the_page() -> None:
    assert "\n".join(table()) in (ROOT / "docs" / "estimate.md").read_text()


def _share(training: Training, required: int) -> Fraction:
    """Share of the peak over the published hours: an MFU."""
    assert training.hours is not None
    return Fraction(required, training.hours * 3600 * H100_FLOP_PER_S)


def _multiplied(name: str) -> int:
    work = work_from_lengths(1, 1, None)
    return flop(read_model(CONFIGS[name][0]), work, PRETRAINING).terms["linear_forward"] // 2


def _looked_up(name: str) -> int:
    return sum(one.parameters for one in read_model(CONFIGS[name][0]).embeddings)


def table() -> Iterator[str]:
    yield "| model | published | by | at least | 6PD | at most | by config.json |"
    yield "|---|---|---|---|---|---|---|"
    for training in TRAININGS:
        found = training.by_size()
        exact = "" if training.config is None else _ends(training.required(read_model(training.config)))
        if training.flop is not None:
            published = flop_number(training.flop)
        else:
            share = [_share(training, found.low), _share(training, found.high)]
            ends = f"{floor(100 * share[0])} % to {ceil(100 * share[1])} %"
            published = f"{training.hours:,} h: {ends}"
        figures = (
            flop_number(found.low, Towards.DOWN),
            flop_number(found.computed),
            flop_number(found.high, Towards.UP),
        )
        yield "| " + " | ".join((training.name, published, training.source, *figures, exact)) + " |"
    yield ""
    yield "| model | published as active | by | multiplied by | looked up |"
    yield "|---|---|---|---|---|"
    for name, (millions, _, source) in ACTIVE.items():
        yield f"| {name} | {millions / 1000:g}x10^9 | {source} | {_multiplied(name):,} | {_looked_up(name):,} |"


def _ends(bounds: Bounds) -> str:
    return f"{flop_number(bounds.low, Towards.DOWN)} to {flop_number(bounds.high, Towards.UP)}"


if __name__ == "__main__":
    for line in table():
        print(line)
