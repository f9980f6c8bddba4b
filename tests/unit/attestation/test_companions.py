"""Your own peak tables and policies travel with the ledger that names them, and are not trusted for that reason."""

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from flopsd.attestation import ledger_files
from flopsd.attestation.foreign_files import foreign_files
from flopsd.attestation.ledger_files import LedgerFiles, companions_beside, read_ledger_files, write_ledger_files
from flopsd.attestation.seal import Sealed
from flopsd.attestation.storage import s3
from flopsd.attestation.storage.copies import copy_journal, copy_ledger
from flopsd.attestation.storage.deliveries import Deliveries
from flopsd.errors import LedgerError, NotVerifiedError
from flopsd.journal.delivery_note import read_deliveries
from flopsd.report.ledger_text import merged_text, sealed_text
from flopsd.settings.data_files import Tables, load_peaks, load_policies
from flopsd.settings.locations import S3Location, parse_location
from flopsd.system.known_files import Content, put_file
from flopsd.testing import FakeClock
from tests.second_implementation.arithmetic import payload_of
from tests.support.jobs import Nodes, gpus, sagemaker
from tests.support.os_calls import Killed
from tests.support.own_files import Own
from tests.support.paths import ROOT
from tests.support.process import in_little_memory, in_process
from tests.support.runs import Run, finished


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Own:
    made = Own.in_folder(tmp_path / "own")
    monkeypatch.setattr("tests.support.runs.table", lambda: load_peaks(made.peaks))
    return made


def sealed_by(own: Own, folder: Path, *policies: str) -> tuple[Run, Sealed]:
    run = finished(folder / "state", 12, policies=load_policies(policies))
    return run, own.seal(run, folder / "ledger.json", *policies)


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("count", [1, 2])
def test_companions_move_with_the_ledger_and_are_accepted_one_by_one(own: Own, tmp_path: Path, count: int) -> None:
    _, sealed = sealed_by(own, tmp_path / "made", "eu-ai-act", *own.policies[:count])
    given = [own.peaks, *own.policies[:count]]
    assert sorted(path.read_bytes() for path in sealed.companions) == sorted(Path(one).read_bytes() for one in given)
    for file in given:
        Path(file).unlink()
    far = tmp_path / "far"
    shutil.copytree(tmp_path / "made", far, ignore=shutil.ignore_patterns("state"))
    command = ["verify", str(far / "ledger.json"), "--key", str(far / "ledger.pub")]
    table, *rules = (far / path.name for path in sealed.companions)
    refused = in_process(*command, code=3)
    assert f"rated by a peak table that is not flopsd's own: {table}, SHA-256 " in flat(refused.stdout)
    assert f"its rates are the sender's: every FLOP follows from them; read it, then accept it with --peaks {table}"\
        in flat(refused.stderr)  # fmt: skip
    other = far / "by-another-route.yaml"
    shutil.copy(table, other)
    other_bytes(other)
    assert f", which is not that of {other}" in flat(in_process(*command, "--peaks", str(other), code=3).stdout)
    command += ["--peaks", str(table)]
    refused = in_process(*command, code=3)
    for one in rules:  # all of them at once
        assert f"judged by a policy that is not flopsd's own: {one}, SHA-256 " in flat(refused.stdout)
        assert f"read it, then accept it with --policy {one}" in flat(refused.stderr)
    unread = flat(in_process("report", str(far / "ledger.json"), code=0).stdout)
    assert all(f"{one.name} came with the ledger; read it first." in unread for one in (table, *rules))
    command += [word for one in rules for word in ("--policy", str(one))]
    said = flat(in_process(*command, code=0).stdout)
    assert said.count("POLICY: judged by a policy that is not flopsd's own: ") == count
    assert command[2:] == sealed_text(sealed).splitlines()[-1].replace(str(tmp_path / "made"), str(far)).split()[3:]
    explained = in_process(*command, "--explain", code=0).stdout
    assert all(str(one) in explained for one in (table, *rules)), "it names what the reader accepts"


