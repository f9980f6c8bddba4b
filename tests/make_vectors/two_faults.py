"""Vectors with two faults, which decide which of them is the reason; and one of an envelope without a fault."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flopsd.core.model import Pipe
from flopsd.core.session_protocol import PhaseChanged, SessionOpened
from tests.make_vectors import runs
from tests.make_vectors.edits import edits
from tests.make_vectors.files import Files, parsed, signed, statement_of, vector
from tests.make_vectors.records import Case, made_of
from tests.support.story import H100, Story, active, chain, tell

J = dict[str, Any]
M = "record_malformed"


@edits
def of_kind(records: list[J], /, named: str, at: int, **members: Any) -> None:
    """Set members of one record of a kind."""
    [record for record in records if record["kind"] == named][at].update(members)


def _falls(records: list[J]) -> None:
    """Totals that fall, in a record that is earlier than the one before it."""
    last = [record for record in records if record["kind"] == "checkpoint"][-1]
    last["ns"] = 5
    last["devices"][0]["observed_ns"]["activity"] = 1


@edits
def _also_falls(records: list[J], /, change: Callable[[J], object]) -> None:
    """Totals of the first device that fall, in a record of two devices that is changed further."""
    both = [record for record in records if record["kind"] == "checkpoint" and len(record["devices"]) == 2]
    both[-1]["devices"][0]["energy_mj"] = 1
    change(both[-1])


CASES: list[Case] = [
    ("kind-at-the-first-place", "The first record is of a kind that there is not.", M, "REC-11", 1, "small", of_kind("begin", 0, kind="start")),
    ("number-of-a-device", "`number` of a device is a text, so it is not the next one either.", M, "REC-12", 3, "small", of_kind("device", 0, number="0")),
    ("place-and-time-of-a-begin", "The second daemon start names another peak table, and its time is a text.", "law_1", "LAW-1", None, "rebooted", of_kind("begin", 1, peak_table_sha256="ab" * 32, ns="0")),
    ("time-and-context-of-a-begin", "`wall_ns` of a `begin` is a text, and `context` lacks its members.", M, "REC-12", 1, "small", of_kind("begin", 0, wall_ns="0", context={})),
    ("totals-and-time", "Totals fall, and the record is earlier than the one before it.", "law_4", "LAW-4", 5, "small", _falls),
    ("totals-and-a-later-tally", "Totals of the first device fall, and a total of the second is a text.", M, "LAW-2", 12, "activity", _also_falls(lambda r: r["devices"][1].update(energy_ns="end"))),
    ("totals-and-a-gap", "Totals fall, and a gap that is listed ends with a text.", M, "REC-12", 12, "activity", _also_falls(lambda r: r.update(gaps=[[0, 1, "end", "starting"]]))),
    ("totals-and-the-date", "Totals fall, and the date of the record is a number.", M, "REC-12", 12, "activity", _also_falls(lambda r: r.update(utc=7))),
    ("code-and-secret", "`begin` names a secret that is not a digest, and has no code.", "line_code", "CODE-1", 1, "small", of_kind("begin", 0, code_secret_sha256="none")),
    ("end-of-no-reason-too-early", "`end` has a reason that there is not, and is earlier than the record before it.", M, "NOTE-28", None, "small", of_kind("end", 0, reason="tired", ns=5)),
]  # fmt: skip


def two_faults_vectors() -> Files:
    files = made_of(CASES, "two-faults-")
    journal = tell(runs.small)
    payload_of = statement_of(journal)
    files |= {**_frame_behind_a_record(payload_of), **_unread_in_one_phase()}
    envelope = json.loads(signed(json.dumps(payload_of).encode()))
    envelope["signatures"][0]["keyid"] = 7
    what = "`keyid` is a number: a hint, of which no verdict hangs."
    files |= vector("valid/keyid-of-no-text", what, json.dumps(envelope).encode(), journal)
    return files


def _unread_in_one_phase() -> Files:
    """The shares of a tally leave nothing of `unread_ns`, so it makes no row."""
    session = "a" * 32

    def story(folder: Path) -> bytes:
        run = Story(folder, (H100,))
        run.during(1, {H100: active(132, 1411, {Pipe.FP32: 5_000})})
        run.says(SessionOpened(session, 1, 2, "0.1.0"), PhaseChanged(session, "train"))
        run.during(3, {H100: active(132, 1411, {Pipe.FP32: 5_000}, unread=(Pipe.FP64,))})
        return run.finish()

    journal = tell(story)
    what = "A pipe was not read in one phase alone: what is left of that time outside of it makes no row."
    return vector("valid/unread-in-one-phase", what, statement_of(journal), journal)


def _frame_behind_a_record(statement: J) -> Files:
    """A malformed record, and after it a line that is not a record."""
    records = [dict(line.record()) for line in parsed(tell(runs.small))]
    records[1]["name"] = 7
    lines = chain(records).splitlines(keepends=True)
    lines[-1] = lines[-1].replace(b'"r":{', b'"r":[{').replace(b"}}\n", b"}]}\n")
    name = "invalid/two-faults-frame-behind-a-record"
    what = "A record is malformed, and a line behind it holds no object: all frames come before all records."
    ledger, path = signed(json.dumps(statement).encode()), f"journal:{len(lines)}"
    return vector(name, what, ledger, b"".join(lines), "journal_frame", "CHAIN-1", path)
