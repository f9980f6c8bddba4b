"""Copies in S3 through real HTTP: what is stored and locked, and the cost of a store that fails or hangs."""

import hashlib
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from flopsd.attestation.signing.pem import make_pem
from flopsd.system.clock import NS_PER_S, SystemClock
from tests.support.authorities import Answer, serving
from tests.support.own_files import Own
from tests.support.process import environment, flopsd, in_process, predicate, started, wait_until
from tests.support.runs import finished, sealed_run
from tests.support.s3 import Store
from tests.support.s3 import serving as serving_s3

ENDS = (".json", ".journal.jsonl", ".pub")


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with serving_s3() as found:
        yield found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state folder of a run that ended and was not sealed."""
    finished(tmp_path / "state", 12)
    return tmp_path / "state"


def seal(state: Path, store: Store, *more: str) -> subprocess.CompletedProcess[str]:
    return in_process("seal", "--state-dir", str(state), *more, env=environment(None, None, **store.variables))


def fetched(store: Store, bucket: str, stem: str, folder: Path) -> Path:
    """The ledger as somebody else finds it: only the bucket's objects. The ledger is read first: the next rolling
    seal may meanwhile put a longer journal there, which contains the sealed part too."""
    folder.mkdir(exist_ok=True)
    for key in sorted(store.keys(bucket), key=lambda key: not key.endswith(".json")):
        if key.startswith(f"{stem}."):
            (folder / Path(key).name).write_bytes(store.get(bucket, key))
    return folder / f"{Path(stem).name}.json"


def test_a_run_into_s3_only_leaves_all_files_there_and_a_copy_here(tmp_path: Path, store: Store) -> None:
    bucket, state = store.bucket("only"), tmp_path / "state"
    own = Own.in_folder(tmp_path / "own")
    table, rule = own.peaks, own.policies[0]
    done = flopsd("run", "--source", "replay", "--state-dir", str(state), "--listen", "off", "--duration", "1.5",
                  "--peaks", table, "--policy", rule, "--run-id", "job", "--ledger", f"s3://{bucket}/runs/{{run}}/algo-1.json",
                  env=environment(None, None, **store.variables), code=0)  # fmt: skip
    assert f"copied to   s3://{bucket}/runs/job/algo-1.json" in done.stderr
    beside = [f".{kind}-{hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]}.yaml"
              for kind, file in (("peaks", table), ("policy", rule))]  # fmt: skip
    assert store.keys(bucket) == [f"runs/job/algo-1{end}" for end in sorted((*ENDS, *beside))]
    assert predicate(fetched(store, bucket, "runs/job/algo-1", tmp_path / "far")) == predicate(
        state / "job.ledger.json"
    )


def test_object_lock_holds_every_object_for_the_requested_time(tmp_path: Path, state: Path, store: Store) -> None:
    bucket, other = store.bucket("locked", lock=True), tmp_path / "mnt" / "ledger.json"
    done = seal(state, store, "--ledger", str(tmp_path / "ledger.json"), "--ledger-copy", str(other), "--ledger-copy",
                f"s3://{bucket}/a/ledger.json?lock=governance&days=30&overwrite=never")  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert f" {other} " in said
    assert f" s3://{bucket}/a/ledger.json " in said
    assert other.read_bytes() == (tmp_path / "ledger.json").read_bytes()
    predicate(other)
    soon = datetime.fromtimestamp(SystemClock().wall_ns() // NS_PER_S, tz=timezone.utc)
    client = store.client()
    for end in ENDS:
        head = client.head_object(Bucket=bucket, Key=f"a/ledger{end}")
        held = head["ObjectLockRetainUntilDate"] - soon
        assert head["ObjectLockMode"] == "GOVERNANCE"
        assert timedelta(days=29, hours=23) < held <= timedelta(days=30)
        with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
            client.delete_object(Bucket=bucket, Key=f"a/ledger{end}", VersionId=head["VersionId"])
    # Delivered again, the same bytes are no new version; a longer lock is.
    for days, versions in ((30, 3), (40, 6)):
        address = f"s3://{bucket}/a/ledger.json?lock=governance&days={days}"
        env = environment(None, None, **store.variables)
        in_process("copy", str(tmp_path / "ledger.json"), "--to", address, env=env, code=0)
        assert len(client.list_object_versions(Bucket=bucket)["Versions"]) == versions


def test_existing_objects_are_not_overwritten_and_no_local_file_is_lost(
    tmp_path: Path, state: Path, store: Store
) -> None:
    bucket, ledger = store.bucket("never"), tmp_path / "ledger.json"
    store.client().put_object(Bucket=bucket, Key="l.journal.jsonl", Body=b"another run's")
    never, free = f"s3://{bucket}/l.json?overwrite=never", f"s3://{bucket}/m.json"
    done = seal(state, store, "--ledger", str(ledger), "--ledger-copy", never, "--ledger-copy", free)
    assert done.returncode == 1
    assert f"NOT COPIED to s3://{bucket}/l.json: s3://{bucket}/l.journal.jsonl already exists" in done.stderr
    assert f"hint: {ledger} itself is complete" in done.stderr
    assert f"copied to   {free}" in done.stdout
    assert store.get(bucket, "l.journal.jsonl") == b"another run's"
    assert store.keys(bucket) == ["l.journal.jsonl", *(f"m{end}" for end in sorted(ENDS))]
    predicate(ledger)
    # Nothing is tried again before manual action; then the sealed bytes go there.
    copy, env = ("copy", "--state-dir", str(state)), environment(None, None, **store.variables)
    assert "1 ledger of" in in_process(*copy, "--background", env=env, code=0).stdout
    in_process(*copy, env=env, code=1, says="l.journal.jsonl already exists with other contents")
    store.client().delete_object(Bucket=bucket, Key="l.journal.jsonl")
    in_process(*copy, env=env, code=0)
    assert store.get(bucket, "l.json") == ledger.read_bytes()


def test_a_ledger_of_another_machine_under_the_same_name_is_kept(tmp_path: Path, store: Store) -> None:
    """A node returns with an empty disk: only the rolling ledger in the bucket remains of its first machine."""
    bucket = store.bucket("again")

    def rolling(name: str, state: str, *more: str) -> tuple[Path, str]:
        done = seal(tmp_path / state, store, "--rolling", "--ledger", str(tmp_path / f"{name}.json"),
                    "--ledger-copy", f"s3://{bucket}/node.json", *more)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return tmp_path / f"{name}.json", done.stderr

    finished(tmp_path / "first", 12)
    finished(tmp_path / "again", 4)
    first, said = rolling("first", "first")
    assert "kept as" not in said
    again, said = rolling("again", "again")
    (kept,) = (key for key in store.keys(bucket) if re.fullmatch(r"node\.rolling-until-\w+\.json", key))
    assert f"kept as s3://{bucket}/{kept}" in said
    assert store.get(bucket, "node.rolling.json") == again.read_bytes()
    ledger = fetched(store, bucket, kept.removesuffix(".json"), tmp_path / "far")
    assert ledger.read_bytes() == first.read_bytes()
    in_process("verify", str(ledger), "--key", str(ledger.with_suffix(".pub")), "--allow-replay", code=0)
    make_pem(tmp_path / "other.pem")
    _, said = rolling("resigned", "again", "--key", str(tmp_path / "other.pem"))
    assert "kept as" in said, "the same journal, which another key had signed"


def test_an_existing_ledger_without_a_journal_or_a_sha256_is_kept(tmp_path: Path, state: Path, store: Store) -> None:
    bucket, client = store.bucket("unlike"), store.client()
    journal = (state / "journal.jsonl").read_bytes()
    begun = journal[: journal.index(b"\n") + 1]
    theirs = {f"merged{end}": b"theirs" for end in (".json", ".pub")} | {f"foreign{end}": b"theirs" for end in ENDS}
    for key, data in theirs.items() | {("ours.json", b"an earlier state"), ("ours.journal.jsonl", begun)}:
        client.put_object(Bucket=bucket, Key=key, Body=data)
    assert "ChecksumSHA256" not in client.head_object(Bucket=bucket, Key="ours.json", ChecksumMode="ENABLED")
    to = [word for stem in ("merged", "foreign", "ours") for word in ("--ledger-copy", f"s3://{bucket}/{stem}.json")]
    done = seal(state, store, "--ledger", str(tmp_path / "ledger.json"), *to)
    assert done.returncode == 0, done.stderr
    kept = [re.sub(r"-until-\w+", "", key) for key in store.keys(bucket) if "-until-" in key]
    assert kept == sorted(theirs)
    assert {store.get(bucket, key) for key in store.keys(bucket) if "-until-" in key} == {b"theirs"}
    for end in ENDS:  # the same bytes are no other file
        client.put_object(Bucket=bucket, Key=f"same{end}", Body=(tmp_path / f"ledger{end}").read_bytes())
    never = ("--to", f"s3://{bucket}/same.json?overwrite=never")
    in_process("copy", str(tmp_path / "ledger.json"), *never, env=environment(None, None, **store.variables), code=0)


def test_two_locked_buckets_one_late_hold_the_sealed_bytes(tmp_path: Path, store: Store) -> None:
    state, env = tmp_path / "state", environment(None, None, **store.variables)
    common = ("--state-dir", str(state), "--run-id", "job")
    run = ("run", "--source", "replay", "--listen", "off", "--state-dir", str(state), "--run-id")
    buckets = ("first", "second", "third")
    locked = "job.json?lock=governance&days=1&overwrite=never"
    copies = [word for bucket in buckets for word in ("--ledger-copy", f"s3://{bucket}/{locked}")]
    store.bucket("first", lock=True)
    done = flopsd(*run, "job", "--duration", "0.6", *copies, env=env, code=1)
    assert re.findall(r"NOT COPIED to s3://(\w+)/job.json: \S+: NoSuchBucket", done.stderr) == ["second", "third"]
    sealed = (state / "job.ledger.json").read_bytes()

    store.bucket("second", lock=True)
    done = in_process("seal", *common, *copies, env=env, code=1, says="NOT COPIED to s3://third/job.json")
    assert f"{state / 'job.ledger.json'} was already sealed and is unchanged" in done.stdout
    assert re.findall(r"copied to +s3://(\w+)/", done.stdout) == ["second"]

    store.bucket("third", lock=True)
    with started(*run, "next", env=env) as program:
        program.wait_for("every ledger that was still to be copied is delivered now")
    for bucket in buckets:
        assert store.get(bucket, "job.json") == sealed
        versions = store.client().list_object_versions(Bucket=bucket)["Versions"]
        assert sorted(one["Key"] for one in versions) == sorted(f"job{end}" for end in ENDS)  # each was written once
    assert predicate(fetched(store, "third", "job", tmp_path / "far"))["run"]["id"] == "job"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("s3://no-such-bucket/l.json", "NoSuchBucket"),
        ("s3://plain/l.json?lock=compliance&days=1", "s3://plain/l.journal.jsonl: InvalidRequest"),
    ],
)
def test_a_refusing_store_is_quoted(tmp_path: Path, state: Path, store: Store, place: str, reason: str) -> None:
    if "plain" in place:
        store.bucket("plain")
    done = seal(state, store, "--ledger", str(tmp_path / "ledger.json"), "--ledger-copy", place)
    assert done.returncode == 1
    assert reason in done.stderr
    predicate(tmp_path / "ledger.json")


def test_without_credentials_or_packages_the_reason_is_reported(tmp_path: Path, state: Path, store: Store) -> None:
    place = ("--ledger", str(tmp_path / "ledger.json"), "--ledger-copy", "s3://bucket/l.json")
    nobody = {name: value for name, value in store.variables.items() if "KEY" not in name}
    done = flopsd("seal", "--state-dir", str(state), *place, env=environment(None, None, HOME=str(tmp_path), **nobody))
    assert done.returncode == 1
    assert "Unable to locate credentials" in done.stderr
    lacking = "import sys; sys.modules['botocore'] = None; from flopsd.cli.main import main; main(sys.argv[1:])"
    for verb in (("seal",), ("run", "--source", "replay", "--listen", "off", "--duration", "0.5")):
        without = subprocess.run([sys.executable, "-c", lacking, *verb, "--state-dir", str(state), *place],
                                 env=environment(None, None, **store.variables), capture_output=True, text=True, check=False)  # fmt: skip
        assert without.returncode == 1
        assert "copying to S3 needs the packages of the extra 's3'; pip install 'flopsd[s3]'" in without.stderr
    assert without.stderr.index("will not be copied") < without.stderr.index("sealed ")  # reported at the begin


@contextmanager
def silent() -> Iterator[str]:
    """A store that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_hanging_store_is_given_up_within_the_stop_window(tmp_path: Path, state: Path) -> None:
    with silent() as url:
        mute = Store(url)
        for window, reason in (("6", "not finished within [1-4] s"), ("60", "Read timeout on endpoint URL")):
            ledger = tmp_path / f"{window}.json"
            done = seal(state, mute, "--ledger", str(ledger), "--stop-within", window,
                        *(part for n in range(3) for part in ("--ledger-copy", f"s3://bucket/{n}.json")))  # fmt: skip
            assert done.returncode == 1
            assert done.stderr.count("NOT COPIED") == 3
            assert re.search(reason, done.stderr), done.stderr
            predicate(ledger)
        refused = Store("http://127.0.0.1:9")
        assert (
            "Could not connect to the endpoint URL"
            in seal(state, refused, "--ledger", str(tmp_path / "r.json"), "--ledger-copy", "s3://bucket/l.json").stderr
        )


