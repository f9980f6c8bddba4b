"""`python -m tests.train.table`: what flopsd computes against what PyTorch's FlopCounterMode counts, by family."""

from collections.abc import Iterator

from tests.train.families import FAMILIES, step

CASES = (("full", "none"), ("full", "full"), ("lora", "none"), ("lora", "full"))


def lines() -> Iterator[str]:
    """The table in Markdown: for each family and way to train it the FLOP that PyTorch counted, and ours to theirs."""
    yield "| family | " + " | ".join(f"{method}, {_WORDS[again]}" for method, again in CASES) + " |"
    yield "|---" * (len(CASES) + 1) + "|"
    for name in FAMILIES:
        steps = [step(name, method, again) for method, again in CASES]
        yield f"| {name} | " + " | ".join(f"{one.counted:,}: {one.ratio:.6f}" for one in steps) + " |"


_WORDS = {"none": "no checkpointing", "full": "checkpointing"}

if __name__ == "__main__":
    for line in lines():
        print(line)
