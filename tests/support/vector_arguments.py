"""The published vectors, and the arguments that verify a vector from any folder."""

from functools import cache
from pathlib import Path

from conformance.vectors import Vector, vectors_in
from tests.support.story import VECTORS

# Vectors of models that the pages do not define; a verifier may omit some of them ([SHAPE-4]).
NOT_ON_THE_PAGE = (
    "valid/model-crossed-tokens", "valid/model-lora-of-another-module", "valid/model-lora-that-saves-modules",
    "valid/model-in-four-levels", "valid/model-of-another-family", "valid/model-plain-beside-another-family", "valid/model-with-weight-passes", "valid/model-of-two-families",
    "valid/nearly-plain-", "valid/declared-evaluation-that-trains-on",
)  # fmt: skip


@cache
def published() -> list[Vector]:
    return vectors_in(VECTORS)


def arguments_of(vector: Vector, root: Path = VECTORS) -> list[str]:
    """`root` has the tables."""
    files = {"../../peaks.yaml": root / "peaks.yaml", "../../policy.yaml": root / "policy.yaml"}

    def is_file(word: str) -> bool:
        return word.endswith((".json", ".pub", ".yaml")) or word == "children"

    return [
        str(files.get(word, vector.folder / word)) if is_file(word) else word for word in vector.expected["arguments"]
    ]