def other_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"#\n")


def sparse(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(10**9)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_to_a_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.long
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (other_bytes, "its SHA-256 is "),
        (sparse, "larger than 1048576 bytes"),
        (fifo, "not a regular file"),
        (link_to_a_device, "not a regular file"),
        (folder, "Is a directory"),
        (Path.unlink, ""),
    ],
)
def test_a_file_with_only_the_right_name_is_refused_and_not_copied(
    own: Own, tmp_path: Path, spoil: Callable[[Path], object], why: str
) -> None:
    _, sealed = sealed_by(own, tmp_path, own.policies[0])
    table, rules = sealed.companions
    spoil(rules)
    sha256 = load_policies([own.policies[0]])[0].sha256
    says = f"no policy with SHA-256 {sha256}" + (f"; {rules} does not match: {why}" if why else "")
    command = ("verify", str(sealed.ledger), "--key", str(sealed.public_key), "--peaks", str(table))
    if spoil is sparse:
        in_little_memory((command, 3, "does not match: larger than 1048576 bytes"))
    else:
        assert says in flat(in_process(*command, code=3).stdout)
    assert [*companions_beside(sealed.ledger)] == [table.name.removeprefix("ledger.")]
    (copied,) = copy_ledger(sealed.ledger, [tmp_path / "copy" / "l.json"], FakeClock(), 9)
    assert copied.fault is None
    assert [path.name for path in (tmp_path / "copy").glob("*.yaml")] == [table.name.replace("ledger", "l")]


