"""Garbage collection, which a merge needs rarely."""

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from flopsd.attestation.merge import readers
from flopsd.attestation.signed_statement import open_ledger
from flopsd.attestation.signing.public_key import load_public
from flopsd.attestation.verify import verify_ledger
from flopsd.settings.data_files import Tables
from flopsd.system.process_memory import collect_rarely
from tests.support.paths import VECTORS


@pytest.fixture(autouse=True)
def _threshold() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_garbage_is_collected_rarely_and_still_is() -> None:
    collect_rarely()
    assert gc.isenabled()
    assert 10_000 < gc.get_threshold()[0] < 100_000


def test_verifying_a_ledger_leaves_nothing_for_the_collector() -> None:
    folder = VECTORS / "valid" / "activity-and-gaps"
    keys = [load_public(str(folder / "ledger.pub"))]
    tables = Tables(peaks_files=[str(VECTORS / "peaks.yaml")])
    verify_ledger(open_ledger(folder / "ledger.json", keys), tables=tables)  # fills caches
    gc.collect()
    gc.disable()
    try:
        verify_ledger(open_ledger(folder / "ledger.json", keys), tables=tables)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_reading_process_collects_rarely_from_its_start() -> None:
    start = readers._START.format(path=sys.path)
    begin, end = start.split("from flopsd.attestation", 1)
    assert end.splitlines()[0] == ".merge.readers import serve"
    printed = f"{begin}import gc; print(gc.get_threshold()[0])"
    done = subprocess.run([sys.executable, "-c", printed], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 10_000
