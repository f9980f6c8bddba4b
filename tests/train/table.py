"""`python -m tests.train.table`: what flopsd computes against what PyTorch's FlopCounterMode counts, by family."""

from __future__ import annotations

from collections.abc import Iterator

from tests.train.families import FAMILIES, step

CASES = (("full", "none"), ("full", "full"), ("lora", "none"), ("lora", "full"))


def lines() -> Iterator[str]:
    """The table in Markdown: one row a family, one column a way to train it."""
    yield "| family | " + " | ".join(f"{method}, {_WORDS[again]}" for method, again in CASES) + " |"
    yield "|---" * (len(CASES) + 1) + "|"
    for name in FAMILIES:
        ratios = [step(name, method, again).ratio for method, again in CASES]
        yield f"| {name} | " + " | ".join(f"{ratio:.4f}" for ratio in ratios) + " |"


_WORDS = {"none": "no checkpointing", "full": "checkpointing"}

if __name__ == "__main__":
    for line in lines():
        print(line)
