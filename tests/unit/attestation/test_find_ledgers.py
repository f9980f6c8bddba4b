"""Places of ledgers: folders, globs, SageMaker's archives, S3. Nothing is skipped silently."""

import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flopsd.attestation.merge import archives as archive_module
from flopsd.attestation.merge import find_ledgers, ledger_folders
from flopsd.attestation.merge.ledger_folders import _CHUNK, _MARK, looks_like_a_ledger
from flopsd.attestation.merge.read_child import ChildReader
from flopsd.attestation.seal import seal_journal
from flopsd.attestation.signing.dsse import sign
from flopsd.attestation.signing.keys import load_signer
from flopsd.core.envelope import encode_envelope
from flopsd.core.ledger.statement import STATEMENT_TYPE
from flopsd.errors import LedgerError, NotVerifiedError
from tests.support.jobs import Nodes, sagemaker
from tests.support.runs import Run

BUCKET = "training"


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    made = Nodes(tmp_path)
    for rank in (0, 1):
        made.ledger(sagemaker(rank))
    return made


@pytest.fixture
def want(nodes: Nodes) -> bytes:
    """The result of merging both files; every other way to name them must give the same bytes."""
    return nodes.merge(*sorted((nodes.folder / "ledgers").rglob("ledger.json"))).ledger.read_bytes()


def pack(folder: Path, target: Path) -> Path:
    """As SageMaker packs /opt/ml/output/data."""
    with tarfile.open(target, "w:gz") as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, arcname=str(path.relative_to(folder)), recursive=False)
    return target


