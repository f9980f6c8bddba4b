"""`python -m tests.train.table`: flopsd's figures compared with PyTorch's FlopCounterMode, by family."""

from collections.abc import Iterator

from tests.train.families import FAMILIES, step

CASES = (("full", "none"), ("full", "full"), ("lora", "none"), ("lora", "full"))


def lines() -> Iterator[str]:
    """The table in Markdown: for each family and training method PyTorch's count, and the ratio of ours to it."""
    yield "| family | " + " | ".join(f"{method}, {_WORDS[again]}" for method, again in CASES) + " |"
    yield "|---" * (len(CASES) + 1) + "|"
    for name in FAMILIES:
        steps = [step(name, method, again) for method, again in CASES]
        yield f"| {name} | " + " | ".join(f"{one.counted:,}: {one.ratio:.6f}" for one in steps) + " |"


_WORDS = {"none": "no checkpointing", "full": "checkpointing"}

if __name__ == "__main__":
    for line in lines():
        print(line)
