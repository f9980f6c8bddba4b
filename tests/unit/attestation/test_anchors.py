"""Checkpoint lines that left the host, in every shape of log, compared with the journal."""

import gzip
import json
import random
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flopsd.attestation.anchors import AnchorComparison, _Found, compare_anchors
from flopsd.attestation.log_events import CHUNK, MAX_EVENT
from flopsd.attestation.log_export import MAX_CHECKPOINT, Anchor, SkippedLines, find_anchors
from flopsd.attestation.seal import Sealed
from flopsd.attestation.verify import Verified
from flopsd.core.figures import Figures
from flopsd.core.ledger.segments import JournalFacts
from flopsd.errors import NotVerifiedError
from flopsd.report.ledger_text import verified_text
from flopsd.system.clock import NS_PER_S
from tests.support.extent import Extent, sampled
from tests.support.process import in_process
from tests.support.runs import A100, CONTEXT, H100, Run, verified

NOISE = ["2026-11-25 step 10 loss=1.25", '{"level":"info","msg":"saved \\"x\\""}', '[INFO] épüché 5" pipe', "", "{"]
INGESTED_MS = 1_764_079_200_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two incarnations, the second after a reboot and at first without any device."""
    folder = tmp_path_factory.mktemp("anchored")
    run = Run(folder / "state")
    run.meter(35)
    run.kill()
    run.clock.advance(4 * NS_PER_S)
    run.context = replace(CONTEXT, boot_id="boot-2")
    run.devices = ()
    run.start()
    run.meter(11)
    run.devices = (A100,)
    run.meter(12)
    run.finish()
    return run


@pytest.fixture(scope="module")
def sealed(run: Run) -> Sealed:
    return run.seal(run.state.path.parent / "out" / "ledger.json")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "export.log"


def hold(sealed: Sealed, *logs: Path) -> Verified:
    return verified(sealed, anchors=logs)


def anchored(sealed: Sealed, *logs: Path) -> AnchorComparison:
    found = hold(sealed, *logs).anchored
    assert found is not None
    return found


def events(lines: Sequence[str], **more: object) -> list[dict[str, Any]]:
    return [
        {"timestamp": INGESTED_MS + i * 1000, "message": line, "ingestionTime": INGESTED_MS + i * 1000 + 250, **more}
        for i, line in enumerate(lines)
    ]


def mixed(lines: Sequence[str]) -> list[str]:
    """The lines among output of a training job."""
    return [text for i, line in enumerate(lines) for text in (NOISE[i % len(NOISE)], line)]


TEXTS: dict[str, Callable[[list[str]], str]] = {
    "bare": lambda lines: "\n".join(lines),
    "crlf": lambda lines: "\r\n".join(lines) + "\r\n",
    "bom": lambda lines: "\ufeff" + "\n".join(lines),
    "s3-export": lambda lines: "\n".join(f"2026-11-25T14:00:{i % 60:02d}.000Z {line}" for i, line in enumerate(lines)),
    "cri": lambda lines: "\n".join(f"2026-11-25T14:00:00.123456789Z stdout F {line}" for line in lines),
    "compose": lambda lines: "\n".join(f"\x1b[36mtrainer-1  |\x1b[0m {line}\x1b[0m" for line in lines),
    "docker": lambda lines: "\n".join(
        json.dumps({"log": line + "\n", "stream": "stdout", "time": "2026-11-25T14:00:00.1Z"}) for line in lines
    ),
    "nested": lambda lines: "\n".join(json.dumps({"log": json.dumps({"m": json.dumps({"t": x})})}) for x in lines),
    "one-line": lambda lines: " ".join(lines),
}  # fmt: skip
EXPORTS: dict[str, Callable[[list[str]], str]] = {
    "get-log-events": lambda lines: json.dumps(
        {"events": events(lines), "nextForwardToken": "f/1", "nextBackwardToken": "b/1"}, indent=4
    ),
    "filter-log-events": lambda lines: json.dumps(
        {"events": events(lines, logStreamName="algo-1", eventId="1"), "searchedLogStreams": [{"a": []}]}
    ),
    "pages": lambda lines: "".join(json.dumps({"events": events([line]), "nextToken": "x"}) for line in lines),
    "list-of-pages": lambda lines: json.dumps([{"events": events(lines[:9])}, {"events": events(lines[9:])}]),
    "json-lines": lambda lines: "\n".join(json.dumps(event, sort_keys=True) for event in events(lines)),
    "list": lambda lines: json.dumps(events(lines), indent=1),
    "fluent-bit": lambda lines: json.dumps({"events": events([json.dumps({"log": line}) for line in lines])}),
    "several-in-one": lambda lines: json.dumps({"events": events(["\n".join(lines)])}),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("shape", [*TEXTS, *EXPORTS])
def test_every_shape_of_log_gives_every_checkpoint(
    run: Run, sealed: Sealed, log: Path, shape: str, packed: bool
) -> None:
    lines = run.lines if shape == "one-line" else mixed(run.lines)
    data = {**TEXTS, **EXPORTS}[shape](lines).encode()
    log.write_bytes(gzip.compress(data[:500]) + gzip.compress(data[500:]) if packed else data)
    found = anchored(sealed, log)
    assert (found.anchors, found.lines, found.skipped.unreadable) == (len(run.lines), len(run.lines), 0)
    assert found.behind == 1  # the record of the regular end
    assert (found.first.ingested_ms is not None) == (found.lag_ms is not None) == (shape in EXPORTS)
    log.write_bytes("\r\n".join(run.lines).encode("utf-16"))  # as PowerShell redirects
    assert anchored(sealed, log).anchors == len(run.lines)
    if shape in ("s3-export", "cri"):
        assert (found.first.line_time or "").startswith("2026-11-25T14:00:0")


def test_the_first_and_last_line_are_reported_with_the_log_services_times(run: Run, sealed: Sealed, log: Path) -> None:
    log.write_text(EXPORTS["get-log-events"](run.lines[:4]))
    verified = hold(sealed, log)
    assert verified.anchored is not None
    shown = verified.anchored.for_json()
    assert (shown["first"]["ingestedAt"], shown["last"]["ingestedAt"]) == (
        "2025-11-25T14:00:00.250000Z",
        "2025-11-25T14:00:03.250000Z",
    )
    assert shown["first"]["lineTime"] == "2025-11-25T14:00:00.000000Z"
    assert shown["recordsBehind"] == verified.records - shown["last"]["records"] > 1
    text = " ".join(verified_text(verified).split())
    assert (
        f"first: record {shown['first']['records']}, received by the log service at 2025-11-25T14:00:00.250000Z" in text
    )
    assert f"{shown['recordsBehind']} records after the last anchor" in text


def test_the_delay_of_ingestion_is_reported(run: Run, sealed: Sealed, log: Path) -> None:
    """A journal that was invented afterwards and printed at once would be exposed here."""
    frames = {f["h"]: f["r"] for f in map(json.loads, sealed.journal.read_bytes().splitlines())}
    shown = events(run.lines)
    for number, event in enumerate(shown):
        utc = frames[event["message"].split(" head=")[1].split(" ")[0]]["utc"]
        event["ingestionTime"] = round(datetime.fromisoformat(utc.replace("Z", "+00:00")).timestamp() * 1000)
        event["ingestionTime"] += 500 + 100 * number
    log.write_text(json.dumps({"events": shown}))
    found = anchored(sealed, log)
    assert found.lag_ms == (500, 400 + 100 * len(run.lines))
    assert found.for_json()["ingestionLagSeconds"][0] == "0.500"


def test_a_line_ingested_twice_counts_from_its_first_ingestion(run: Run, sealed: Sealed, log: Path) -> None:
    twice = events([run.lines[0]] * 3)
    log.write_text(json.dumps({"events": [twice[1], twice[2], twice[0]]}))
    found = anchored(sealed, log, log)
    assert (found.lines, found.anchors, found.first.ingested_ms) == (6, 1, twice[0]["ingestionTime"])


def changed(line: str, key: str, value: Callable[[str], str]) -> str:
    before, _, rest = line.partition(f" {key}=")
    old, space, after = rest.partition(" ")
    return f"{before} {key}={value(old)}{space}{after}"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("head", lambda h: ("0" if h[0] != "0" else "1") + h[1:], r"event 3 is not on the journal's chain: its hash of record \d+ is [0-9a-f]{64}, the journal's is [0-9a-f]{64}"),
        ("records", lambda n: str(int(n) + 1), "is not on the journal's chain"),
        ("records", lambda _: "0", "is not on the journal's chain"),
        ("records", lambda _: "999", r"event 3 is about record 999, the journal has \d+ records: it was truncated or replaced by an older one"),
        ("bytes", lambda n: str(int(n) + 1), "was altered: record"),
        ("low_flop", lambda n: str(int(n) - 1), r"event 3 has low \d+, .* the journal up to record \d+ gives low \d+"),
        ("measured_flop", lambda _: "unknown", "measured unknown"),
        ("high_flop", lambda n: n + "0", "has low"),
        ("incarnation", lambda _: "2", "in daemon start 2, the journal"),
    ],
)  # fmt: skip
def test_a_line_that_does_not_match_the_journal_is_no_anchor(
    run: Run, sealed: Sealed, log: Path, key: str, value: Callable[[str], str], reason: str
) -> None:
    lines = [*run.lines[:2], changed(run.lines[2], key, value), *run.lines[3:]]
    log.write_text(EXPORTS["get-log-events"](lines))
    with pytest.raises(NotVerifiedError, match=reason):
        hold(sealed, log)


def test_a_journal_that_changes_between_two_checks_is_refused(
    run: Run, sealed: Sealed, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write_text("\n".join(run.lines))

    def later(files: Any, journal: Any, facts: JournalFacts, *rest: Any) -> AnchorComparison:
        return compare_anchors(files, journal, facts._replace(head_sha256="0" * 64), *rest)

    monkeypatch.setattr("flopsd.attestation.verify.compare_anchors", later)
    with pytest.raises(NotVerifiedError, match="was changed during verification"):
        hold(sealed, log)


@pytest.mark.parametrize(("count", "named"), [(5, "0, 1, 2, 3, 4: no"), (7, "0, 1, 2, 3, 4 and 2 more: no")])
def test_among_many_logs_without_a_line_the_first_are_named(
    sealed: Sealed, tmp_path: Path, count: int, named: str
) -> None:
    logs = [tmp_path / str(number) for number in range(count)]
    for log in logs:
        log.touch()
    with pytest.raises(NotVerifiedError, match=named):
        hold(sealed, *logs)


def test_two_lines_that_contradict_each_other_are_refused(run: Run, sealed: Sealed, log: Path) -> None:
    log.write_text(f"{run.lines[0]}\n{changed(run.lines[0], 'low_flop', lambda n: n + '1')}\n")
    with pytest.raises(NotVerifiedError, match=r"line 2 and export.log line 1 contradict each other about record"):
        hold(sealed, log)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "export.log: no checkpoint line of run 'run-1' on node 'node-0'$"),
        ("flopsd-checkpoint run=run-2 node=\x1b[2J incarnation=1 records=1", r"1 of other runs, nodes or segments, such as 'run=run-2 node=\\x1b\[2J'"),
        (f"flopsd-checkpoint run=run-2 {'x' * 300}", f"such as 'run=run-2 {'x' * 172}'"),
        ("flopsd-checkpoint run=run-1 node=node-01 incarnation=1 records=1", "1 of other runs, nodes or segments, such as 'run=run-1 node=node-01'"),
        ("flopsd-checkpoint run=run-1 node=node-0 incarnation=1 records=12", "1 of its lines are damaged"),
        ('{"events":[{"message":"x","ingestionTime":1}', "starts as JSON but is not valid JSON: a list is truncated"),
        ('{"events":[{"message":"x","ingestionTime":1}]} then text', "it continues with text that is not JSON"),
        ('{"events":[{"message":"x","ingestionTime":1,"ingestionTime":2}]}', "has the same key twice"),
        ('{"ingestionTime":1,"ingestionTime":2}', "has the same key twice"),
        ('{"ingestionTime" 1:2}{"ingestionTime":1}', "an object is truncated"),
        ('[{"events":[' + "[" * 100_000, "nested too deeply"),
        ('{"events":[{"message":"' + "x" * (MAX_EVENT + CHUNK), "Unterminated string"),
        ('{"events":[]' + "," * 9, "an object is truncated"),
    ],
)  # fmt: skip
def test_a_log_without_a_usable_line_is_refused_with_the_reason(
    sealed: Sealed, log: Path, text: str, reason: str
) -> None:
    log.write_text(text)
    with pytest.raises(NotVerifiedError, match=reason):
        hold(sealed, log)


def test_an_unreadable_log_is_refused(run: Run, sealed: Sealed, log: Path) -> None:
    with pytest.raises(NotVerifiedError, match="cannot read the log .*No such file"):
        hold(sealed, log)
    packed = gzip.compress("\n".join(mixed(run.lines)).encode())
    for broken in (packed[:-9], packed[:40] + bytes([packed[40] ^ 1]) + packed[41:]):
        log.write_bytes(broken)
        with pytest.raises(NotVerifiedError, match="cannot read the log"):
            hold(sealed, log)


@sampled(6)
@pytest.mark.parametrize("key", ["records", "bytes", "head", "low_flop", "measured_flop", "high_flop"])
def test_a_torn_line_is_never_read_as_a_whole_one(
    run: Run, sealed: Sealed, log: Path, key: str, extent: Extent
) -> None:
    whole, line = run.lines[1], run.lines[0]
    begin = line.index(f" {key}=")
    end = line.index(" ", begin + 1)
    for cut in extent.of(range(begin, end + 1)):
        log.write_text(f"{line[:cut]}\n{whole}\n")
        found = anchored(sealed, log)
        assert (found.anchors, found.skipped.unreadable) == (1, 1)


def test_spellings_that_only_a_lenient_reader_accepts_are_no_anchors(run: Run, sealed: Sealed, log: Path) -> None:
    spelt = [
        changed(run.lines[0], "records", lambda n: f"0{n}"),
        changed(run.lines[0], "records", lambda n: f"{n} records={n}"),
        changed(run.lines[0], "head", str.upper),
        changed(run.lines[0], "low_flop", lambda _: "unknown"),
        changed(run.lines[0], "low_flop", lambda n: "1" * 41 + n),
        changed(run.lines[0], "bytes", lambda n: f"+{n}"),
        changed(run.lines[0], "bytes", lambda _: "٣"),
    ]
    log.write_text("\n".join([*spelt, run.lines[1]]))
    found = anchored(sealed, log)
    assert (found.anchors, found.skipped.unreadable) == (1, len(spelt))


def test_a_message_cannot_forge_its_ingestion_time(run: Run, sealed: Sealed, log: Path) -> None:
    forged = run.lines[0] + '","ingestionTime":1000,"x":"'
    log.write_text(json.dumps({"events": events([forged])}))
    assert anchored(sealed, log).first.ingested_ms == INGESTED_MS + 250
    log.write_text("x\n" + json.dumps({"events": events([forged])}))  # not an export: no times at all
    assert anchored(sealed, log).first.ingested_ms is None


@pytest.mark.parametrize("length", [1, 100, MAX_CHECKPOINT - 1, MAX_CHECKPOINT, CHUNK - 400, CHUNK, 3 * CHUNK + 17])
def test_lines_of_any_length_are_searched_completely(run: Run, log: Path, length: int) -> None:
    rng = random.Random(length)
    text, lines, expected = "", 1, []
    for line in run.lines:
        filler = "x" * (length - rng.randrange(min(length, len(line))))  # the first one spans the end of a chunk
        lines += 1
        text += f"\n{filler}{line} {filler}"
        expected.append(f"export.log line {lines}")
    log.write_text(text)
    passed = SkippedLines()
    found = list(find_anchors(log, "run-1", "node-0", passed))
    assert [anchor.where for anchor in found] == expected
    assert (passed.unreadable, passed.others) == (0, 0)


@pytest.mark.parametrize("node", ['n"0', "nö", "node-0"])
def test_a_json_escaped_line_is_found_too(run: Run, log: Path, node: str) -> None:
    line = run.lines[0].replace("node=node-0 ", f"node={node} ")
    log.write_text(f"{line}\nsome shipper: {json.dumps(line)}\n")
    passed = SkippedLines()
    assert [anchor.where[-1] for anchor in find_anchors(log, "run-1", node, passed)] == ["1", "2"]
    assert (passed.unreadable, passed.others) == (0, 0)


@pytest.mark.long
def test_a_big_log_is_read_in_little_memory(run: Run, log: Path) -> None:
    noise = ("step loss=1.0 " * 5000 + "\n") * 10
    with gzip.open(log, "wt", compresslevel=1) as file:
        for _ in range(90):
            file.write(noise)
        file.write("\n".join(run.lines))
    peaks = []
    for packed in (log, log.with_name("export.json")):
        if packed.suffix == ".json":
            with packed.open("w") as file:
                file.write('{"events":[')
                for _ in range(60):
                    file.write(json.dumps({"message": noise, "ingestionTime": 1}) + ",")
                file.write(json.dumps(events(run.lines))[1:] + "}")
        tracemalloc.start()
        assert len(list(find_anchors(packed, "run-1", "node-0", SkippedLines()))) == len(run.lines)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 24e6


@pytest.mark.long
def test_the_lines_of_a_long_run_are_not_kept() -> None:
    count = 20_000
    found = _Found(count)
    tracemalloc.start()
    for at in range(count, 0, -1):
        assert found.add(Anchor(f"log line {at}", 1, at, 4777 * at, f"{at:064x}", Figures(at, 2 * at, 3 * at), at))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
    assert (found.anchors, found.first and found.first.records, found.last and found.last.records) == (count, 1, count)
    assert (found.ingested_ms(7), found.says(7, 1, Figures(7, 14, 21)), found.says(7, 1, Figures(7, 14, 22))) == (
        7, True, False,
    )  # fmt: skip


def test_checkpoint_lines_include_figures_of_earlier_incarnations(run: Run, sealed: Sealed, log: Path) -> None:
    """After a reboot, before any device is listed again, the run's figures are those of the previous incarnation."""
    without = next(line for line in run.lines if " incarnation=2 " in line)
    assert " measured_flop=unknown" not in without
    assert H100.uid not in {device.uid for device in run.devices}
    log.write_text(without)
    assert anchored(sealed, log).anchors == 1


