"""Parts of hybrid decoders: attention, the Mamba 2 mixer, experts; and the kind of each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.model import Attention, Linear, Mask, Mlp, Recurrence
from flopsd.core.architecture.recurrent import Convolution, ssd_products
from flopsd.core.dataclass import dataclass
from flopsd.errors import ArchitectureError


@dataclass(frozen=True, slots=True)
class Heads:
    """The attention of a hybrid's full layers. `gated`: the query matrix also makes a gate for each query."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    bias: bool = False
    gated: bool = False
    qk_norm: bool = False

    def at(self, path: str, output: str = "o_proj") -> Attention:
        width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        sizes = {"q": width * (2 if self.gated else 1), "k": kv_width, "v": kv_width}
        return Attention(
            Mask.CAUSAL,
            self.heads,
            self.head_dim,
            tuple(Linear(f"{path}.{name}_proj", self.hidden, size, self.bias) for name, size in sizes.items()),
            tuple(sizes),
            Linear(f"{path}.{output}", width, self.hidden, self.bias),
            others=2 * self.head_dim if self.qk_norm else 0,
        )


def read_heads(fields: Fields, hidden: int, *, bias: bool = False, gated: bool = False, qk_norm: bool = False) -> Heads:
    """A null number of key and value heads equals that of heads; head_dim defaults to an equal share of hidden."""
    heads = fields.number("num_attention_heads")
    kv_heads = fields.optional("num_key_value_heads") or heads
    each = fields.number("head_dim", hidden // heads or None)
    if heads % kv_heads:
        raise fields.wrong("num_key_value_heads", kv_heads)
    return Heads(hidden, heads, kv_heads, each, bias, gated, qk_norm)


def experts(
    path: str, hidden: int, size: int, held: int, used: int, router: str, *, bias: bool = False,
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"), adaptable: bool | None = None,
    router_adaptable: bool | None = None, all_passed: bool = False,
) -> Mlp:  # fmt: skip
    """Experts with their router; in transformers 5 the experts, and in most families the router, are not Linear
    modules. `all_passed`: a token passes all experts, whatever the routing selects."""

    def one(name: str, inputs: int, outputs: int) -> Linear:
        passed = held if all_passed else 0
        return Linear(f"{path}.experts.{name}", inputs, outputs, bias, held, used, passed, adaptable=adaptable)

    gate, up, down = names
    return Mlp(
        (one(gate, hidden, size), one(up, hidden, size)),
        one(down, size, hidden),
        router=(Linear(f"{path}.{router}", hidden, held, bias, adaptable=router_adaptable),),
    )


def read_used(fields: Fields, held: int) -> int:
    """The number of experts that a token passes; 0 if there are none."""
    used = fields.number("num_experts_per_tok", at_least=0 if held == 0 else 1)
    if used > held > 0:
        raise fields.wrong("num_experts_per_tok", used)
    return used


def kinds_of(fields: Fields, layers: int, names: Mapping[str, str], default: Sequence[str], *more: str) -> list[str]:
    """Each layer's kind, from layer_types (or an older field in `more`). `names` maps the field's words to kinds."""
    named = next((kinds for name in ("layer_types", *more) if (kinds := fields.sequence(name)) is not None), default)
    if len(named) != layers or not set(map(str, named)) <= set(names):
        raise ArchitectureError(
            "layer_types_not_known",
            family=fields.family,
            kinds=tuple(names),
            layers=layers,
            hint=f"flopsd models no other kind of layer; {fields.instead()}",
        )
    return [names[str(kind)] for kind in named]


def mamba2(
    path: str, hidden: int, *, heads: int, head_dim: int, size: int, groups: int, kernel: int, chunk: int,
    bias: bool = False, convolution_bias: bool = True, gated_norm: bool = True, out_bias: bool | None = None,
) -> Recurrence:  # fmt: skip
    """Mamba 2 as in transformers: one matrix makes x, B, C, the gate z and the step t; x, B and C pass a convolution.
    `size`: of the state, for each of heads x head_dim channels. arXiv 2405.21060, section 6."""
    inner = heads * head_dim
    channels = inner + 2 * groups * size
    return Recurrence(
        (Linear(f"{path}.in_proj", hidden, inner + channels + heads, bias),),
        (("z", "x", "B", "C", "t"),),
        Linear(f"{path}.out_proj", inner, hidden, bias if out_bias is None else out_bias),
        Convolution(f"{path}.conv1d", channels, kernel, convolution_bias, ("x", "B", "C")),
        ssd_products(heads, head_dim, size, groups, chunk),
        others=3 * heads + (inner if gated_norm else 0),  # A, D and the bias of the step
        fused=True,
    )
