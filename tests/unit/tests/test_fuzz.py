"""The kept corpus of the fuzzer, without the fuzzer: every input that once reached new code satisfies its target."""

import pytest

from flopsd.attestation.evidence import rfc3161
from tests.fuzz.corpus import CORPUS, kept, steps
from tests.fuzz.targets import TARGETS, genuine_times
from tests.support.authorities import VECTORS
from tests.support.extent import Extent, sampled


@sampled(30)
@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_and_kept_input_satisfies_its_target(name: str, extent: Extent) -> None:
    target = TARGETS[name]
    seeds = list(target.seeds())
    for data in (*extent.of(seeds), *(path.read_bytes() for path in kept(name))):
        target.run(data)
    assert len(steps(target.run, seeds[0])) > 10, "the target does not reach the code that it is for"


def test_the_corpus_is_small_and_of_known_targets() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} <= TARGETS.keys()
    assert 0 < len(files) <= 250
    assert sum(path.stat().st_size for path in files) < 500_000


def test_a_target_raises_where_a_property_is_violated() -> None:
    """Here: a valid timestamp that is none of the genuine ones."""
    token = (VECTORS / "rfc3161" / "test_tsa" / "response.tsr").read_bytes()
    genuine_times().discard(rfc3161.time_of_token(token))
    try:
        with pytest.raises(AssertionError):
            TARGETS["timestamp"].run(token)
    finally:
        genuine_times.cache_clear()