def test_under_exec_a_hanging_store_costs_neither_exit_code_nor_ledger(tmp_path: Path) -> None:
    """The launcher would report having to kill the daemon, and would seal again if it counted this as no seal."""
    ledger = tmp_path / "ledger.json"
    with silent() as url:
        done = flopsd("exec", "--source", "replay", "--state-dir", str(tmp_path / "state"), "--listen", "off", "--ledger",
                      str(ledger), "--ledger-copy", "s3://bucket/l.json", "--stop-within", "8", "--", "sh", "-c",
                      "sleep 1; exit 5", env=environment(None, None, **Store(url).variables))  # fmt: skip
    assert done.returncode == 5
    assert "NOT COPIED to s3://bucket/l.json: not finished within" in done.stderr
    assert "did not end within" not in done.stderr
    assert "did not seal" not in done.stderr
    assert predicate(ledger)["incarnations"][0]["endReason"] == "job_ended"


@contextmanager
def before(store: Store, change: Callable[[BaseHTTPRequestHandler, Callable[[], Answer]], Answer]) -> Iterator[Store]:
    """A proxy that may replace the answer of the store behind it."""

    def hand_on(request: BaseHTTPRequestHandler, body: bytes) -> Answer:
        def ask() -> Answer:
            line = http.client.HTTPConnection(store.url.removeprefix("http://"))
            line.request(request.command, request.path, body, dict(request.headers.items()))
            answer = line.getresponse()
            data = answer.read()
            line.close()
            left_out = ("connection", "transfer-encoding", "date", "server")
            return answer.status, data, {k: v for k, v in answer.getheaders() if k.lower() not in left_out}

        return change(request, ask)

    with serving(hand_on) as url:
        yield Store(url)


