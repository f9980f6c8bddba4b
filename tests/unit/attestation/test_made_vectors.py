"""The published vectors match the output of `python -m tests.make_vectors`, and the schema's answer to each matches
its expectation."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.envelope import parse_envelope
from tests.make_vectors.files import all_vectors, makers, validator, write
from tests.support.extent import Extent, sampled
from tests.support.story import VECTORS
from tests.support.vector_arguments import published

pytestmark = pytest.mark.maintainer


@pytest.mark.long
@sampled(4)
def test_the_vectors_match_the_output_of_this_flopsd(extent: Extent) -> None:
    """Goldens: a change of the format appears here. FLOPSD_UPDATE_GOLDEN=1 renews them. The sample makes a fourth of
    the tables."""
    is_update = os.environ.get("FLOPSD_UPDATE_GOLDEN") == "1"
    is_whole = extent.step == 1 or is_update
    made = all_vectors() if is_whole else {n: data for make in extent.of(makers()) for n, data in make().items()}
    if is_update:
        write(made)
    files = [path for kind in ("valid", "invalid", "merged") for path in (VECTORS / kind).rglob("*") if path.is_file()]
    found = {str(path.relative_to(VECTORS)): path for path in files}
    there = {name: path for name, path in found.items() if path.name != "expected.json" or name in made}
    assert made.keys() <= there.keys()
    assert made.keys() == there.keys() or not is_whole
    for name, data in made.items():
        is_made = there[name].read_bytes() == data or json.loads(data) == _without_schema(there[name])
        assert is_made, f"{name} is not what this flopsd writes"


def _without_schema(path: Path) -> Any:
    """An `expected.json` without the schema's answer, which has its own test."""
    return {**json.loads(path.read_bytes()), "schema": None} if path.name == "expected.json" else None


@pytest.mark.long
@sampled(8)
def test_the_schema_answers_each_payload_as_expected(extent: Extent) -> None:
    for vector in extent.of(published()):
        how = vector.expected["schema"]
        assert how in ("accepts", "refuses", "not applicable")
        payload = (
            parse_envelope((vector.folder / "ledger.json").read_bytes()).payload if how != "not applicable" else b""
        )
        if payload:
            faults = [
                f"{fault.json_path}: {fault.message[:200]}" for fault in validator().iter_errors(json.loads(payload))
            ]
            assert bool(faults) == (how == "refuses"), (vector.name, faults)
