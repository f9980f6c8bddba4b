"""The limits that a page states are the real limits: every implementation accepts a value at the limit, and none
accepts one above it."""

import re
from collections.abc import Iterator
from fractions import Fraction
from importlib import import_module
from typing import Any

import pytest

from flopsd.attestation.evidence.check import MAX_ITEMS
from flopsd.core.architecture.config_fields import MAX_SIZE
from flopsd.core.companions import MAX_COMPANION_BYTES
from flopsd.core.declarations import MAX_COUNT
from flopsd.core.envelope import MAX_ENVELOPE_BYTES, MAX_SIGNATURES
from flopsd.core.ledger.devices import MAX_LISTED_GAPS
from flopsd.core.ledger.merged_completeness import MOST_NODES
from flopsd.core.session_protocol import MAX_LINE_BYTES as MAX_MESSAGE_BYTES
from flopsd.core.untrusted import MAX_DEPTH, MAX_VALUES
from flopsd.journal.framing import MAX_LINE_BYTES
from tests.support.limit_constants import CONSTANTS
from tests.support.paths import ROOT

KIB, MIB = 1024, 1024**2


@pytest.mark.parametrize(
    ("page", "words", "limit", "stated"),
    [
        ("ledger-format", "[ENV-5] The envelope has at most 64 MiB.", MAX_ENVELOPE_BYTES, 64 * MIB),
        ("ledger-format", "[ENV-8] There are at most 64 signatures.", MAX_SIGNATURES, 64),
        ("ledger-format", "[JSON-7] more than 100 objects and lists in each other", MAX_DEPTH, 100),
        ("ledger-format", "occur more than 4,000,000 times", MAX_VALUES, 4_000_000),
        ("ledger-format", "Companions have at most 1 MiB.", MAX_COMPANION_BYTES, MIB),
        ("ledger-format", "[NODE-59] `evidence[]`, at most 64:", MAX_ITEMS, 64),
        ("ledger-format", "[NODE-47] `gaps`: the 1000 longest", MAX_LISTED_GAPS, 1000),
        ("ledger-format", "There are at most 100000 nodes", MOST_NODES, 100_000),
        ("ledger-journal", "A line has at most 4 MiB", MAX_LINE_BYTES, 4 * MIB),
        ("ledger-journal", "A counter is at most 10^30.", MAX_COUNT, 10**30),
        ("ledger-models", "integers from 1 to 10^9", MAX_SIZE, 10**9),
        ("training-process", "at most 64 KiB, each with", MAX_MESSAGE_BYTES, 64 * KIB),
    ],
)
def test_a_limit_equals_the_one_on_its_page(page: str, words: str, limit: int, stated: int) -> None:
    assert words in " ".join((ROOT / "docs" / f"{page}.md").read_text().split())
    assert limit == stated


UNITS: dict[str, int | Fraction] = {"%": Fraction(1, 100), "ms": Fraction(1, 1000), "s": 1, "min": 60, "h": 3600}
UNITS |= {"kB": 1000, "MB": 10**6, "KiB": KIB, "MiB": MIB, "GiB": KIB**3}
# By a word of a constant's name: how many of its units make one unit of the page.
SCALES = {"NS": 10**9, "MS": 1000, "PPM": 10**6, "PERCENT": 100}


def figures(cell: str) -> Iterator[Fraction]:
    for number, power, unit in re.findall(r"(\d[\d,.]*)(?:\^(\d+))?(?: ?(%|[A-Za-z]+))?", cell):
        figure = Fraction(number.replace(",", "")) * UNITS.get(unit, 1)
        yield figure if not power else Fraction(int(figure) ** int(power))


def leaves(value: Any) -> Iterator[Fraction]:
    if isinstance(value, int | float):
        yield Fraction(str(value))
    else:
        for one in value.values() if isinstance(value, dict) else value:
            yield from leaves(one)


def test_each_value_on_the_limits_page_equals_its_constant() -> None:
    sections = (ROOT / "docs" / "limits.md").read_text().split("\n## ")[1:]
    assert {section.partition("\n")[0] for section in sections} == set(CONSTANTS)
    for section in sections:
        rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| ")][1:]
        on_page = [(what, figure) for what, limit in rows for figure in figures(limit)]
        in_code = [
            (f"{module}.{name}", figure / next((SCALES[word] for word in name.split("_") if word in SCALES), 1))
            for module, names in re.findall(
                r"^ *(flopsd\.\S+): (.*)$", CONSTANTS[section.partition("\n")[0]], re.MULTILINE
            )
            for name in names.split(", ")
            for figure in leaves(getattr(import_module(module), name))
        ]
        wrong = [(*one, *other) for one, other in zip(on_page, in_code, strict=False) if one[1] != other[1]]
        assert not wrong, wrong
        assert len(on_page) == len(in_code), section