def test_an_upload_whose_answer_was_lost_is_no_conflict(tmp_path: Path, state: Path, store: Store) -> None:
    bucket = store.bucket("lost")
    dropped = threading.Event()

    def drop_the_first(request: BaseHTTPRequestHandler, ask: Callable[[], Answer]) -> Answer:
        answer = ask()
        if request.command == "PUT" and not dropped.is_set():
            dropped.set()
            request.connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionError
        return answer

    with before(store, drop_the_first) as bad:
        done = seal(state, bad, "--ledger", str(tmp_path / "ledger.json"),
                    "--ledger-copy", f"s3://{bucket}/l.json?overwrite=never")  # fmt: skip
    assert dropped.is_set()
    assert done.returncode == 0, done.stderr
    predicate(fetched(store, bucket, "l", tmp_path / "far"))


def test_an_upload_that_is_acknowledged_and_not_kept_is_no_copy(tmp_path: Path, state: Path, store: Store) -> None:
    bucket = store.bucket("gone")

    def keep_nothing(request: BaseHTTPRequestHandler, ask: Callable[[], Answer]) -> Answer:
        return (200, b"", {"ETag": '"0"'}) if request.command == "PUT" else ask()

    with before(store, keep_nothing) as bad:
        done = seal(state, bad, "--ledger", str(tmp_path / "ledger.json"), "--ledger-copy", f"s3://{bucket}/l.json")
    assert done.returncode == 1
    assert f"NOT COPIED to s3://{bucket}/l.json: s3://{bucket}/l.journal.jsonl is not there, although" in done.stderr


