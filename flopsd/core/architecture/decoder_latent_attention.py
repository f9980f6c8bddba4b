"""Multi-head latent attention of DeepSeek V2 and V3: queries, and keys with values, by way of a projection of low rank.

The keys' rotary part comes from the first projection of keys and values, is shared by all heads, and makes keys wider
than values.
"""

from __future__ import annotations

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.decoder_styles import Style
from flopsd.core.architecture.model import Attention, Linear, Mask


class LatentAttention:
    """Every layer's attention: they are alike."""

    def __init__(self, fields: Fields, style: Style, hidden: int, layers: int) -> None:
        del style, layers
        self.hidden, self.heads = hidden, fields.number("num_attention_heads")
        self.q_rank, self.kv_rank = fields.optional("q_lora_rank"), fields.number("kv_lora_rank")
        self.rotary, self.plain = fields.number("qk_rope_head_dim"), fields.number("qk_nope_head_dim")
        self.value_dim = fields.number("v_head_dim")
        self.bias = fields.flag("attention_bias", False)
        # Each head has keys and values of its own, whatever num_key_value_heads is; the others follow from the rest.
        for derived in ("num_key_value_heads", "head_dim", "qk_head_dim"):
            fields.get(derived)

    def at(self, path: str, index: int) -> Attention:
        del index
        path, hidden, key_dim = f"{path}.self_attn", self.hidden, self.rotary + self.plain
        if self.q_rank is None:
            queries = [(Linear(f"{path}.q_proj", hidden, self.heads * key_dim), "q", "")]
        else:
            queries = [
                (Linear(f"{path}.q_a_proj", hidden, self.q_rank, self.bias), "a", ""),
                (Linear(f"{path}.q_b_proj", self.q_rank, self.heads * key_dim), "q", "a"),
            ]
        width = self.heads * (self.plain + self.value_dim)
        keys = [
            (Linear(f"{path}.kv_a_proj_with_mqa", hidden, self.kv_rank + self.rotary, self.bias), "ck", ""),
            (Linear(f"{path}.kv_b_proj", self.kv_rank, width), "kv", "c"),
        ]
        projections, feeds, reads = zip(*queries, *keys, strict=True)
        return Attention(
            Mask.CAUSAL,
            self.heads,
            key_dim,
            projections,
            feeds,
            Linear(f"{path}.o_proj", self.heads * self.value_dim, hidden, self.bias),
            reads=reads,
            value_dim=self.value_dim,
            others=(self.q_rank or 0) + self.kv_rank,
        )
