"""Configurations of published models, the sizes of their checkpoints, and the ways in which other models are
refused."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import pytest

from flopsd.core.architecture import ArchitectureFlop, Model
from flopsd.errors import ArchitectureError
from flopsd.settings.words import say, words_of

LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip
# Parameters in the published checkpoints of these configurations: in total, and used for one token.
PUBLISHED: Mapping[str, tuple[dict[str, Any], int, int]] = {
    "Llama 3.1 8B": (LLAMA_8B, 8_030_261_248, 8_030_261_248),
    "Llama 3.2 1B": (
        {**LLAMA_8B, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64,
         "tie_word_embeddings": True},
        1_235_814_400, 1_235_814_400,
    ),
    "Mistral 7B": (
        {**LLAMA_8B, "model_type": "mistral", "vocab_size": 32000, "sliding_window": 4096},
        7_241_732_096, 7_241_732_096,
    ),
    "Mixtral 8x7B": (
        {**LLAMA_8B, "model_type": "mixtral", "vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2},
        46_702_792_704, 12_879_925_248,
    ),
    "Qwen2.5 7B": (
        {"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
         "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "max_window_layers": 28},
        7_615_616_512, 7_615_616_512,
    ),
    "Qwen1.5 MoE A2.7B": (
        {"model_type": "qwen2_moe", "hidden_size": 2048, "intermediate_size": 5632, "moe_intermediate_size": 1408,
         "shared_expert_intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16,
         "num_key_value_heads": 16, "vocab_size": 151936, "num_experts": 60, "num_experts_per_tok": 4},
        14_315_784_192, 2_689_173_504,
    ),
    "Qwen3 30B A3B": (
        {"model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
         "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
         "vocab_size": 151936, "num_experts": 128, "num_experts_per_tok": 8, "mlp_only_layers": []},
        30_532_122_624, 3_353_032_704,
    ),
    "Gemma 2 9B": (
        {"model_type": "gemma2", "hidden_size": 3584, "intermediate_size": 14336, "num_hidden_layers": 42,
         "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256},
        9_241_705_984, 9_241_705_984,
    ),
    "GPT-2": ({"model_type": "gpt2"}, 124_439_808, 124_439_808),
    "Phi-3 mini": (
        {"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064, "auto_map": {"AutoConfig": "x"}},
        3_821_079_552, 3_821_079_552,
    ),
    "BERT base": ({"model_type": "bert"}, 109_514_298, 109_514_298),
    "T5 small": ({"model_type": "t5"}, 60_506_624, 60_506_624),
    "BART large": ({"model_type": "bart"}, 406_291_456, 406_291_456),
}  # fmt: skip


def paths_of_model(model: Model) -> list[str]:
    """The names of matrices and tables, sorted, without experts: versions of transformers fuse those differently."""
    paths = {linear.path for linear in model.linears()} | {table.path for table in model.embeddings}
    return sorted(path for path in paths if "experts." not in path and "_moe." not in path)


def assumed(found: ArchitectureFlop) -> str:
    """The assumptions of the calculation, as text."""
    return "\n".join(say("architecture.assumptions", note) for note in found.assumptions)


def digest_of(names: Iterable[str]) -> str:
    return sha256("\n".join(names).encode()).hexdigest()


@contextmanager
def refused(*, match: str) -> Iterator[pytest.ExceptionInfo[ArchitectureError]]:
    """Expect that a model or its work is refused, with a message that matches."""
    with pytest.raises(ArchitectureError) as caught:
        yield caught
    assert re.search(match, words_of(caught.value)), words_of(caught.value)