def refused(code: str) -> Answer:
    return (
        403 if code == "AccessDenied" else 400,
        f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode(),
        {},
    )


def test_an_object_refused_for_a_while_is_delivered_later(tmp_path: Path, state: Path, store: Store) -> None:
    """Expired credentials, a store that allows no second write, and one that allows no reading."""
    bucket, ledger, at = store.bucket("while"), tmp_path / "ledger.json", ("--state-dir", str(state))
    rules = {"PUT": "ExpiredToken"}  # the refusal, by method

    def refuse(request: BaseHTTPRequestHandler, ask: Callable[[], Answer]) -> Answer:
        return refused(rules[request.command]) if request.command in rules else ask()

    with before(store, refuse) as strict:
        env = environment(None, None, **strict.variables)
        place, other = f"s3://{bucket}/l.json", f"s3://{bucket}/m.json"
        common = (*at, "--ledger", str(ledger), "--ledger-copy", place)
        in_process(
            "seal", *common, env=env, code=1, says=f"NOT COPIED to {place}: s3://{bucket}/l.journal.jsonl: ExpiredToken"
        )
        in_process("copy", "--background", *at, env=env, code=1, says="ExpiredToken")
        rules.clear()
        assert in_process("copy", "--background", "-q", *at, env=env, code=0).stderr == ""
        assert in_process("copy", *at, env=env, code=0).stdout == f"nothing is pending in {state}\n"
        rules["PUT"] = "AccessDenied"
        in_process("copy", str(ledger), "--to", place, *at, env=env, code=0)  # these very bytes are there
        in_process("copy", str(ledger), "--to", other, *at, env=env, code=1, says="m.journal.jsonl: AccessDenied")
        del rules["PUT"]
        rules["HEAD"] = "AccessDenied"
        done = in_process("copy", str(ledger), "--to", other, *at, env=env, code=0)
        assert f"reading s3://{bucket}/m.json back is not allowed" in done.stdout
    for stem in ("l", "m"):
        assert store.get(bucket, f"{stem}.json") == ledger.read_bytes()
    store.client().put_object(Bucket=bucket, Key="l.json", Body=b"another")
    in_process("copy", str(ledger), "--to", f"{place}?overwrite=never", *at, code=1, says="compare the two",
               env=environment(None, None, **store.variables))  # fmt: skip

    # An object that cannot be read now may be another run's, and a proxy in front of the store may have answered for
    # it.
    store.client().put_object(Bucket=bucket, Key="l.journal.jsonl", Body=b"another run's", ChecksumAlgorithm="SHA256")
    busy, portal = (503, b"", dict[str, str]()), (200, b"<html></html>", dict[str, str]())
    for method, odd, name, says in (
        ("HEAD", busy, "l.json", "503: Serv"),
        ("PUT", portal, "n.json", "not come from an S3 store"),
    ):

        def answer(request: BaseHTTPRequestHandler, ask: Callable[[], Answer], to: Any = (method, odd)) -> Answer:
            return to[1] if request.command == to[0] else ask()

        with before(store, answer) as bad:
            in_process("copy", str(ledger), "--to", f"s3://{bucket}/{name}", *at, code=1, says=says,
                       env=environment(None, None, **bad.variables))  # fmt: skip
    assert store.get(bucket, "l.journal.jsonl") == b"another run's"


