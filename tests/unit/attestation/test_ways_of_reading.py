"""A fast way of reading accepts nothing that the reference way refuses, gives the same result, and leaves refusals
to it: for envelopes, whose payload is not read as JSON, and for large merged ledgers, whose children are read one by
one."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flopsd.attestation.merge import large_statement
from flopsd.attestation.merge.large_statement import ChildLines, parse_statement
from flopsd.core import envelope
from flopsd.core.envelope import encode_envelope, parse_envelope
from flopsd.core.untrusted import MAX_DEPTH, parse_json
from flopsd.errors import NotVerifiedError
from tests.support.extent import examples

_ANY_FIXTURE = settings(
    max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
_PIECES = st.sampled_from(
    (b"", b",", b"\n", b"\n  ]", b" ", b"=", b"A", b'"', b"\\", b"\\u0041", b"\\/", b"{}", b"[]", b"}", b"]", b"1", b"1.5",
     b"-", b"\xc3\xa9", b"\xff", b'"children": [\n', b'"payload": "AA==",', b"9" * 41, b'\n  "children": [\n')
)  # fmt: skip


def outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except NotVerifiedError as fault:
        return fault.code, fault.path, str(fault)


def changed(data: bytes, at: int, removed: int, piece: bytes) -> bytes:
    at %= len(data) + 1
    return data[:at] + piece + data[at + removed :]


@_ANY_FIXTURE
@given(st.binary(max_size=40), st.integers(0, 300), st.integers(0, 4), _PIECES)
def test_the_fast_envelope_reader_agrees_with_the_json_reader(
    monkeypatch: pytest.MonkeyPatch, payload: bytes, at: int, removed: int, piece: bytes
) -> None:
    data = changed(encode_envelope(payload, "type", [("k", b"sig")]), at, removed, piece)
    with monkeypatch.context() as patch:
        patch.setattr(envelope, "_PIECE", 8)  # as for a long payload
        found = outcome(lambda: parse_envelope(data))
    with monkeypatch.context() as patch:
        patch.setattr(envelope, "_split_payload", lambda _: None)
        assert found == outcome(lambda: parse_envelope(data))


@pytest.mark.parametrize("given", ["-_8=", "-_8", "+/8=", "+/8"])
def test_base64_may_be_urlsafe_and_without_padding(given: str) -> None:
    signed = {"payload": given, "payloadType": "t", "signatures": [{"keyid": "k", "sig": given}]}
    found = parse_envelope(json.dumps(signed).encode())
    assert (found.payload, found.signatures) == (b"\xfb\xff", (("k", b"\xfb\xff"),))


def listing(*children: Any) -> bytes:
    """In the layout of a merged ledger, as `write_json` writes it."""
    lines = ",\n".join(f"   {json.dumps(child)}" for child in children)
    return f'{{\n "predicate": {{\n  "kind": "job",\n  "children": [\n{lines}\n  ],\n  "n": 1\n }}\n}}\n'.encode()


def whole(found: Any) -> Any:
    if isinstance(found, dict) and isinstance(predicate := found.get("predicate"), dict):
        predicate = {name: list(one) if isinstance(one, ChildLines) else one for name, one in predicate.items()}
        return json.dumps({**found, "predicate": predicate})
    return found if isinstance(found, tuple) else json.dumps(found)


@_ANY_FIXTURE
@given(st.integers(0, 200), st.integers(0, 8), _PIECES)
def test_children_read_one_by_one_match_those_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, at: int, removed: int, piece: bytes
) -> None:
    monkeypatch.setattr(large_statement, "MANY_BYTES", 0)
    data = changed(listing({"a": [1, {}]}, {"b": "x,y"}, {}), at, removed, piece)
    read, rule = outcome(lambda: parse_statement(data, "it", "p")), outcome(lambda: parse_json(data, "it", "p"))
    assert whole(read) == whole(rule)


def nested(depth: int) -> Any:
    return [] if depth == 1 else [nested(depth - 1)]


def test_the_levels_around_children_count_for_their_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_statement, "MANY_BYTES", 0)
    found = parse_statement(listing({}, nested(MAX_DEPTH - 3)), "it")
    assert isinstance(found["predicate"]["children"], ChildLines)
    assert len(found["predicate"]["children"]) == 2
    with pytest.raises(NotVerifiedError, match="nested too deeply"):
        parse_statement(listing({}, nested(MAX_DEPTH - 2)), "it")
