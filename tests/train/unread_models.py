"""Models whose architecture flopsd does not read, trained for one step on the CPU: the products with weights, as
counted by the process, against PyTorch's own FLOP counter. `python -m tests.train.unread_models` prints the table."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flopsd.core.architecture import ArchitectureFlop, training_from
from flopsd.core.architecture.by_weights import weights_flop
from flopsd.core.declared_facts import facts_from
from tests.train.families import adapt
from tests.train.operator_cases import Counters
from tests.train.pytorch import torch

BATCH, LENGTH = 2, 48
_SMALL = {
    "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 128,
    "max_position_embeddings": 64, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
_DEBERTA = {
    **_SMALL, "relative_attention": True, "position_buckets": 8, "max_relative_positions": 64, "pos_att_type": ["c2p", "p2c"],
    "norm_rel_ebd": "layer_norm", "share_att_key": True,
}  # fmt: skip
_XLNET = {
    "d_model": 64, "n_layer": 4, "n_head": 4, "d_inner": 176, "vocab_size": 128, "dropout": 0.0,
    "summary_last_dropout": 0.0,
}  # fmt: skip
_ZAMBA2 = {
    "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 128,
    "attention_head_dim": 32, "num_key_value_heads": 4, "n_mamba_heads": 4, "mamba_d_state": 16, "mamba_ngroups": 1,
    "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "hybrid_layer_ids": [1, 3], "chunk_size": 16,
    "num_mem_blocks": 1, "adapter_rank": 8, "use_mem_rope": False,
}  # fmt: skip
_EXPERTS = {
    **_SMALL, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16,
}  # fmt: skip


def transformer(kind: str, family: str, config: Mapping[str, Any]) -> Callable[[], Any]:
    """Random weights; attention and experts as plain products, so that they are counted."""

    def build() -> Any:
        import transformers

        made = transformers.AutoConfig.for_model(family, **config)
        for how in (
            {"attn_implementation": "eager", "experts_implementation": "eager"},
            {"attn_implementation": "eager"},
        ):
            try:
                return getattr(transformers, kind).from_config(made, **how)
            except (TypeError, ValueError):
                continue
        return getattr(transformers, kind).from_config(made)

    return build


def own_mixture() -> Any:
    """Experts as separate modules, attention by `torch.nn.MultiheadAttention`, a shared table as head, no
    configuration."""

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(64, 4, batch_first=True)
            self.router = torch.nn.Linear(64, 4)
            self.experts = torch.nn.ModuleList(
                torch.nn.Sequential(torch.nn.Linear(64, 176), torch.nn.GELU(), torch.nn.Linear(176, 64))
                for _ in range(4)
            )

        def forward(self, x: Any) -> Any:
            x = x + self.attention(x, x, x, need_weights=True)[0]
            flat = x.flatten(0, 1)
            weights, index = self.router(flat).softmax(-1).topk(2)
            out = torch.zeros_like(flat)
            for number, expert in enumerate(self.experts):
                rows, place = torch.where(index == number)
                out = out.index_add(0, rows, expert(flat[rows]) * weights[rows, place, None])
            return x + out.view_as(x)

    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(128, 64)
            self.layers = torch.nn.ModuleList(Layer() for _ in range(3))
            self.head = torch.nn.Linear(64, 128, bias=False)
            self.head.weight = self.table.weight
            self.checkpointing: Any = None

        def forward(self, input_ids: Any, labels: Any) -> Any:
            x = self.table(input_ids)
            for layer in self.layers:
                x = layer(x) if self.checkpointing is None else self.checkpointing(layer, x)
            return torch.nn.functional.cross_entropy(self.head(x).flatten(0, 1), labels.flatten())

    return Own()


def convolutions() -> Any:
    """A custom image encoder, without any tokens."""

    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Sequential(
                torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3, stride=2),
                torch.nn.ReLU(), torch.nn.ConvTranspose2d(64, 16, 2), torch.nn.Flatten(), torch.nn.LazyLinear(10),
            )  # fmt: skip
            self.body(torch.zeros(1, 3, 16, 16))

        def forward(self, input_ids: Any, labels: Any) -> Any:
            images = torch.zeros(input_ids.shape[0], 3, 16, 16)
            return torch.nn.functional.cross_entropy(self.body(images), labels[:, 0] % 10)

    return Own()


MODELS: Mapping[str, tuple[Callable[[], Any], list[str] | None]] = {
    "albert": (transformer("AutoModelForMaskedLM", "albert", {**_SMALL, "embedding_size": 32}), ["query", "value"]),
    "deberta-v2": (transformer("AutoModelForMaskedLM", "deberta-v2", _DEBERTA), ["query_proj", "value_proj"]),
    "xlnet": (transformer("AutoModelForSequenceClassification", "xlnet", _XLNET), None),
    "zamba2": (transformer("AutoModelForCausalLM", "zamba2", _ZAMBA2), ["q_proj", "v_proj"]),
    "mixtral, unread": (transformer("AutoModelForCausalLM", "mixtral", _EXPERTS), ["q_proj", "v_proj"]),
    "experts as modules": (own_mixture, None),
    "convolutions": (convolutions, None),
}
WITHOUT_CHECKPOINTING = ("albert", "xlnet", "convolutions")
CHECKPOINTING: Mapping[str, dict[str, bool] | None] = {
    "none": None, "not reentrant": {"use_reentrant": False}, "reentrant": {"use_reentrant": True},
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One training step: PyTorch's count, the process's count for the weights, and the FLOP that follow from it."""

    counted: int
    work: Mapping[str, int]
    ours: ArchitectureFlop

    @property
    def ratio(self) -> float:
        return self.ours.executed.computed / self.counted


