"""Two ledgers of one run: prefixes, forks, earlier seals listed by later ones, and timestamps of the journal's head."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flopsd.attestation.evidence import witness
from flopsd.attestation.evidence.item import CheckContext, EvidenceState
from flopsd.attestation.evidence.trust import load_trust
from flopsd.attestation.evidence.witness import of_earlier_seals
from flopsd.attestation.seal import Sealed, seal_journal
from flopsd.attestation.signing.keys import ensure_key
from flopsd.attestation.signing.pem import make_pem
from flopsd.core.ledger.history import History
from flopsd.core.rounding import format_flop
from flopsd.journal.seal_note import read_note, write_note
from flopsd.settings.evidence_kinds import EvidenceWanted
from flopsd.system.clock import SystemClock
from flopsd.testing import FakeClock
from tests.make_vectors.files import parsed
from tests.support.authorities import Authority, serving
from tests.support.process import in_process, predicate
from tests.support.runs import Run, finished, history_of, verified


@pytest.fixture
def uri(tmp_path: Path) -> str:
    (tmp_path / "key").mkdir()
    return str(ensure_key(None, tmp_path / "key")[0])


def begun(folder: Path, **how: Any) -> Run:
    run = Run(folder, **how)
    run.meter(20)
    return run


def ended(before: Run, folder: Path, ledger: Path, uri: str, seconds: int) -> Sealed:
    run = finished(folder, seconds, clock=FakeClock(before.clock.boottime_ns(), before.clock.wall_ns()))
    return run.seal(ledger, uri)


def verify(ledger: Sealed, *also: Sealed, code: int = 0) -> dict[str, Any]:
    others = [word for one in also for word in ("--also", str(one.ledger))]
    found: dict[str, Any] = json.loads(
        in_process("verify", str(ledger.ledger), "--key", str(ledger.public_key), *others, "--json", code=code).stdout
    )
    return found


def test_the_shorter_of_two_seals_is_named_either_way_and_listed_by_the_later_one(tmp_path: Path, uri: str) -> None:
    run = begun(tmp_path / "s")
    early = run.seal(tmp_path / "early.json", uri)
    write_note(run.state.newest_seal, early.seal)
    assert run.state.newest_seal.stat().st_mode & 0o777 == 0o600
    run.meter(20)
    run.kill()
    run.start()  # a restart lists nothing of it twice
    run.meter(20)
    run.finish()
    late = run.seal(tmp_path / "late.json", uri)
    found = verify(late, early)
    (also,) = found["also"]
    facts = [one["method"]["journal"] for one in (found["predicate"], verify(early)["predicate"])]
    assert (also["relation"], also["listed"]) == ("earlier seal", True)
    assert (also["ledger"], also["other"]) == (str(late.ledger), str(early.ledger))
    assert also["records"] == int(facts[0]["records"]) - int(facts[1]["records"])
    assert also["bytes"] == int(facts[0]["bytes"]) - int(facts[1]["bytes"])
    measured = [one["totals"]["executed"]["measured"] for one in (found["predicate"], verify(early)["predicate"])]
    assert also["flop"]["measured"] == str(int(measured[0]) - int(measured[1]))
    listed = found["predicate"]["method"]["earlierSeals"]
    assert (listed["count"], listed["newest"]["payloadSha256"]) == ("1", early.seal.payload_sha256)
    assert verify(early, late)["also"][0]["relation"] == "later seal"
    assert verify(late, late)["also"][0]["relation"] == "same length"
    cut = tmp_path / "cut.journal.jsonl"
    cut.write_bytes(b"".join(late.journal.read_bytes().splitlines(keepends=True)[:-2]))
    truncated = seal_journal(cut, uri, tmp_path / "cut.json", run.clock, live=True)
    assert verify(truncated, late)["also"][0]["relation"] == "later seal"
    command = ("verify", str(early.ledger), "--key", str(early.public_key), "--also", str(late.ledger))
    text = " ".join(in_process(*command, code=0).stdout.split())
    assert "is a LATER seal of this journal" in text
    assert f"bytes and {format_flop(int(also['flop']['measured']))} measured; the later one lists" in text
    another = run.seal(tmp_path / "another.json", str(make_pem(tmp_path / "another.pem").path))
    command = (*command[:-2], "--key", str(another.public_key))
    assert "NOT signed by key" in in_process(*command, code=0).stdout
    assert "NOT signed by key" not in in_process(*command, "--also", str(another.ledger), code=0).stdout


def test_two_histories_of_a_run_are_a_fork_for_verify_and_merge(tmp_path: Path, uri: str) -> None:
    run = begun(tmp_path / "one")
    common = run.journal.records
    run.kill()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (
        ended(run, tmp_path / name, tmp_path / f"{name}.json", uri, 20 + at) for at, name in enumerate(("one", "two"))
    )
    reason = verify(one, two, code=3)["reason"]
    assert "FORK" in reason
    heads = [found["predicate"]["method"]["journal"]["headSha256"] for found in (verify(one), verify(two))]
    assert all(head in reason for head in heads)
    first = [(line.head, line.number) for line in parsed(one.journal.read_bytes())]
    same = [
        number
        for (head, number), line in zip(first, parsed(two.journal.read_bytes()), strict=False)
        if head == line.head
    ]
    assert f"part after record {same[-1]}" in reason
    assert same[-1] >= common
    done = in_process("merge", str(one.ledger), str(two.ledger), "--trust", str(one.public_key), "--key", uri,
                      "--ledger", str(tmp_path / "job.json"), "--nodes", "1", code=3)  # fmt: skip
    assert f"their journals part after record {same[-1]}" in " ".join(done.stderr.split())


def test_two_histories_that_differ_from_the_begin_are_a_fork_too(tmp_path: Path, uri: str) -> None:
    def whole(name: str, second: int) -> Sealed:
        run = begun(tmp_path / name, clock=FakeClock(10**12, 1_790_000_000 * 10**9 + second * 10**9))
        run.finish()
        return run.seal(tmp_path / f"{name}.json", uri)

    one, two = whole("one", 0), whole("two", 1)
    assert "their journals have no record in common; one goes on to record " in verify(one, two, code=3)["reason"]


def test_ledgers_of_other_runs_and_times_are_no_fork(tmp_path: Path, uri: str) -> None:
    run = begun(tmp_path / "one")
    run.finish()
    one = run.seal(tmp_path / "one.json", uri)
    other = begun(tmp_path / "two", run_id="run-2")
    other.finish()
    reason = verify(one, other.seal(tmp_path / "two.json", uri), code=3)["reason"]
    assert "run 'run-2' on 'node-0', not run 'run-1' on 'node-0'" in reason
    again = begun(tmp_path / "three", clock=run.clock)
    again.finish()
    (also,) = verify(one, again.seal(tmp_path / "three.json", uri))["also"]
    assert (also["relation"], also["listed"]) == ("another journal", None)
    assert (also["common_records"], also["records"], also["bytes"]) == (0, 0, 0)
    assert also["flop"] == {"low": None, "measured": None, "high": None}


def test_a_note_of_another_journal_is_not_listed(tmp_path: Path, uri: str) -> None:
    """Any process of the user can write one; a journal that listed it would never verify."""
    run = begun(tmp_path / "s")
    true = run.seal(tmp_path / "early.json", uri).seal
    for false in (
        replace(true, head_sha256="ab" * 32),
        replace(true, size_bytes=true.size_bytes - 1),
        replace(true, witness={"token": "no base64"}),
        replace(true, witness={"token": "AAAA"}),  # no timestamp of this head
    ):
        write_note(run.state.newest_seal, false)
        run.meter(20)
    run.state.newest_seal.write_text("[]")
    assert read_note(run.state.newest_seal) is None
    run.finish()
    assert history_of(run.state.journal).seals.count == 0


@pytest.mark.tool("openssl")
def test_a_witness_proves_when_a_prefix_existed_and_its_absence_is_recorded(tmp_path: Path, uri: str) -> None:
    authority, run = Authority(tmp_path / "tsa"), begun(tmp_path / "s")

    def seal(name: str, url: str) -> Sealed:
        wanted = EvidenceWanted((), witness_url=url, witness_alone=True)
        sealed = seal_journal(run.state.journal, uri, tmp_path / name, SystemClock(), (), wanted)
        write_note(run.state.newest_seal, sealed.seal)
        run.meter(20)
        return sealed

    with serving(authority.answer) as url:
        seal("first.json", url)
        seal("dead.json", "http://127.0.0.1:9")
        run.finish()
        last = seal_journal(
            run.state.journal, uri, tmp_path / "last.json", SystemClock(), (), EvidenceWanted((), witness_url=url)
        )
    trust = load_trust(tsa_files=[str(authority.root)])
    own, earlier = (one for one in verified(last, trust=trust).evidence if one.type == "witness")
    assert (own.verdict, earlier.verdict) == (EvidenceState.HOLDS, EvidenceState.HOLDS)
    assert "according to CN=flopsd test root" in own.text
    assert "1 of 2 earlier seals are stamped; its first " in earlier.text
    stranger = load_trust(tsa_files=[str(Authority(tmp_path / "other", "CN=other").root)])
    unknown = [one for one in verified(last, trust=stranger).evidence if one.type == "witness"]
    assert [one.verdict for one in unknown] == [EvidenceState.NOT_CHECKED] * 2
    assert ["existed at" in one.text for one in (own, earlier, *unknown)] == [True, True, False, False]
    seals = history_of(last.journal).seals
    assert seals.newest is seals.newest_asked
    assert "absent" in ((seals.newest and seals.newest.witness) or {})
    (found,) = of_earlier_seals(replace(seals, stamped=[]), CheckContext(History(), "", (), trust.tsa_chains))
    assert found.verdict is EvidenceState.ABSENT
    assert found.text.startswith("none of 2 earlier seals is stamped; the newest: ")
    swapped = replace(seals.stamped[0], head_sha256=parsed(last.journal.read_bytes())[0].head.hex())
    (found,) = of_earlier_seals(replace(seals, stamped=[swapped]), CheckContext(History(), "", (), trust.tsa_chains))
    assert found.verdict is EvidenceState.FAILED
    assert "Mismatch between messages" in found.text

    # A record or seal dated after its timestamp.
    assert "LATER" not in own.text + earlier.text
    history, after = history_of(last.journal), "2999-01-01T00:00:00.000000000Z"
    history.incarnations[-1].last_utc = after
    context = CheckContext(history, parsed(last.journal.read_bytes())[-1].head.hex(), (), trust.tsa_chains)
    (item,) = (one for one in predicate(last.ledger)["evidence"] if one["type"] == "witness")
    assert f"; it states {after}, WHICH IS LATER" in witness.check(item["data"], context)[1]
    (found,) = of_earlier_seals(replace(seals, stamped=[replace(seals.stamped[0], sealed_at=after)]), context)
    assert (found.verdict, "sealed at 2999-01-01T00:00:00.000000000Z, WHICH IS LATER" in found.text) == (
        EvidenceState.HOLDS,
        True,
    )