def test_a_folder_a_glob_and_an_archive_give_the_same_ledgers(
    nodes: Nodes, want: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledgers = nodes.folder / "ledgers"
    assert nodes.merge(ledgers).ledger.read_bytes() == want
    assert nodes.merge(f"{ledgers}/*/ledger.json").ledger.read_bytes() == want
    assert nodes.merge(f"{ledgers}/**/*.json").ledger.read_bytes() == want
    assert nodes.merge(pack(ledgers, nodes.folder / "output.tar.gz")).ledger.read_bytes() == want
    monkeypatch.chdir(ledgers / "algo-1")
    assert nodes.merge("ledger.json", "../algo-2").ledger.read_bytes() == want
    (ledgers / "algo-2").rename(ledgers / os.fsdecode(b"algo-2\xff"))  # a name that is not text
    assert nodes.merge(ledgers).ledger.read_bytes() == want


def test_files_that_are_no_ledgers_are_skipped_and_reported(nodes: Nodes, want: bytes) -> None:
    ledgers = nodes.folder / "ledgers"
    (ledgers / "config.json").write_text('{"hidden_size": 4096}')
    (ledgers / ".ledger.json.77").write_text("half of a")
    statement = encode_envelope(b'{"predicateType": "https://slsa.dev/provenance/v1"}', "text/plain", [("", b"x")])
    (ledgers / "provenance.json").write_bytes(statement)
    pack(ledgers / "algo-1", ledgers / "old.tar.gz")
    assert nodes.merge(ledgers).ledger.read_bytes() == want
    assert nodes.notes == [
        f"{ledgers}/: 1 archives were not opened; give those that contain ledgers by name",
        "skipped 1 signed statements that are not flopsd ledgers",
    ]
    with pytest.raises(NotVerifiedError, match="provenance.json: "):
        nodes.merge(ledgers / "provenance.json")
    later = {"_type": STATEMENT_TYPE, "predicateType": "urn:uuid:0#compute-ledger-v2", "predicate": {}}
    (ledgers / "later.json").write_bytes(sign(json.dumps(later).encode(), load_signer(nodes.key)))
    with pytest.raises(NotVerifiedError, match="later.json: the predicate has type") as refused:
        nodes.merge(ledgers)
    assert refused.value.hint == "a newer flopsd reads it"


def test_a_folder_that_contains_the_output_can_be_merged_again(nodes: Nodes, want: bytes) -> None:
    out = nodes.folder / "ledgers" / "job.ledger.json"
    for _ in range(2):
        assert nodes.merge(nodes.folder / "ledgers", ledger=out).ledger.read_bytes() == want
    with pytest.raises(LedgerError, match="job.ledger.json: this is a ledger of kind 'job'"):
        nodes.merge(nodes.folder / "ledgers")


def test_a_damaged_ledger_or_a_journal_without_a_ledger_is_not_skipped(nodes: Nodes) -> None:
    ledger = nodes.folder / "ledgers" / "algo-2" / "ledger.json"
    ledger.write_bytes(b"")
    with pytest.raises(NotVerifiedError, match="algo-2/ledger.json is empty"):
        nodes.merge(nodes.folder / "ledgers")
    ledger.unlink()
    with pytest.raises(LedgerError, match="the journal .*algo-2/ledger.journal.jsonl has no ledger next to it"):
        nodes.merge(nodes.folder / "ledgers", allow_incomplete=True)


def test_an_unreadable_input_is_named(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    circle = nodes.folder / "ledgers" / "x.json"
    circle.symlink_to("x.json")
    with pytest.raises(LedgerError, match="cannot read .*x.json: Too many levels of symbolic links"):
        nodes.merge(nodes.folder / "ledgers")
    for glob in ("ledgers/*/ledger.json", "**/x.json/*.json"):
        with pytest.raises(
            LedgerError, match="cannot read .*x.json.*: Too many levels .*, and .* may have ledgers there"
        ):
            nodes.merge(f"{nodes.folder}/{glob}")
    circle.unlink()

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(ChildReader, "read", fails)
    with pytest.raises(LedgerError, match="cannot read .*algo-1/ledger.json: Input/output error"):
        nodes.merge(nodes.folder / "ledgers")
    monkeypatch.setattr(find_ledgers, "in_folder", fails)
    with pytest.raises(LedgerError, match="cannot read .*ledgers: Input/output error"):
        nodes.merge(nodes.folder / "ledgers")


def test_the_output_of_an_earlier_merge_is_not_merged_again(nodes: Nodes, want: bytes, tmp_path: Path) -> None:
    """For example where a shell expands all ledgers of the folder into which the job's ledger is written."""
    out = nodes.folder / "ledgers" / "job.json"
    given = sorted((nodes.folder / "ledgers").rglob("ledger.json"))
    (link := tmp_path / "link.json").symlink_to(out)
    for arguments in (given, [*given, out], [*given, link], [nodes.folder / "ledgers"]):
        assert nodes.merge(*arguments, ledger=out).ledger.read_bytes() == want


def test_arguments_that_match_nothing_are_reported(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for argument, reason in (
        (tmp_path / ("n" * 300), "does not exist and matches nothing"),
        (tmp_path / "nowhere", ".*nowhere' does not exist and matches nothing"),
        (f"{tmp_path}/*.nothing", "does not exist and matches nothing"),
        (tmp_path / "empty", "no ledger found in .*empty"),
        ("s3://", "no bucket is given"),
    ):
        with pytest.raises(LedgerError, match=reason):
            nodes.merge(nodes.folder / "ledgers", argument)


KEPT = ("algo-1.rolling.json", "algo-1-until-20261128T194901613043Z.json", "algo-1-until-20261128T194901613043Z-2.json")


def with_earlier(nodes: Nodes, name: str, *, later: bool = False) -> Path:
    """A node's ledger next to an earlier one of its run: the rolling one, or one that was kept."""
    folder = nodes.folder / ("later" if later else "store")
    run = Run(nodes.folder / "rolling" / folder.name, context=sagemaker(0, ("algo-1",)), run_id="train-7")
    run.meter(10)
    earlier, final = folder / name, folder / "algo-1.json"
    for ledger in (final, earlier) if later else (earlier, final):
        seal_journal(run.state.journal, nodes.key, ledger, run.clock, live=True)
        run.meter(10)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("name", KEPT)
def test_an_earlier_ledger_is_skipped_when_its_run_continued(nodes: Nodes, bucket: object, name: str) -> None:
    folder = with_earlier(nodes, name)
    want = nodes.merge(folder / "algo-1.json").ledger.read_bytes()
    packed = pack(folder, nodes.folder / "o.tar.gz")
    for given in ([folder], sorted(folder.glob("*.json")), [f"{folder}/*.json"], [packed]):
        assert nodes.merge(*given).ledger.read_bytes() == want
        assert any("skipped" in words for words in nodes.notes)
    for place, prefix in (("run/", "run/"), ("", "algo-1")):
        upload(bucket, folder, place)
        assert nodes.merge(f"s3://{BUCKET}/{prefix}").ledger.read_bytes() == want
        assert nodes.notes == [f"s3://{BUCKET}/{prefix}: ledgers skipped as earlier states of those next to them: 1"]
    alone = nodes.merge(folder / name, trust=[str(nodes.public)])
    assert (alone.ledgers, nodes.notes) == (1, [])
    upload(bucket, with_earlier(nodes, name, later=True), "more/")  # it has more records than the final one
    for given in ([nodes.folder / "later"], sorted((nodes.folder / "later").glob("*.json")), [f"s3://{BUCKET}/more/"]):
        with pytest.raises(LedgerError, match="node 'algo-1' is given twice for the same time"):
            nodes.merge(*given)


# Archives


def add(archive: tarfile.TarFile, name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    archive.addfile(info, io.BytesIO(data))


def add_ledgers(archive: tarfile.TarFile, nodes: Nodes, below: str = "") -> None:
    for file in sorted((nodes.folder / "ledgers").rglob("*.json*")):
        archive.add(file, arcname=f"{below}{file.parent.name}/{file.name}")


def twice(archive: tarfile.TarFile, name: str) -> None:
    for each in ("a.json", name):
        add(archive, each, b'{"payloadType": ""}')


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda a: add(a, "/etc/ledger.json"), "the name '/etc/ledger.json' points outside of the archive"),
        (lambda a: add(a, "../../ledger.json"), "the name '../../ledger.json' points outside of the archive"),
        (lambda a: add(a, "a/../../x.txt"), "points outside of the archive"),
        (lambda a: add(a, "a.json", kind=tarfile.SYMTYPE, link="/etc/passwd"), "'a.json' is a link or device"),
        (lambda a: add(a, "a.json", kind=tarfile.LNKTYPE, link="b.json"), "'a.json' is a link or device"),
        (lambda a: add(a, "a.journal.jsonl", kind=tarfile.FIFOTYPE), "is a link or device"),
        (lambda a: twice(a, "a.json"), "contains 'a.json' twice"),
        (lambda a: twice(a, "./a.json"), "contains './a.json' twice"),
        (lambda a: add(a, "a.txt"), "no ledger found in"),
    ],
)  # fmt: skip
def test_an_unsafe_archive_is_refused(nodes: Nodes, make: Callable[[tarfile.TarFile], object], reason: str) -> None:
    path = nodes.folder / "output.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        make(archive)
    before = set(nodes.folder.parent.rglob("*"))
    with pytest.raises(LedgerError, match=reason):
        nodes.merge(path)
    assert set(nodes.folder.parent.rglob("*")) - before == {nodes.folder / "out"}


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (header("x.txt", 2**63), "it ends in the middle of a member"),
        (header("x.txt", -1), "has a negative size|invalid offset"),
        (header("././@LongLink", 2**63, tarfile.GNUTYPE_LONGNAME), "it ends in the middle of a member"),
        (header("x", 2**30, tarfile.XHDTYPE) + bytes(5 * 2**20), "more than 4194304 bytes of headers"),
        (header("x", 512, tarfile.XHDTYPE) * 3 * 1000, "is not a complete .tar.gz"),
    ],
    ids=["endless member", "negative member", "endless name", "headers that fill memory", "headers of headers"],
)
def test_an_archives_stated_sizes_are_not_trusted(
    nodes: Nodes, data: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stated size costs no more than the real one: no read beyond the rest of a file's bounds."""
    path, read = nodes.folder / "output.tar.gz", 0
    path.write_bytes(gzip.compress(data + bytes(1024)))
    true_read = gzip.GzipFile.read

    def counted(file: gzip.GzipFile, size: int | None = -1) -> bytes:
        nonlocal read
        read += 1
        assert read < 10_000, "it reads on behind the end"
        return true_read(file, size)

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    with pytest.raises(LedgerError, match=reason):
        nodes.merge(path)


@pytest.mark.parametrize("name", ["GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.major"])
def test_an_archive_with_nonsense_headers_is_refused(nodes: Nodes, name: str) -> None:
    path = nodes.folder / "output.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("notes.txt")
        info.size, info.pax_headers = 5, {name: "1" if name.endswith("major") else "a,b", "GNU.sparse.minor": "0"}
        archive.addfile(info, io.BytesIO(b"a\nb\nc"))
    with pytest.raises(LedgerError, match="is not a complete .tar.gz: "):
        nodes.merge(path)


def test_skipped_members_are_not_kept_in_memory(nodes: Nodes, want: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def next_of(members: Any) -> Any:
        kept.append(len(members.members))
        return true_next(members)

    true_next = tarfile.TarFile.next
    monkeypatch.setattr(tarfile.TarFile, "next", next_of)
    path = nodes.folder / "model.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for number in range(50):
            add(archive, f"shard-{number}.bin")
        add(archive, "weights.bin", kind=tarfile.SYMTYPE, link="/elsewhere")  # refused where it has a ledger's name
        add_ledgers(archive, nodes, "./flopsd/")
    assert nodes.merge(path).ledger.read_bytes() == want
    assert max(kept) <= 1


def test_a_cut_or_altered_archive_is_refused(nodes: Nodes) -> None:
    path = pack(nodes.folder / "ledgers", nodes.folder / "output.tar.gz")
    whole = path.read_bytes()
    altered = whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:]  # within the checksum
    for data in (*(whole[: int(len(whole) * part)] for part in (0.1, 0.5, 0.9, 0.999)), altered, b"no archive"):
        path.write_bytes(data)
        with pytest.raises(LedgerError, match="is not a complete .tar.gz"):
            nodes.merge(path)


def test_the_size_of_members_is_limited(nodes: Nodes, want: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_folders, "MAX_ENVELOPE_BYTES", 100_000)
    with tarfile.open(path := nodes.folder / "output.tar.gz", "w:gz") as archive:
        add_ledgers(archive, nodes)
        add(archive, "tokenizer.json", b" " * 100_001)
    assert nodes.merge(path).ledger.read_bytes() == want
    assert nodes.notes == [f"{path}: skipped 'tokenizer.json', which is too large for a ledger"]
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "x.ledger.json", b" " * 100_001)
    with pytest.raises(LedgerError, match="'x.ledger.json' has 100001 bytes; at most 100000 are allowed"):
        nodes.merge(path)
    monkeypatch.setattr(archive_module, "MAX_UNPACKED_BYTES", 10_000)
    with pytest.raises(LedgerError, match="contains more than 10000 bytes of ledgers and journals"):
        nodes.merge(pack(nodes.folder / "ledgers", nodes.folder / "big.tar.gz"))