def step(name: str, method: str, checkpointing: str = "none") -> Step:
    from torch.utils.flop_counter import FlopCounterMode

    from flopsd.integrations.forward_counter import ForwardCounter

    torch.manual_seed(1)
    build, targets = MODELS[name]
    model = build()
    config = model.config.to_dict() if hasattr(model, "config") else {}
    if "unread" in name:
        model.config.a_field_that_flopsd_does_not_know = 1
    if method == "lora":
        assert targets is not None
        model = adapt(model, targets)
    model.train()
    _checkpoint(model, CHECKPOINTING[checkpointing])
    counters = Counters(current_phase=None)
    counter = ForwardCounter(counters)
    counter.attach(model)
    ids = torch.randint(4, 128, (BATCH, LENGTH))
    with FlopCounterMode(display=False) as mode, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = ids[:, 0] % 2 if name == "xlnet" else ids
        out = model(input_ids=ids, labels=labels)
        (out if isinstance(out, torch.Tensor) else out.loss).backward()
    counter.settle()
    facts: dict[str, Any] = {"method": method, "recomputation": "none" if checkpointing == "none" else "full"}
    work = dict(counters.work["train"])
    return Step(mode.get_total_flops(), work, weights_flop(config, work, training_from(facts_from(facts))))


def _checkpoint(model: Any, how: dict[str, bool] | None) -> None:
    if how is None:
        return
    if hasattr(model, "gradient_checkpointing_enable"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
    else:
        from functools import partial

        from torch.utils.checkpoint import checkpoint

        model.checkpointing = partial(checkpoint, **how)


def cases() -> Iterator[tuple[str, str, str]]:
    """Model, method and checkpointing, where the model's class has that."""
    for name, (_, targets) in MODELS.items():
        for method in ("full", "lora") if targets else ("full",):
            for checkpointing in CHECKPOINTING if name not in WITHOUT_CHECKPOINTING else ("none",):
                if (name, method, checkpointing) != ("deberta-v2", "full", "reentrant"):  # it fails in transformers
                    yield name, method, checkpointing


def lines() -> Iterator[str]:
    """The table in Markdown."""
    yield "| model | method | checkpointing | FLOP by PyTorch | computed | low to high | high / low |"
    yield "|---|---|---|---|---|---|---|"
    for name, method, checkpointing in cases():
        found = step(name, method, checkpointing)
        ends, true = found.ours.executed, found.counted
        yield (
            f"| {name} | {method} | {checkpointing} | {true:,} | {found.ratio:.3f} | {ends.low / true:.3f} to "
            f"{ends.high / true:.3f} | {ends.high / ends.low:.2f} |"
        )


if __name__ == "__main__":
    for line in lines():
        print(line, flush=True)
