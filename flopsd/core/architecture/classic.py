"""GPT-2 and GPT-NeoX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.heads import causal_heads, head_of
from flopsd.core.architecture.model import Attention, Block, Embedding, Linear, Mask, Model
from flopsd.core.architecture.parts import plain_mlp


def read_gpt2(config: Mapping[str, Any]) -> Model:
    """GPT-2: learned positions, one matrix for q, k and v, biases everywhere."""
    fields = Fields("gpt2", config)
    hidden, layers = fields.number("n_embd", 768), fields.layers("n_layer", 12)
    heads, vocabulary = fields.heads("n_head", hidden, 12), fields.number("vocab_size", 50257)
    positions = fields.number("n_positions", 1024)
    size = fields.optional("n_inner") or 4 * hidden
    tied = fields.flag("tie_word_embeddings", True)
    blocks, spare = [], fields.output_unneeded("resid_pdrop", 0.1)
    for index in range(layers):
        path = f"transformer.h.{index}"
        attention = Attention(
            Mask.CAUSAL, heads, hidden // heads, (Linear(f"{path}.attn.c_attn", hidden, 3 * hidden, True),), ("qkv",),
            Linear(f"{path}.attn.c_proj", hidden, hidden, True),
        )  # fmt: skip
        mlp = plain_mlp(f"{path}.mlp", hidden, size, names=("c_fc", "c_proj"))
        blocks.append(Block(path, (attention, mlp), others=4 * hidden, output_unneeded=spare))
    head = head_of(fields, causal_heads(fields, hidden, vocabulary, tied), "LMHeadModel")
    fields.finish(_GPT2)
    tables = (Embedding("transformer.wte", vocabulary, hidden), Embedding("transformer.wpe", positions, hidden))
    return Model("gpt2", tables, blocks=tuple(blocks), heads=head, others=2 * hidden, max_positions=positions)


_GPT2 = (
    "n_ctx", "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
    "summary_use_proj",
)  # fmt: skip


def read_gpt_neox(config: Mapping[str, Any]) -> Model:
    """GPT-NeoX (also Pythia): one matrix for q, k and v; attention and MLP may read the same input."""
    fields = Fields("gpt_neox", config)
    hidden, layers = fields.number("hidden_size"), fields.layers()
    heads, vocabulary = fields.heads("num_attention_heads", hidden), fields.number("vocab_size")
    size, bias = fields.number("intermediate_size"), fields.flag("attention_bias", True)
    parallel = fields.flag("use_parallel_residual", True)
    tied = fields.flag("tie_word_embeddings", False)
    blocks, spare = [], fields.output_unneeded("hidden_dropout")
    for index in range(layers):
        path = f"gpt_neox.layers.{index}"
        attention = Attention(
            Mask.CAUSAL, heads, hidden // heads,
            (Linear(f"{path}.attention.query_key_value", hidden, 3 * hidden, bias),), ("qkv",),
            Linear(f"{path}.attention.dense", hidden, hidden, bias),
        )  # fmt: skip
        mlp = plain_mlp(f"{path}.mlp", hidden, size, names=("dense_h_to_4h", "dense_4h_to_h"))
        blocks.append(Block(path, (attention, mlp), others=4 * hidden, parallel=parallel, output_unneeded=spare))
    head = head_of(fields, causal_heads(fields, hidden, vocabulary, tied), "ForCausalLM")
    maximum = fields.optional("max_position_embeddings")
    fields.finish(("is_decoder",))
    return Model(
        "gpt_neox", (Embedding("gpt_neox.embed_in", vocabulary, hidden),), blocks=tuple(blocks), heads=head,
        others=2 * hidden, max_positions=maximum,
    )  # fmt: skip