def test_messages_name_the_place_in_the_archive(nodes: Nodes) -> None:
    (nodes.folder / "ledgers" / "algo-2" / "ledger.journal.jsonl").unlink()
    path = pack(nodes.folder / "ledgers", nodes.folder / "output.tar.gz")
    with pytest.raises(NotVerifiedError) as caught:
        nodes.merge(path)
    assert str(caught.value).startswith(
        f"{path}:algo-2/ledger.json: the signature is valid, but the journal {path}:algo-2/"
    )


def test_no_file_is_left_in_the_temporary_folder(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    nodes.merge(pack(nodes.folder / "ledgers", nodes.folder / "output.tar.gz"))
    with pytest.raises(LedgerError):
        nodes.merge(pack(nodes.folder / "ledgers" / "algo-1", nodes.folder / "half.tar.gz"))
    assert list((tmp_path / "tmp").iterdir()) == []


# S3


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    import boto3
    from moto import mock_aws

    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield client


def upload(client: object, folder: Path, prefix: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.put_object(Bucket=BUCKET, Key=prefix + str(path.relative_to(folder)), Body=path.read_bytes())  # type: ignore[attr-defined]


@pytest.mark.long
def test_an_s3_prefix_gives_the_same_ledgers(
    nodes: Nodes, want: bytes, bucket: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_folders, "MAX_ENVELOPE_BYTES", 100_000)
    ledgers = nodes.folder / "ledgers"
    (ledgers / "tokenizer.json").write_bytes(b" " * 100_001)  # too large for a ledger
    (ledgers / "config.json").write_text(json.dumps({"a": 1}))
    (ledgers / "old.tar.gz").write_bytes(gzip.compress(b""))
    of_one = next(ledgers.rglob("ledger.json"))
    for ending in (".json", ".journal.jsonl"):
        shutil.copy(of_one.with_suffix(ending), ledgers / f".being-copied{ending}")
    upload(bucket, ledgers, "jobs/train-7/")
    assert nodes.merge(f"s3://{BUCKET}/jobs/train-7/").ledger.read_bytes() == want
    assert nodes.notes == [
        f"s3://{BUCKET}/jobs/train-7/: 1 archives were not opened; give those that contain ledgers by name"
    ]
    (nodes.folder / "packed").mkdir()
    pack(nodes.folder / "ledgers", nodes.folder / "packed" / "output.tar.gz")
    upload(bucket, nodes.folder / "packed", "out/")
    assert nodes.merge(f"s3://{BUCKET}/out/output.tar.gz").ledger.read_bytes() == want


@pytest.mark.long
def test_an_object_missing_from_s3_is_reported_by_name(nodes: Nodes, bucket: object) -> None:
    upload(bucket, nodes.folder / "ledgers", "")
    bucket.delete_object(Bucket=BUCKET, Key="algo-2/ledger.journal.jsonl")  # type: ignore[attr-defined]
    with pytest.raises(
        NotVerifiedError, match=f"^s3://{BUCKET}/algo-2/ledger.json: .* the journal s3://{BUCKET}/algo-2/"
    ):
        nodes.merge(f"s3://{BUCKET}")
    bucket.delete_object(Bucket=BUCKET, Key="algo-1/ledger.json")  # type: ignore[attr-defined]
    with pytest.raises(LedgerError, match=f"the journal s3://{BUCKET}/algo-1/ledger.journal.jsonl has no ledger"):
        nodes.merge(f"s3://{BUCKET}/algo-1/")
    with pytest.MonkeyPatch.context() as set_to:
        set_to.setenv("AWS_ENDPOINT_URL_S3", "minio:9000")
        with pytest.raises(LedgerError, match="cannot read s3://training/: Invalid endpoint: minio:9000") as caught:
            nodes.merge(f"s3://{BUCKET}")
        assert "AWS_ENDPOINT_URL_S3" in str(caught.value.hint)
    for url, reason in (
        (f"s3://{BUCKET}/none/", "no object found under s3://training/none/"),
        ("s3://no-such-bucket/x", "cannot read s3://no-such-bucket/x: .*NoSuchBucket"),
        (f"s3://{BUCKET}/no.tar.gz", "cannot read s3://training/no.tar.gz: .*NoSuchKey"),
    ):
        with pytest.raises(LedgerError, match=reason):
            nodes.merge(url)


@pytest.mark.parametrize("before", [0, 1, _CHUNK - len(_MARK), _CHUNK - 1, _CHUNK, 3 * _CHUNK - 5])
def test_a_signed_envelope_is_recognized_by_its_key_at_any_position(tmp_path: Path, before: int) -> None:
    path = tmp_path / "any.json"
    for mark, found in ((_MARK, True), (_MARK[:-1], False)):
        path.write_bytes(b"x" * before + mark + b"y" * 9)
        assert looks_like_a_ledger(path) == found