def test_a_seal_killed_at_any_point_leaves_a_ledger_with_its_companions(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later ledger is of the same journal, with another policy."""

    ledger, clock = tmp_path / "at" / "ledger.json", FakeClock()
    run = Run(tmp_path / "state", policies=load_policies(own.policies[:1]))
    run.meter(12)
    first = read_ledger_files(own.seal(run, tmp_path / "1" / "ledger.json", own.policies[0], live=True).ledger)
    run.kill()
    run.policies = load_policies(own.policies[1:])
    run.start()
    run.meter(12)
    run.finish()
    second = read_ledger_files(own.seal(run, tmp_path / "2" / "ledger.json", own.policies[1]).ledger)
    assert not first.companions.keys() >= second.companions.keys()

    def left_by_a_kill_after(writes: int) -> bool:
        """Whether it was killed at all."""
        shutil.rmtree(ledger.parent, ignore_errors=True)
        write_ledger_files(ledger, first, clock)
        left = iter(range(writes))

        def put(path: Path, content: Content, mode: int | None = None) -> None:
            if next(left, None) is None:
                raise Killed
            put_file(path, content, mode)

        with monkeypatch.context() as patch:
            patch.setattr(ledger_files, "put_file", put)
            try:
                write_ledger_files(ledger, second, clock)
            except Killed:
                return True
        return False

    writes = 0
    while left_by_a_kill_after(writes):
        verifies(ledger)
        writes += 1
    assert writes == len(second.beside(ledger))
    verifies(ledger)
    assert companions_beside(ledger).keys() == second.companions.keys(), "and none of the ledger before"


def verifies(ledger: Path) -> None:
    """Check that the ledger verifies with the files next to it."""
    method = payload_of(ledger)["predicate"]["method"]
    wanted = [("peaks", method["peakTableSha256"]), *(("policy", one["sha256"]) for one in method["policies"])]
    files = [word for kind, sha256 in wanted
             for word in (f"--{kind}", str(ledger.with_name(f"ledger.{kind}-{sha256[:16]}.yaml")))]  # fmt: skip
    in_process("verify", str(ledger), "--key", str(ledger.with_suffix(".pub")), *files, code=0)


def test_companions_go_wherever_the_ledger_goes(own: Own, tmp_path: Path) -> None:
    run, sealed = sealed_by(own, tmp_path, *own.policies)
    names = {path.name for path in sealed.companions}
    assert len(names) == 3
    there = tmp_path / "there" / "ledger.json"
    deliveries = Deliveries(run.state, run.clock)
    deliveries.note(sealed.ledger, [there])
    (noted,) = read_deliveries(run.state.deliveries)
    assert {f"ledger.{name}" for name in noted.sha256} > names
    (done,) = deliveries.deliver(9)
    assert done.copy.fault is None
    assert {path.name for path in there.parent.glob("*.yaml")} == names
    other_bytes(sealed.companions[0])
    deliveries.note(sealed.ledger, [tmp_path / "later.json"])
    far = parse_location("s3://bucket/runs/ledger.json")
    assert isinstance(far, S3Location)
    keys = [str(one) for one in s3.objects(far, read_ledger_files(there))]
    assert {key.rpartition("/")[2] for key in keys} == {path.name for path in there.parent.iterdir()}
    assert keys[-1] == "s3://bucket/runs/ledger.json"


def test_a_companion_that_changed_since_the_seal_is_not_delivered(own: Own, tmp_path: Path) -> None:
    run, sealed = sealed_by(own, tmp_path, *own.policies)
    deliveries = Deliveries(run.state, run.clock)
    deliveries.note(sealed.ledger, [tmp_path / "there" / "ledger.json"])
    other_bytes(sealed.companions[2])
    (done,) = deliveries.deliver(9)
    assert sealed.companions[2].name in (done.copy.fault or "")
    assert not (tmp_path / "there").exists()


def test_a_ledger_put_aside_takes_its_companions_along(own: Own, tmp_path: Path) -> None:
    _, first = sealed_by(own, tmp_path / "a", own.policies[0])
    second, _ = sealed_by(own, tmp_path / "b", own.policies[1])
    own.seal(second, first.ledger, own.policies[1])
    (kept,) = first.ledger.parent.glob("ledger-until-*.json")
    for ledger, policy in ((kept, own.policies[0]), (first.ledger, own.policies[1])):
        assert {file.path.read_bytes() for file in companions_beside(ledger).values()} == {
            Path(policy).read_bytes(),
            Path(own.peaks).read_bytes(),
        }


def test_a_journal_that_cannot_be_sealed_takes_its_companions_along(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, sealed = sealed_by(own, tmp_path, *own.policies)
    companions = {path.name.removeprefix("ledger."): path for path in sealed.companions}
    (tmp_path / "old.journal.jsonl").write_text("another run's")
    places = [tmp_path / "new" / "l.json", tmp_path / "old.json"]
    copies = copy_journal(run.state.journal, companions, places, run.clock, 9)
    assert [path.name for path in (tmp_path / "new").glob("*.jsonl")] == ["l.journal.jsonl"]
    for copy in copies:
        assert copy.fault is None
        assert isinstance(copy.location, Path)
        ledger = copy.location.with_name(copy.location.name.replace(".journal.jsonl", ".json"))
        assert companions_beside(ledger).keys() == companions.keys()
    assert copies[0] == copy_journal(run.state.journal, companions, places[:1], run.clock, 9)[0], "no second copy of it"
    objects = dict[S3Location, object]()
    monkeypatch.setattr("flopsd.attestation.storage.s3.upload", lambda _, found, __: objects.update(found))
    locked = S3Location("b", "runs/l.json", lock_mode="COMPLIANCE", lock_days=9)
    (to_s3,) = copy_journal(run.state.journal, companions, [locked], run.clock, 9)
    assert (to_s3.location, to_s3.fault) == (S3Location("b", "runs/l.rolling.journal.jsonl"), None)
    assert {place.key for place in objects} == {
        "runs/l.rolling.journal.jsonl", *(f"runs/l.rolling.{name}" for name in companions)
    }  # fmt: skip
    assert {place.lock_mode for place in objects} == {None}  # a later seal writes another state


def test_a_merged_ledger_has_its_childrens_companions_and_its_own(own: Own, tmp_path: Path, nodes: Nodes) -> None:
    children = []
    for rank, rules in enumerate(own.policies):
        devices, judged = gpus(f"node-{rank}"), load_policies([rules])
        how = {"context": sagemaker(rank), "run_id": "job", "policies": judged, "devices": devices}
        run = finished(tmp_path / str(rank), 5, **how)
        children.append(own.seal(run, nodes.folder / f"{rank}.json", rules, key=nodes.key).ledger)
    merged = nodes.merge(*children, peaks_files=[own.peaks], policy_files=own.policies)
    beside = {file.path.read_bytes() for file in companions_beside(merged.ledger).values()}
    assert beside == {Path(one).read_bytes() for one in (own.peaks, *own.policies)}
    assert merged_text(merged).count("that is not flopsd's own") == 3
    command = merged_text(merged).splitlines()[-1].split()[1:]
    assert command.count("--policy") == 2
    in_process(*command, code=0)
    refused = in_process(*command[:4], code=3)
    assert "judged by a policy that is not flopsd's own: " in flat(refused.stdout)
    with pytest.raises(NotVerifiedError, match="judged by a policy") as missing:
        nodes.merge(*children, peaks_files=[own.peaks], policy_files=own.policies[:1])
    assert str(children[1].with_suffix("")) in str(missing.value)
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as packed:
        packed.add(nodes.folder, "job", filter=lambda one: None if "out" in one.name else one)
    with pytest.raises((LedgerError, NotVerifiedError), match=r"packed\.tar\.gz:job/0\.peaks-") as packed_too:
        nodes.merge(tmp_path / "packed.tar.gz", policy_files=own.policies)
    assert "accept it with --peaks" in packed_too.value.hint


def test_a_merge_with_other_rules_leaves_no_old_companion(own: Own, nodes: Nodes) -> None:
    run = finished(nodes.folder / "state", 5, context=sagemaker(0, ("algo-1",)), run_id="job", policies=())
    child = own.seal(run, nodes.folder / "one.json", key=nodes.key).ledger
    for rules in own.policies:
        merged = nodes.merge(child, peaks_files=[own.peaks], policy_files=[rules])
        assert len(companions_beside(merged.ledger)) == 2
    assert {file.path for file in companions_beside(merged.ledger).values()} == set(merged.companions)


def test_a_packaged_file_is_no_companion_under_any_name(tmp_path: Path) -> None:
    copied = tmp_path / "mine.yaml"
    shutil.copy(ROOT / "config" / "policies" / "eu-ai-act.yaml", copied)
    run = finished(tmp_path / "state", 2, policies=load_policies([str(copied)]))
    assert run.seal(tmp_path / "ledger.json", policy_files=[str(copied)]).companions == ()


def test_a_deliveries_note_names_no_file_elsewhere(tmp_path: Path) -> None:
    run = finished(tmp_path / "state", 2)
    sealed = run.seal(tmp_path / "ledger.json")
    Deliveries(run.state, run.clock).note(sealed.ledger, [tmp_path / "there.json"])
    note = run.state.deliveries
    note.write_text(note.read_text().replace('"journal":', '"../../etc/passwd":'))
    with pytest.raises(Exception, match="its content is not as flopsd writes it"):
        read_deliveries(note)


def test_companions_are_listed_from_ledger_files_alone() -> None:
    files = LedgerFiles(b"ledger", None, b"key", {"policy-0123456789abcdef.yaml": b"rules"})
    order = [path.name for path in files.beside(Path("/at/ledger.json"))]
    assert order == ["ledger.policy-0123456789abcdef.yaml", "ledger.pub", "ledger.json"], "the ledger is last"


def test_a_table_that_only_some_ledgers_of_a_job_were_rated_by_is_said_to_be_theirs() -> None:
    ours, own = load_peaks().sha256, "ab" * 32
    for tables, where in (([own], ""), ([own, ours], " in the ledgers that name it")):
        (found,) = foreign_files({"method": {"peakTableSha256": tables, "policies": []}}, Tables())
        assert found.text.endswith(f"its rates are the sender's, and every FLOP follows from them{where}.")