def test_rolling_ledgers_have_their_own_name_and_no_lock(tmp_path: Path, store: Store) -> None:
    bucket, ledger = store.bucket("rolling", lock=True), tmp_path / "ledger.json"
    copies = (f"s3://{bucket}/a.json?lock=compliance&days=1&overwrite=never", f"s3://{bucket}/b.json?rolling=off")
    with started("exec", "--source", "replay", "--state-dir", str(tmp_path / "state"), "--listen", "off", "--ledger",
                 str(ledger), "--seal-every", "1", "--ledger-copy", copies[0], "--ledger-copy", copies[1], "--", "sleep",
                 "600", env=environment(None, None, **store.variables)) as program:  # fmt: skip
        versions: set[str] = set()

        def replaced() -> bool:
            if "a.rolling.json" in store.keys(bucket):
                versions.add(store.client().head_object(Bucket=bucket, Key="a.rolling.json")["VersionId"])
            return len(versions) >= 2

        wait_until(replaced, "two rolling ledgers in the bucket, one after the other")
        assert store.keys(bucket) == [f"a.rolling{end}" for end in sorted(ENDS)]
        assert "ObjectLockMode" not in store.client().head_object(Bucket=bucket, Key="a.rolling.json")
        assert predicate(fetched(store, bucket, "a.rolling", tmp_path / "far"))["incarnations"][-1]["endReason"] is None
        program.process.terminate()
        assert program.finish() == 143, program.text
    assert {f"{stem}{end}" for stem in ("a", "b") for end in ENDS} < set(store.keys(bucket))
    assert store.client().head_object(Bucket=bucket, Key="a.json")["ObjectLockMode"] == "COMPLIANCE"
    for stem in ("a", "b"):
        assert predicate(fetched(store, bucket, stem, tmp_path / "end"))["incarnations"][-1]["endReason"] == "job_ended"
    assert json.loads(store.get(bucket, "a.json")) == json.loads(ledger.read_bytes())


