"""Ledgers under an `s3://bucket/prefix`: listed page by page, fetched one by one. Needs the extra `s3`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flopsd.attestation.foreign_files import foreign_files
from flopsd.attestation.merge.archives import in_archive
from flopsd.attestation.merge.ledger_folders import (
    ARCHIVE_ENDINGS,
    LEDGER_ENDING,
    FoundLedger,
    Note,
    final_of,
    is_earlier_state,
    lone_journal,
    looks_like_a_ledger,
    most_bytes,
    note_skipped,
)
from flopsd.attestation.signed_statement import read_ledger, statement_in
from flopsd.core.companions import companion_name
from flopsd.core.envelope import parse_envelope
from flopsd.core.values import is_digest
from flopsd.errors import FlopsdError, LedgerError, NotVerifiedError
from flopsd.journal.segments import ENDING as JOURNAL_ENDING
from flopsd.settings.data_files import Tables

SCHEME = "s3://"
ATTEMPTS = 4
CONNECT_SECONDS, READ_SECONDS = 5, 60
_CHUNK = 1 << 20


def in_s3(url: str, temporary: Path, note: Note) -> Iterator[FoundLedger]:
    """The ledgers under `url`, or in the archive that it names. Each is on disk until the next is requested. Raises
    LedgerError."""
    bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
    if not bucket:
        raise LedgerError(f"{url!r}: no bucket is given", hint="write s3://bucket/prefix")
    store = _Store(bucket)
    if prefix.endswith(ARCHIVE_ENDINGS):
        with TemporaryDirectory(dir=temporary) as folder:
            archive = Path(folder) / "archive.tar.gz"
            store.fetch(prefix, archive, None)
            yield from in_archive(archive, url, Path(folder), note)
        return
    yield from _under(store, prefix, temporary, note)


def _under(store: _Store, prefix: str, temporary: Path, note: Note) -> Iterator[FoundLedger]:
    archives = listed = earlier = 0
    journals, packaged = set[str](), Tables()
    for key, size in store.keys(prefix):
        listed += 1
        folder, _, name = key.rpartition("/")
        archives += name.endswith(ARCHIVE_ENDINGS)
        if name.endswith(JOURNAL_ENDING):
            journals.add(key.removesuffix(JOURNAL_ENDING))
        elif name.endswith(LEDGER_ENDING):
            stem, most = key.removesuffix(LEDGER_ENDING), most_bytes(name)
            has_journal = stem in journals
            journals.discard(stem)
            if most is None or (not has_journal and size > most):
                continue
            with TemporaryDirectory(dir=temporary) as parts:
                ledger = Path(parts) / name
                store.fetch(key, ledger, most)
                if not has_journal and not looks_like_a_ledger(ledger):
                    continue
                for ending in (JOURNAL_ENDING, *(f".{name}" for name in _companions(ledger, packaged))):
                    part = ledger.with_name(ledger.stem + ending)
                    store.fetch(stem + ending, part, most_bytes(part.name), needed=False)
                if _is_superseded(store, folder, ledger):
                    earlier += 1
                    continue
                yield FoundLedger(ledger, f"{store.name}/{folder}/" if folder else f"{store.name}/", False)
    if journals:
        raise lone_journal(f"{store.name}/{min(journals)}{JOURNAL_ENDING}")
    note_skipped(earlier, archives, f"{store.name}/{prefix}", note)
    if not listed:
        raise LedgerError(f"no object found under {store.name}/{prefix}")


def _companions(ledger: Path, packaged: Tables) -> list[str]:
    """The names of the companions that a ledger may have; empty if the file is not a ledger."""
    try:
        foreign = foreign_files(statement_in(parse_envelope(read_ledger(ledger)))["predicate"], packaged)
    except (NotVerifiedError, LookupError, TypeError):
        return []
    return [companion_name(one.kind, one.sha256) for one in foreign if is_digest(one.sha256)]


def _is_superseded(store: _Store, folder: str, ledger: Path) -> bool:
    """Whether a ledger is an earlier state of the ledger that replaced it. Fetches that ledger's files next to it."""
    final = final_of(ledger.name)
    if final is None:
        return False
    for name in (final, final.removesuffix(LEDGER_ENDING) + JOURNAL_ENDING):
        key = f"{folder}/{name}" if folder else name
        store.fetch(key, ledger.with_name(name), most_bytes(name), needed=False)
    return is_earlier_state(ledger)


class _Store:
    """One bucket. Every failure is a LedgerError that names the object."""

    def __init__(self, bucket: str) -> None:
        try:
            from botocore.config import Config
            from botocore.session import get_session
        except ImportError as fault:
            raise LedgerError(
                "reading from S3 needs the packages of the extra 's3'", hint="pip install 'flopsd[s3]'"
            ) from fault
        self.bucket, self.name = bucket, f"{SCHEME}{bucket}"
        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        )
        with self._errors(""):
            self._client: Any = get_session().create_client("s3", config=config)

    def keys(self, prefix: str) -> Iterator[tuple[str, int]]:
        """The names and sizes in bytes of the objects under a prefix, in S3's order."""
        with self._errors(prefix):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                for found in page.get("Contents", ()):
                    yield found["Key"], found["Size"]

    def fetch(self, key: str, path: Path, most: int | None, *, needed: bool = True) -> None:
        """Write an object of at most `most` bytes to `path`. A missing object is an error only if `needed`."""
        with self._errors(key):
            try:
                answer = self._client.get_object(Bucket=self.bucket, Key=key)
            except self._client.exceptions.NoSuchKey:
                if needed:
                    raise
                return
            if most is not None and answer["ContentLength"] > most:
                raise LedgerError(f"{self.name}/{key} has {answer['ContentLength']} bytes; at most {most} are allowed")
            with closing(answer["Body"]) as body, path.open("wb") as file:
                for chunk in body.iter_chunks(_CHUNK):
                    file.write(chunk)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError, ValueError) as fault:  # ValueError: the endpoint is not a URL
            raise self._unread(key, fault) from fault
        except FlopsdError:
            raise
        except OSError as fault:
            raise LedgerError(
                f"cannot write {self.name}/{key} to disk: {fault.strerror or fault}",
                hint="set TMPDIR to a folder with free disk space",
            ) from fault
        except Exception as fault:  # for instance RecursionError, if a store redirects to itself
            raise self._unread(key, fault) from fault

    def _unread(self, key: str, fault: Exception) -> LedgerError:
        return LedgerError(
            f"cannot read {self.name}/{key}: {fault}",
            hint="the role needs s3:ListBucket and s3:GetObject; the region comes from AWS_REGION or the profile, "
            "an endpoint such as https://minio:9000 from AWS_ENDPOINT_URL_S3",
        )
