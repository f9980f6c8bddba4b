"""Whatever is done to a ledger and its journal, only the sealed content is ever accepted: every byte changed, every
cut, and a sample of each family of `make mutate-ledgers`."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from flopsd.core.envelope import parse_envelope
from tests.fuzz.ledgers import VERIFIED, Bench, judge
from tests.fuzz.mutants import FAMILIES, metered, of_pair
from tests.support.extent import Extent, sampled
from tests.support.tamper import Material, Pair

SLICE = 12  # mutants of each family; `make mutate-ledgers` has thousands
PATTERNS = (0x01, 0x04, 0x10, 0x20, 0x80, 0xFF)


@pytest.fixture(scope="module")
def sealed() -> Material:
    return metered()


class Campaign:
    """Passes pairs to the verifier and counts the outcomes; fails if one is accepted with other content."""

    def __init__(self, sealed: Material, folder: Path) -> None:
        self.sealed, self.bench = sealed, Bench(folder)
        self.edits = self.same = self.harmless = self.earlier = 0

    def run(self, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            self.edits += 1
            one = of_pair(pair, self.sealed, "sealed")
            code, out = self.bench.verify(self.bench.lay(one))
            if code != VERIFIED:
                assert pair != self.sealed.honest, f"the honest pair is refused: {out}"
                continue
            assert self.bench.wrong(one, {}) == ("", False)
            is_older = parse_envelope(pair.ledger).payload != parse_envelope(self.sealed.honest.ledger).payload
            self.earlier += is_older
            self.same += pair == self.sealed.honest
            self.harmless += not is_older and pair != self.sealed.honest


@pytest.fixture
def campaign(sealed: Material, tmp_path: Path) -> Campaign:
    return Campaign(sealed, tmp_path)


@pytest.mark.long
@sampled(150)
@pytest.mark.parametrize("pattern", PATTERNS, ids=hex)
def test_every_byte_of_a_ledger_changed(campaign: Campaign, sealed: Material, pattern: int, extent: Extent) -> None:
    good = sealed.honest.ledger
    places = extent.of(range(len(good)))
    campaign.run(Pair(good[:at] + bytes([good[at] ^ pattern]) + good[at + 1 :], sealed.honest.journal) for at in places)
    assert campaign.edits == len(places)
    assert campaign.same == 0
    assert campaign.harmless < 150  # the keyid hint, white space, spare bits of base64


@pytest.mark.long
@sampled(60)
@pytest.mark.parametrize("pattern", PATTERNS[::2], ids=hex)
def test_every_byte_of_a_journal_changed(campaign: Campaign, sealed: Material, pattern: int, extent: Extent) -> None:
    good = sealed.honest.journal
    places = extent.of(range(len(good)))
    campaign.run(Pair(sealed.honest.ledger, good[:at] + bytes([good[at] ^ pattern]) + good[at + 1 :]) for at in places)
    assert (campaign.edits, campaign.same, campaign.harmless) == (len(places), 0, 0)


@pytest.mark.long
@sampled(60)
def test_cut_at_every_byte_and_every_line(campaign: Campaign, sealed: Material, extent: Extent) -> None:
    ledger, journal = sealed.honest.ledger, sealed.honest.journal
    ends = [at + 1 for at, byte in enumerate(journal) if byte == 10]
    campaign.run(Pair(ledger, journal[:end]) for end in (0, *ends[:-1]))
    campaign.run(Pair(ledger, journal[begin:]) for begin in ends)
    campaign.run(Pair(ledger, journal[:end]) for end in extent.of(range(len(journal))))
    assert campaign.harmless == 0
    campaign.run(Pair(ledger[:end], journal) for end in extent.of(range(len(ledger))))
    assert campaign.harmless == 1  # the newline after the envelope


def test_files_of_different_runs_do_not_mix(campaign: Campaign, sealed: Material) -> None:
    pairs = (sealed.honest, *sealed.others)
    campaign.run(Pair(a.ledger, b.journal) for a in pairs for b in pairs)
    assert (campaign.edits, campaign.same, campaign.harmless, campaign.earlier) == (16, 1, 0, 1)


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_of_the_campaign_finds_no_forgery_or_crash(family: str) -> None:
    """Time and memory of a mutant are tested by the campaign: here other tests run at the same time."""
    found = judge(family, range(SLICE))
    assert [fault for fault in found.faults if ": slow: " not in fault and ": large: " not in fault] == []
    assert 0 < found.believed + len(found.reasons) <= found.mutants == SLICE
