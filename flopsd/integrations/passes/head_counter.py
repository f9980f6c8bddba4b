"""Count the tokens for which a forward pass computes the head: see `flopsd.core.architecture.head_work`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

_IGNORED_LABEL = -100
_COMPACTS = ("cuda", "xpu")  # devices on which TRL's fused loss skips tokens without a label
Defer = Callable[[str, Any], None]


def backbone_of(model: Any) -> Any:
    """The part of a language model before its head, which some losses call on its own; None if it has no such part."""
    backbone = getattr(model, "base_model", None)
    try:
        embeddings = model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return (
        backbone if isinstance(backbone, torch.nn.Module) and backbone is not model and embeddings is not None else None
    )


def head_work(tokens: int, rows: int, named: Mapping[str, Any], defer: Defer) -> dict[str, int]:
    """The counters of a pass of `tokens` in `rows` rows. `defer` takes a counter that depends on the content of
    tensors, and its value as a tensor of one element."""
    if named.get("fused_lm_head"):
        return _fused(tokens, named, defer)
    keep = named.get("logits_to_keep", named.get("num_logits_to_keep"))
    kept = keep.numel() if isinstance(keep, torch.Tensor) else int(keep or 0)
    without = tokens - min(tokens, rows * kept) if kept or isinstance(keep, torch.Tensor) else 0
    return {"headless_tokens": without} if without else {}


def _fused(tokens: int, named: Mapping[str, Any], defer: Defer) -> dict[str, int]:
    """TRL's fused loss: it computes no logits for the last token of a row, unless the labels are shifted already."""
    shifted = named.get("shift_labels")
    labels = named["labels"][..., 1:] if shifted is None else shifted
    without = tokens - labels.numel()
    if labels.device.type not in _COMPACTS:
        return {"headless_tokens": without, "fused_head_tokens": labels.numel()}
    defer("fused_head_tokens", (labels != _IGNORED_LABEL).sum())
    defer("unlabelled_tokens", (labels == _IGNORED_LABEL).sum())
    return {"headless_tokens": without}
