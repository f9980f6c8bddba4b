"""Implementations exchange codes: the table of words, the schema and the code have the same codes."""

import json
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.envelope import parse_envelope
from flopsd.core.notes import note, note_from
from flopsd.settings.words import ABSENT, TABLE, say, table
from tests.support.paths import ROOT, SCHEMA, VECTORS

SOURCES = "".join(path.read_text() for path in sorted((ROOT / "flopsd").rglob("*.py")))
CODE = re.compile(r"[a-z0-9_/]+|[A-Z_]+")


def test_the_schema_has_the_codes_of_the_table() -> None:
    listed = {member: known["enum"] for member, known in json.loads(SCHEMA.read_bytes())["$defs"]["words"].items()}
    assert listed == {member: [*words] for member, words in table().items()}


def test_flopsd_writes_every_code_of_the_table() -> None:
    assert json.loads(TABLE.read_bytes())["version"] == 1
    for member, words in table().items():
        for code in words:
            assert CODE.fullmatch(code), f"{member}: {code}"
            assert f'"{code}"' in SOURCES or code in MADE_OF_PARTS, f"{member}: {code}"


MADE_OF_PARTS = {f"full_{method}" for method in ("pretraining", "full", "lora", "qlora")} | {
    f"base_flop_{kind}" for kind in ("known", "estimated", "unknown")
}


def test_words_name_their_parameters_and_an_unknown_code_is_shown_unchanged() -> None:
    for member, words in table().items():
        for code, sentence in words.items():
            named = {name: "7" for _, name, _, _ in string.Formatter().parse(sentence) if name}
            assert "{" not in say(member, {"code": code, **named}), f"{member}: {code}"
    kinds = note("layer_types_not_known", family="f", kinds=("a", "b", "c"), layers="4")
    assert say(ABSENT, kinds) == "f: layer_types does not name a or b or c for each of 4 layers"
    assert say("claim.states", "of_a_later_version") == "of_a_later_version"
    assert say("claim.states", note("later", of=("a", "b"))) == "later of=a and b"
    assert note_from(note("later", of=("a", "b"), what="{of}").for_ledger()) == note(
        "later", of=("a", "b"), what="{of}"
    )


# Members with copied text: from the driver, the job, the settings, a table, a policy or the journal.
COPIED = re.compile(
    r"\.devices\[\]\.(model|serial|driver|counters\.running\.origin|evidenceReason|sharedWith)"
    r"|\.incarnations\[\]\.(sources\..*|recovered\.reasons\[\]\.ledger)"
    r"|\.replay\.origin|\.lineage\.name|\.run\.(id|jobName)|\.node\.name"
    r"|\.children\[\]\.periods\[\]\.bootId"
    r"|(\.children\[\])?\.declared\.base\.(name|method|reason)|\.declared\.sessions\[\]\.facts\..*"
    r"|\.declared\.contradictions\[\]\.(settings|process)"
    r"|\.findings\[\]\.(title|citation|consequence|assumes|otherConditions\[\]|since)"
    r"|\.method\.margins\.\w+\.source"
    r"|(\.children\[\])?\.totals\.architecture(AbsentReasons|\.assumptions)\[\]\.(family|name|names\[\]|parts\[\]|value|what)"
)


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a JSON value, including member names, with its path."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield f"{path}.{name}", name
            yield from texts(member, f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, f"{path}[]")
    elif isinstance(value, str):
        yield path, value


def payloads() -> Iterator[tuple[Path, Any]]:
    for path in sorted((*VECTORS.glob("valid/*/ledger.json"), *VECTORS.glob("merged/**/*.json"))):
        try:
            yield path, json.loads(parse_envelope(path.read_bytes()).payload)["predicate"]
        except Exception:  # noqa: BLE001 (an expectation beside the ledgers, or one that nobody can read)
            continue


@pytest.mark.long
def test_a_ledger_contains_no_sentences_except_copied_text() -> None:
    seen = 0
    for ledger, predicate in payloads():
        seen += 1
        for path, text in texts(predicate):
            where = re.sub(r"^\.nodes\[\]", "", path)
            if " " in text:
                assert COPIED.fullmatch(where), f"{ledger}: {path}: {text}"
    assert seen > 20
