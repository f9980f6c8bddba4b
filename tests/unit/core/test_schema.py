"""The JSON Schema: it accepts sealed ledgers and added members, and no document without a member or with a malformed
count."""

import copy
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.declarations import Method, Phase
from flopsd.core.ledger.statement import PREDICATE_TYPE, STATEMENT_TYPE
from flopsd.core.model import UNDECLARED_PHASE, Evidence, GapReason, Pipe
from tests.make_vectors.files import validator
from tests.second_implementation.arithmetic import payload_of
from tests.support.extent import Extent, sampled
from tests.support.jobs import Nodes, sagemaker
from tests.support.paths import SCHEMA as SCHEMA_FILE
from tests.support.story import VECTORS

SCHEMA = json.loads(SCHEMA_FILE.read_bytes())
MAPS = re.compile(
    "byEvidence|marginPpm|gapSecondsByReason|counters|smCycles|margins|sources|digest|sharesPpm|byPhase|facts|work"
)
# Texts that may look like counts.
TEXTS = ("serial", "attempt", "attempts", "id", "name")


def accepts(document: Any) -> bool:
    return validator().is_valid(document)


@lru_cache(maxsize=32)
def _payload(case: Path) -> dict[str, Any]:
    return payload_of(case / "ledger.json")


def payload(case: str) -> dict[str, Any]:
    return copy.deepcopy(_payload(VECTORS / "valid" / case))


def test_the_names_in_the_schema_match_those_in_the_code() -> None:
    definitions = SCHEMA["$defs"]
    assert definitions["evidenceName"]["enum"] == [e.value for e in Evidence]
    assert definitions["pipe"]["enum"] == [p.value for p in Pipe]
    assert definitions["phase"]["enum"] == [*(p.value for p in Phase), UNDECLARED_PHASE]
    assert definitions["methodName"]["enum"] == [*(m.value for m in Method), None]
    assert definitions["gapReason"]["enum"] == [r.value for r in GapReason]
    assert SCHEMA["properties"]["_type"]["const"] == STATEMENT_TYPE
    assert SCHEMA["properties"]["predicateType"]["const"] == PREDICATE_TYPE


def objects(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all objects with fixed members. Maps by evidence, reason, source and counter have none."""
    if isinstance(found, dict):
        if not path or (
            not MAPS.fullmatch(str(path[-1])) and not {"sources", "facts"} & set(path) and path[-2:-1] != ("work",)
        ):
            yield path
        for name, value in found.items():
            yield from objects(value, (*path, name))
    elif isinstance(found, list):
        for at, value in enumerate(found):
            yield from objects(value, (*path, at))


def leaves(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(found, dict | list):
        for at, value in found.items() if isinstance(found, dict) else enumerate(found):
            yield from leaves(value, (*path, at))
    else:
        yield path


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


def members_lacked(document: Any, path: tuple[Any, ...]) -> int:
    """The number of members of the object at `path`, after checking that each is required and that others may be
    added."""
    there = at(document, path)
    there["memberOfALaterVersion"] = {"x": [1]}
    assert accepts(document), f"{path} takes no further member"
    del there["memberOfALaterVersion"]
    for name in list(there):
        value = there.pop(name)
        assert not accepts(document), f"{path} may lack {name}"
        there[name] = value
    return len(there)


@pytest.mark.long
@sampled(50)
@pytest.mark.parametrize(
    "case", ["activity-and-gaps", "cycles-recovered", "recovered-tail", "replay", "declared-phases"]
)
def test_no_member_may_be_missing_and_any_may_be_added(case: str, extent: Extent) -> None:
    document, removed = payload(case), 0
    for path in extent.of(list(objects(document))):
        removed += members_lacked(document, path)
    assert removed > 80 // extent.step
    assert accepts(document)


# Of the largest ledger, only the parts that no other has.
ITS_OWN = ("declared", "totals", "findings", "reconciliation")


def bend(document: Any, path: tuple[Any, ...]) -> None:
    """Check that ten malformed variants of the count at `path` are refused."""
    there, value = at(document, path[:-1]), at(document, path)
    beside = (value + "\n", "0" + value, "+" + value, value + " ", float(value), int(float(value)))
    for other in (*beside, True, "\u0661", "1e3", "NaN"):
        there[path[-1]] = other
        assert not accepts(document), f"{path} may be {other!r}"
    there[path[-1]] = value


def is_count(value: Any, name: Any) -> bool:
    return isinstance(value, str) and name not in TEXTS and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value) is not None


@pytest.mark.long
@sampled(50)
@pytest.mark.parametrize("case", ["activity-and-gaps", "cycles-recovered", "neuron-count", "declared-phases"])
def test_no_count_may_be_malformed(case: str, extent: Extent) -> None:
    document, bent = payload(case), 0
    for path in extent.of(list(leaves(document))):
        if case == "declared-phases" and not set(path[1:2]) & set(ITS_OWN):
            continue
        if is_count(at(document, path), next((step for step in reversed(path) if isinstance(step, str)), "")):
            bend(document, path)
            bent += 1
    assert bent > 20 // extent.step


def merged(folder: Path, kind: str) -> dict[str, Any]:
    nodes = Nodes(folder)
    job = nodes.merge(nodes.ledger(sagemaker(0)), nodes.ledger(sagemaker(1))).ledger
    if kind == "lineage":
        job = nodes.merge(job, kind="lineage", lineage="m", ledger=folder / "lineage.json").ledger
    return payload_of(job)


@pytest.mark.long
@sampled(160)
@pytest.mark.parametrize("kind", ["job", "lineage"])
def test_a_merged_ledger_has_its_own_schema(tmp_path: Path, kind: str, extent: Extent) -> None:
    document, count = merged(tmp_path, kind), 0
    assert document["predicate"]["kind"] == kind
    faults = list(validator().iter_errors(document))
    assert not faults, faults[0].message[:300]
    for path in extent.of(list(objects(document))):
        count += members_lacked(document, path)
    for path in extent.of(list(leaves(document))):
        if is_count(at(document, path), path[-1]):
            bend(document, path)
            count += 6
    assert count > 200 // extent.step
    document["predicate"]["children"] = []
    assert not accepts(document)


@pytest.mark.long
def test_the_schema_accepts_extensions_where_it_may_grow() -> None:
    node = payload("activity-and-gaps")
    item = {
        "type": "x-oracle", "collectedAt": "2026-11-25T14:00:00Z", "state": "present", "data": {"y": 1}, "reason": None,
    }  # fmt: skip
    node["predicate"]["evidence"] = [item]
    assert accepts(node)
    node["predicate"]["evidence"] = [{**item, "proves": "all"}]
    assert not accepts(node)
    node["predicate"]["evidence"] = ["text"]
    assert not accepts(node)
    rumour = payload("activity-and-gaps")
    rumour["predicate"]["kind"] = "rumour"
    assert not accepts(rumour)
