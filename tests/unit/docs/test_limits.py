"""The limits that a page states are the limits: what is at one is taken by every implementation, what is above by none."""

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
def test_a_limit_is_the_one_that_its_page_states(page: str, words: str, limit: int, stated: int) -> None:
    assert words in " ".join((ROOT / "docs" / f"{page}.md").read_text().split())
    assert limit == stated
