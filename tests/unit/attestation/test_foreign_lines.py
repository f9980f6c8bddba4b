"""Checkpoint lines that the daemon did not print: a lying job refutes no honest ledger, but a rewritten ledger is
refuted."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flopsd.attestation import foreign_lines
from flopsd.attestation.anchors import AnchorComparison
from flopsd.attestation.foreign_lines import FURTHER_LINES, LineJudge
from flopsd.attestation.log_export import Anchor
from flopsd.attestation.seal import Sealed, seal_journal
from flopsd.attestation.signing.keys import ensure_key
from flopsd.core.figures import Figures
from flopsd.core.ledger.history import History, Incarnation
from flopsd.errors import NotVerifiedError
from flopsd.journal.codes import CodeKey
from flopsd.report.ledger_text import verified_text
from tests.support.runs import H100, Run, verified

SECRET, ANOTHER = bytes(range(32)), bytes(range(1, 33))
MINUTE_MS = 60_000


def metered(folder: Path, secret: bytes, seconds: int) -> Run:
    """A run that was killed once, so it has two daemon starts."""
    run = Run(folder, devices=(H100,), secret=secret)
    run.meter(seconds)
    run.restart(4)
    run.meter(22)
    run.finish()
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return metered(tmp_path_factory.mktemp("run") / "state", SECRET, 44)


@pytest.fixture(scope="module")
def sealed(run: Run) -> Sealed:
    return run.seal(run.state.path.parent / "ledger.json")


def events(run: Run, lines: Sequence[str]) -> list[dict[str, Any]]:
    """Each line, received three seconds after its record was written; a line of no record at the time of the
    previous one."""
    written = {frame["h"]: frame["r"] for frame in map(json.loads, run.state.journal.read_bytes().splitlines())}
    found: list[dict[str, Any]] = []
    for line in lines:
        record = written.get(value(line, "head"))
        if record is not None:
            utc = datetime.fromisoformat(str(record["utc"]).replace("Z", "+00:00"))
            at = round(utc.timestamp() * 1000) + 3000
        found.append({"message": line, "ingestionTime": at})
    return found


def value(line: str, name: str) -> str:
    return line.split(f" {name}=")[1].split(" ")[0]


def changed(line: str, name: str, new: str) -> str:
    return line.replace(f" {name}={value(line, name)}", f" {name}={new}")


def compared(sealed: Sealed, log: Path, shown: Sequence[dict[str, Any]]) -> AnchorComparison:
    log.write_text(json.dumps({"events": shown}))
    found = verified(sealed, anchors=[log]).anchored
    assert found is not None
    return found


def lies(run: Run) -> list[str]:
    """Lines that a job of the same user can print: it reads the journal with its codes, and the daemon's output."""
    line, other = run.lines[1], run.lines[2]
    frames = {frame["h"]: frame for frame in map(json.loads, run.state.journal.read_bytes().splitlines())}
    in_journal = frames[value(line, "head")]["m"]
    index = value(line, "code").split(":")[0]
    return [
        changed(line, "head", "0" * 64),
        changed(line, "low_flop", "1"),
        changed(changed(line, "low_flop", "1"), "code", f"{index}:{in_journal}"),
        changed(line, "code", value(other, "code")),
        line.replace(f" code={value(line, 'code')}", ""),
        changed(changed(line, "records", "999"), "code", f"{10**17}:{'0' * 32}"),
        changed(line, "code", f"{FURTHER_LINES}:{'0' * 32}"),
    ]


def test_lines_forged_by_the_job_refute_nothing_and_are_reported(run: Run, sealed: Sealed, tmp_path: Path) -> None:
    first, *rest = run.lines
    lines = [first, *lies(run), *rest]
    shown = events(run, lines)
    shown[1]["ingestionTime"] += 11 * MINUTE_MS  # when that daemon start had long been killed
    found = compared(sealed, tmp_path / "log", shown)
    assert (found.anchors, found.lines, found.foreign.count) == (len(run.lines), len(lines), len(lies(run)))
    assert found.for_json()["firstForeign"]["where"] == "log event 2"
    (tmp_path / "log").write_text("\n".join(lines))  # a log without ingestion times
    text = " ".join(verified_text(verified(sealed, anchors=[tmp_path / "log"])).split())
    assert "7 checkpoint lines printed by another process, the first at log line 2, and so no anchor" in text
    assert "; codes of the journal checked" in text