def test_verify_takes_logs_and_prints_facts_and_exit_codes(run: Run, sealed: Sealed, tmp_path: Path) -> None:
    verb = ("verify", str(sealed.ledger), "--key", str(sealed.public_key))
    (tmp_path / "a.log").write_text("\n".join(run.lines[:2]))
    (tmp_path / "b.json").write_text(EXPORTS["get-log-events"](run.lines[2:]))
    logs = ("--anchors", str(tmp_path / "a.log"), "--anchors", str(tmp_path / "b.json"))
    good = in_process(*verb, *logs, "--json", code=0)
    answer = json.loads(good.stdout)["anchors"]
    first = answer["first"]
    assert (answer["anchors"], first["where"], first["ingestedAt"]) == (len(run.lines), "a.log line 1", None)
    assert json.loads(in_process(*verb, "--json").stdout)["anchors"] is None
    with (tmp_path / "a.log").open("a") as file:  # a run without a ledger here, on the same node
        file.write("\nflopsd-checkpoint run=run-2 node=node-0 incarnation=1 records=1\n")
    text = " ".join(in_process(*verb, *logs, code=0).stdout.split())
    assert "1 checkpoint line of other runs, nodes or segments, of which this ledger states nothing: run=run-2" in text
    (tmp_path / "a.log").write_text("flopsd-checkpoint run=\x1b[2Jx node=y\n")
    bad = in_process(*verb, "--anchors", str(tmp_path / "a.log"), code=3)
    assert bad.stdout.startswith(
        "NOT VERIFIED: a.log: no checkpoint line of run 'run-1' on node 'node-0'; 1 of other runs"
    )
    assert "\x1b" not in bad.stdout + bad.stderr
    assert "hint: give the log with the daemon's output" in bad.stderr
