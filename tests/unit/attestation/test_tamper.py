"""The tamper campaign: whatever is done to a ledger and its journal, nothing but the sealed content is ever accepted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from flopsd.attestation.signing.keys import load_public
from flopsd.attestation.verify import open_ledger, verify_ledger
from flopsd.core.envelope import parse_envelope
from flopsd.errors import NotVerifiedError
from flopsd.settings.data_files import Tables
from tests.support.extent import Extent, sampled
from tests.support.tamper import Material, Pair, edited, forged, material, misspoken, reason_class

PATTERNS = (0x01, 0x04, 0x10, 0x20, 0x80, 0xFF)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return material(tmp_path_factory.mktemp("material"))


class Campaign:
    """Gives pairs to the verifier and counts; fails on one that is believed with other content."""

    def __init__(self, sealed: Material, folder: Path) -> None:
        self.sealed, self.ledger, self.journal = sealed, folder / "ledger.json", folder / "ledger.journal.jsonl"
        self.keys, self.tables = [load_public(str(sealed.public_key))], Tables()
        self.payload = parse_envelope(sealed.honest.ledger).payload
        self.older = parse_envelope(sealed.others[0].ledger).payload  # an earlier seal of the very same journal
        self.edits, self.same, self.harmless, self.reasons = 0, 0, 0, Counter[str]()
        self.earlier = 0

    def run(self, pairs: Iterable[Pair], *, with_the_key: bool = False) -> None:
        """What the key's holder makes is another ledger; that must still begin as the log says."""
        last = Pair(b"", b"")
        self.ledger.write_bytes(b"")
        self.journal.write_bytes(b"")
        for pair in pairs:
            self.edits += 1
            for path, data, before in zip((self.ledger, self.journal), pair, last, strict=True):
                if data != before:
                    path.write_bytes(data)
            last = pair
            try:
                verify_ledger(open_ledger(self.ledger, self.keys), anchors=[self.sealed.log], tables=self.tables)
            except NotVerifiedError as fault:
                assert pair != self.sealed.honest, f"the honest pair is refused: {fault}"
                self.reasons[reason_class(str(fault))] += 1
                continue
            if with_the_key:
                held = self.sealed.anchored_bytes
                assert pair.journal[:held] == self.sealed.honest.journal[:held], "the log is contradicted"
                continue
            payload = parse_envelope(pair.ledger).payload
            assert payload in (self.payload, self.older), "another payload is believed"
            if payload == self.payload:
                assert pair.journal == self.sealed.honest.journal, "another journal is believed"
            else:  # the earlier seal says nothing of what comes behind its part
                assert self.sealed.honest.journal.startswith(pair.journal), "another journal is believed"
            self.earlier += payload == self.older
            self.same += pair == self.sealed.honest
            self.harmless += payload == self.payload and pair != self.sealed.honest


@pytest.fixture
def campaign(sealed: Material, tmp_path: Path) -> Campaign:
    return Campaign(sealed, tmp_path)


@sampled(50)
@pytest.mark.parametrize("pattern", PATTERNS, ids=hex)
def test_every_byte_of_a_ledger_changed(campaign: Campaign, sealed: Material, pattern: int, extent: Extent) -> None:
    good = sealed.honest.ledger
    places = extent.of(range(len(good)))
    campaign.run(Pair(good[:at] + bytes([good[at] ^ pattern]) + good[at + 1 :], sealed.honest.journal) for at in places)
    assert campaign.edits == len(places)
    assert campaign.same == 0
    assert campaign.harmless < 150  # the keyid hint, white space, spare bits of base64


@sampled(20)
@pytest.mark.parametrize("pattern", PATTERNS[::2], ids=hex)
def test_every_byte_of_a_journal_changed(campaign: Campaign, sealed: Material, pattern: int, extent: Extent) -> None:
    good = sealed.honest.journal
    places = extent.of(range(len(good)))
    campaign.run(Pair(sealed.honest.ledger, good[:at] + bytes([good[at] ^ pattern]) + good[at + 1 :]) for at in places)
    assert (campaign.edits, campaign.same, campaign.harmless) == (len(places), 0, 0)


@sampled(20)
def test_cut_at_every_byte_and_every_line(campaign: Campaign, sealed: Material, extent: Extent) -> None:
    ledger, journal = sealed.honest.ledger, sealed.honest.journal
    ends = [at + 1 for at, byte in enumerate(journal) if byte == 10]
    campaign.run(Pair(ledger, journal[:end]) for end in (0, *ends[:-1]))
    campaign.run(Pair(ledger, journal[begin:]) for begin in ends)
    campaign.run(Pair(ledger, journal[:end]) for end in extent.of(range(len(journal))))
    assert campaign.harmless == 0
    campaign.run(Pair(ledger[:end], journal) for end in extent.of(range(len(ledger))))
    assert campaign.harmless == 1  # the newline behind the envelope


def test_files_of_different_runs_do_not_mix(campaign: Campaign, sealed: Material) -> None:
    pairs = (sealed.honest, *sealed.others)
    campaign.run(Pair(a.ledger, b.journal) for a in pairs for b in pairs)
    assert (campaign.edits, campaign.same, campaign.harmless, campaign.earlier) == (16, 1, 0, 1)


# Ten thousand edits in sixteen parts, for workers to share.
@pytest.mark.parametrize(
    ("make", "seed"),
    [
        pytest.param(make, seed, marks=[pytest.mark.exhaustive] if seed else [])
        for make, seeds in ((edited, 10), (forged, 4), (misspoken, 2))
        for seed in range(seeds)
    ],
)
def test_random_edits(campaign: Campaign, sealed: Material, make: Callable[[random.Random, Material], Pair], seed: int) -> None:  # fmt: skip
    """`edited` is done without the key, `forged` and `misspoken` with it: there only the log is out of reach."""
    rng = random.Random(f"{make.__name__} {seed}")
    pairs = (make(rng, sealed) for _ in range(1000 if make is edited else 250))
    campaign.run(pairs, with_the_key=make is not edited)
    assert sum(campaign.reasons.values()) > campaign.edits * 0.85
    assert len(campaign.reasons) > 5