@pytest.mark.parametrize(
    ("hidden", "late_ms", "lie_ms", "reason"),
    [
        ({1}, {}, 0, r"event 4 has a code that is not the daemon's, .*: the log has no line of record \d+"),
        ({0, 1, 2, 3}, {}, 0, "the log has no line of daemon start 1"),
        ((), {2: 11 * MINUTE_MS}, 0, r"record \d+ and the receipt of its line are 11 minutes apart"),
        ((), {2: -12 * MINUTE_MS}, 0, r"record \d+ and the receipt of its line are 11 minutes apart"),
        ({3}, {}, 11 * MINUTE_MS, r"the log has no line of record \d+, but has lines received later"),
    ],
    ids=["a line missing", "all missing", "one late", "one early", "a lie after the daemon stopped"],
)
def test_a_foreign_line_refutes_when_some_of_the_daemons_own_are_missing(
    run: Run, sealed: Sealed, tmp_path: Path, hidden: set[int], late_ms: dict[int, int], lie_ms: int, reason: str
) -> None:
    assert [value(line, "incarnation") for line in run.lines[:5]] == ["1"] * 4 + ["2"]
    lie = changed(run.lines[2], "head", "0" * 64)
    shown = events(run, [*run.lines[:3], lie, *run.lines[3:]])
    for at, late in late_ms.items():
        shown[at]["ingestionTime"] += late
    shown[3]["ingestionTime"] += lie_ms
    lines = {run.lines[at] for at in hidden}
    shown = [{"message": "x"} if event["message"] in lines else event for event in shown]
    with pytest.raises(NotVerifiedError, match=reason):
        compared(sealed, tmp_path / "log", shown)


def test_a_rewritten_journal_is_refuted_by_the_log(run: Run, tmp_path: Path) -> None:
    """The forger uses a secret of their own, with valid chain and signature, and finally prints its lines too."""
    forged = metered(tmp_path / "state", ANOTHER, 12)
    ledger, log = forged.seal(tmp_path / "ledger.json"), tmp_path / "log"
    assert verified(ledger).statement["predicate"]["incarnations"][0]["codes"] == "checked"
    with pytest.raises(NotVerifiedError, match="the log has no line of daemon start 1"):
        compared(ledger, log, events(run, run.lines))
    late = events(run, run.lines)[-1]["ingestionTime"] + 20 * MINUTE_MS
    printed = [{"message": line, "ingestionTime": late} for line in forged.lines]
    with pytest.raises(NotVerifiedError, match=r"the receipt of its line are \d+ minutes apart"):
        compared(ledger, log, [*events(run, run.lines), *printed])


def test_the_daemons_own_lines_refute_a_journal_that_lacks_them(run: Run, tmp_path: Path) -> None:
    lines = run.state.journal.read_bytes().splitlines(keepends=True)
    (tmp_path / "short").write_bytes(b"".join(lines[: int(value(run.lines[1], "records"))]))
    key, _ = ensure_key(None, tmp_path)
    ledger = seal_journal(tmp_path / "short", key, tmp_path / "ledger.json", run.clock, code_secrets=[SECRET])
    with pytest.raises(NotVerifiedError, match=r"is about record \d+, the journal has \d+ records: it was truncated"):
        compared(ledger, tmp_path / "log", events(run, run.lines[:3]))


def test_a_line_of_a_daemon_start_missing_from_the_ledger_refutes_it(run: Run, sealed: Sealed, tmp_path: Path) -> None:
    third = changed(lies(run)[0], "incarnation", "3")
    with pytest.raises(NotVerifiedError, match="is not on the journal's chain"):
        compared(sealed, tmp_path / "log", events(run, [*run.lines, third]))


def test_without_a_disclosed_secret_every_line_is_compared_with_the_chain(run: Run, tmp_path: Path) -> None:
    key, _ = ensure_key(None, tmp_path)
    ledger = seal_journal(run.state.journal, key, tmp_path / "ledger.json", run.clock)
    assert compared(ledger, tmp_path / "log", events(run, run.lines)).anchors == len(run.lines)
    with pytest.raises(NotVerifiedError, match="is not on the journal's chain"):
        compared(ledger, tmp_path / "log", events(run, [*run.lines, lies(run)[0]]))


@pytest.mark.long
def test_lines_about_far_records_cost_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("FURTHER_LINES", "FURTHER_LINES_IN_ALL"):
        monkeypatch.setattr(foreign_lines, limit, getattr(foreign_lines, limit) // 10)
    digest = CodeKey(SECRET, 1).secret_sha256
    starts = [Incarnation({"incarnation": n, "code_secret_sha256": digest}) for n in range(1, 13)]
    judge = LineJudge(History(starts), [SECRET], list(range(1, 13)), 12)
    line = Anchor("log", 1, 1, 1, "", Figures(0, None, None), text="x", code="0" * 32, code_index=FURTHER_LINES // 10)
    lines = [replace(line, incarnation=start.number) for start in starts]
    assert all(judge.is_foreign(one) for one in lines[:9])
    with pytest.raises(NotVerifiedError, match="too many lines are about records that the journal lacks"):
        [judge.is_foreign(one) for one in lines]


def test_lines_about_the_journals_own_records_do_not_count_as_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_lines, "FURTHER_LINES_IN_ALL", 0)
    start = Incarnation({"incarnation": 1, "code_secret_sha256": CodeKey(SECRET, 1).secret_sha256})
    judge = LineJudge(History([start]), [SECRET], [1], 9)
    line = Anchor("log", 1, 1, 1, "", Figures(0, None, None), text="x", code="0" * 32, code_index=8)
    assert judge.is_foreign(line)
    with pytest.raises(NotVerifiedError, match="too many lines"):
        judge.is_foreign(replace(line, code_index=9))
