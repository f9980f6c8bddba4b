"""Numbers of parameters of a model and of its adapters."""

from __future__ import annotations

from flopsd.core.architecture.model import Attention, Model, Part, Recurrence
from flopsd.core.architecture.training import Lora, Trained
from flopsd.core.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Parameters:
    """Exact counts, with tied weights once. `embedding`: tables of tokens and positions. `head`: what the head adds to
    them. `active`: parameters that a token passes in a mixture of experts; otherwise the total."""

    total: int
    embedding: int
    head: int
    active: int


def parameters(model: Model) -> Parameters:
    """The parameters of the base model, without adapters."""
    if (size := model.bare) is not None:
        return Parameters(size.total, size.embedding or 0, 0, size.total if size.active is None else size.active)
    embedding = sum(table.parameters for table in model.embeddings)
    others = (
        model.others + model.constants + sum(block.others + sum(map(_beside, block.parts)) for block in model.blocks)
    )
    linears = model.linears()
    total = embedding + others + sum(linear.parameters for linear in linears)
    return Parameters(
        total=total,
        embedding=embedding,
        head=sum(linear.parameters for linear in model.heads),
        active=total - sum(one.parameters * (one.held - one.used) // one.held for one in linears),
    )


def _beside(part: Part) -> int:
    """Parameters of a part that are not in its matrices."""
    if isinstance(part, Recurrence):
        return part.others + (part.convolution.parameters if part.convolution else 0)
    return part.others if isinstance(part, Attention) else 0


def adapters(model: Model, lora: Lora, *, ambiguous: bool = False) -> int:
    """Trainable parameters as PEFT counts them: r(in + out) for each adapter, and copies of modules_to_save.
    `ambiguous`: adapters also on routers and on each expert, as before transformers 5."""
    trained = Trained(lora=lora, ambiguous=ambiguous)
    heads = set(map(id, model.heads))
    count = sum(table.parameters for table in model.embeddings if trained.weight(table))
    for linear in model.linears():
        rank = trained.rank(linear, id(linear) in heads)
        count += rank * (linear.inputs + linear.outputs) * linear.held
        if trained.weight(linear):
            count += linear.weights + (linear.outputs * linear.held if linear.bias else 0)
    return count