@pytest.mark.parametrize("fails", ["until", "node.journal.jsonl", "node.pub", "node.json"])
def test_an_upload_that_is_interrupted_keeps_whole_ledgers(tmp_path: Path, store: Store, fails: str) -> None:
    """The second ledger is of another journal and key. Whatever upload fails once, each ledger that is there later has
    its own journal and key."""
    bucket, failed = store.bucket(f"interrupted-{fails.replace('.', '-')}"), list[str]()

    def fail_once(request: BaseHTTPRequestHandler, ask: Callable[[], Answer]) -> Answer:
        if request.command == "PUT" and not failed and fails in request.path:
            failed.append(request.path)
            return refused("ExpiredToken")
        return ask()

    first = sealed_run(tmp_path)
    for path in (first.journal, first.public_key, first.ledger):
        key = path.name.replace("ledger", "node", 1)
        store.client().put_object(Bucket=bucket, Key=key, Body=path.read_bytes(), ChecksumAlgorithm="SHA256")
    finished(tmp_path / "again", 4)
    again = ("--ledger", str(tmp_path / "again.json"), "--ledger-copy", f"s3://{bucket}/node.json")
    with before(store, fail_once) as bad:
        assert seal(tmp_path / "again", bad, *again).returncode == 1
    assert seal(tmp_path / "again", store, *again).returncode == 0
    found = [key for key in store.keys(bucket) if key.endswith(".json")]
    assert len(found) >= 2
    for key in found:
        ledger = fetched(store, bucket, key.removesuffix(".json"), tmp_path / "far")
        in_process("verify", str(ledger), "--key", str(ledger.with_suffix(".pub")), "--allow-replay", code=0)
