"""The MLP or the experts of each layer of a decoder."""

from __future__ import annotations

from flopsd.core.architecture.config_fields import Fields
from flopsd.core.architecture.decoder_attention import declared_bias
from flopsd.core.architecture.decoder_styles import Experts, Style
from flopsd.core.architecture.hybrid_parts import experts, read_used
from flopsd.core.architecture.model import Linear, Mlp
from flopsd.core.architecture.parts import gated_mlp, plain_mlp
from flopsd.core.notes import Note, note


class FeedForward:
    """Reads the sizes once; `at` returns one layer's parts."""

    def __init__(self, fields: Fields, style: Style, hidden: int, layers: int) -> None:
        self.hidden, self.style = hidden, style
        self.bias = declared_bias(fields, style.mlp_bias)
        self.dropout = fields.output_unneeded(style.dropout) if style.dropout else True
        self.routed_layers: frozenset[int] = frozenset()
        self.notes: tuple[Note, ...] = ()
        mixture = style.experts
        if mixture is None:
            self.size = fields.number("intermediate_size")
            return
        self.size = fields.number(mixture.dense_size)
        self.expert_size = fields.number(mixture.size)
        other = None if mixture.alias is None else fields.get(mixture.alias)
        self.held = fields.number(mixture.held, other, at_least=0 if mixture.may_be_none else 1)
        self.used = read_used(fields, self.held)
        self.shared_size = 0
        if mixture.shared_size is not None:
            self.shared_size = fields.number(mixture.shared_size)
        elif mixture.shared_count is not None:
            self.shared_size = self.expert_size * fields.number(mixture.shared_count, at_least=0)
        routed = _routed_layers(fields, mixture, layers)
        self.routed_layers = routed if self.held else self.routed_layers
        if mixture.all_passed and self.routed_layers:
            self.notes = (note("all_experts_passed", held=str(self.held), used=str(self.used)),)

    def output_unneeded(self, index: int) -> bool | None:
        """Whether the backward pass does not need the output of the layer's last product: no norm and no routing
        weights follow it. Shared experts without a gate come last, and are added without scaling."""
        mixture = self.style.experts
        if self.style.post_norm:
            return False
        if self.dropout is None:
            return None
        return index not in self.routed_layers or (
            mixture is not None and self.shared_size > 0 and not mixture.shared_gate
        )

    def at(self, path: str, index: int) -> tuple[Mlp, ...]:
        mixture = self.style.experts
        if mixture is None or index not in self.routed_layers:
            return (self._mlp(f"{path}.{mixture.dense_module if mixture else 'mlp'}", self.size),)
        path = f"{path}.{mixture.module}"
        routed = self._experts(mixture, path)
        if not self.shared_size:
            return (routed,)
        shared = self._mlp(f"{path}.{mixture.shared}", self.shared_size)
        gate = (Linear(f"{path}.{mixture.shared}_gate", self.hidden, 1),) if mixture.shared_gate else ()
        return (routed, Mlp(shared.inner, shared.down, router=gate))

    def _experts(self, of: Experts, path: str) -> Mlp:
        return experts(
            path, self.hidden, self.expert_size, self.held, self.used, of.router, bias=of.bias, names=of.matrices,
            adaptable=of.adaptable, router_adaptable=of.router_adaptable, all_passed=of.all_passed,
        )  # fmt: skip

    def _mlp(self, path: str, size: int) -> Mlp:
        if self.style.fused_mlp:
            inner = Linear(f"{path}.gate_up_proj", self.hidden, 2 * size, self.bias)
            return Mlp((inner,), Linear(f"{path}.down_proj", size, self.hidden, self.bias))
        if self.style.plain_mlp:
            return plain_mlp(path, self.hidden, size, self.bias, names=self.style.plain_mlp)
        return gated_mlp(path, self.hidden, size, self.bias)


def _routed_layers(fields: Fields, experts: Experts, layers: int) -> frozenset[int]:
    listed = fields.sequence(experts.routed_layers) if experts.routed_layers else None
    types = fields.sequence(experts.layer_types) if experts.layer_types else None
    dense = (fields.sequence(experts.dense_layers) or ()) if experts.dense_layers else ()
    first = fields.number(experts.dense_first, at_least=0) if experts.dense_first else 0
    step = fields.number(experts.step) if experts.step else 1
    if types is not None:
        if len(types) != layers or any(name not in ("dense", "sparse") for name in types):
            raise fields.wrong(str(experts.layer_types), types)
        return frozenset(index for index in range(layers) if types[index] == "sparse")
    if listed is not None:
        if any(index not in range(layers) for index in listed):
            raise fields.wrong(str(experts.routed_layers), listed)
        return frozenset(listed)
    return frozenset(index for index in range(first, layers) if index not in dense and (index + 1) % step == 0)
