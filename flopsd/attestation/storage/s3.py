"""Upload objects to S3 or a compatible store (AWS_ENDPOINT_URL_S3). Needs the extra `s3`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flopsd.attestation.ledger_files import LedgerFiles, journal_beside, public_key_beside
from flopsd.core.envelope import MAX_ENVELOPE_BYTES, encode64, parse_envelope
from flopsd.core.untrusted import parse_json
from flopsd.core.values import whole_number
from flopsd.errors import FlopsdError, NotVerifiedError, OtherFileThereError, StorageError
from flopsd.settings.locations import S3Location
from flopsd.system.clock import NS_PER_S, Clock, file_stamp
from flopsd.system.known_files import Content, KnownFile, known_file, open_content, sha256_of, size_of
from flopsd.system.sha256 import fastest

log = logging.getLogger("flopsd")

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 3, 5, 3
CHECKED_BYTES_PER_S = 20_000_000  # a store takes longer to check a journal of months before it answers
_TEMPORARY = (429, 500, 502, 503, 504)
_CHUNK = 1 << 20
NEEDS_EXTRA = "copying to S3 needs the packages of the extra 's3'", "pip install 'flopsd[s3]'"


def is_installed() -> bool:
    """Whether the packages are installed; imports nothing."""
    return find_spec("botocore") is not None


def objects(ledger: S3Location, files: LedgerFiles) -> dict[S3Location, Content]:
    """The files of a ledger by S3 object; the ledger last, so that its other files exist when it appears."""
    here = Path(ledger.key)
    return {
        ledger if path == here else ledger.beside(path.name): content for path, content in files.beside(here).items()
    }


def upload(ledger: S3Location, objects: Mapping[S3Location, Content], clock: Clock) -> None:
    """Upload `objects`, the files of `ledger`, in the given order; the store checks the SHA-256 of each. An object that
    exists with the same bytes and the required lock is not uploaded again, if we may read it: an upload would add a
    version that nobody can remove before its lock ends. An existing ledger that is no earlier state of this one is
    copied to another name before it is replaced.

    Raises StorageError, OtherFileThereError, and OSError for a file here that cannot be read.
    """
    may_replace = ledger.overwrite and ledger.lock_mode is None  # a locked object remains as an older version

    def put(client: Any, location: S3Location, data: Content) -> None:
        nonlocal may_replace
        if _is_there(client, location, data):
            return
        if may_replace:
            _keep_existing(client, ledger, objects, clock)
            may_replace = False  # from here on it is ours
        try:
            with open_content(data) as body:
                stored = client.put_object(
                    Bucket=location.bucket, Key=location.key, Body=body, **_options(location, data, clock)
                )
            _refuse_answer(stored, location, data)
            if stored.get("ChecksumSHA256") is None:
                _look(client, location, data)
        except client.exceptions.ClientError as fault:
            if _code(fault) == "PreconditionFailed":
                _refuse_another(client, location, data)
            elif not _is_there(client, location, data):
                raise

    _each(objects, put)


def compare(objects: Mapping[S3Location, Content]) -> str:
    """Compare the SHA-256 of the stored objects. Return why one could not be compared, or an empty text. Raises
    StorageError."""
    unread = ""

    def look(client: Any, location: S3Location, data: Content) -> None:
        nonlocal unread
        unread = _look(client, location, data) or unread

    _each(objects, look)
    return unread


def _look(client: Any, location: S3Location, data: Content) -> str:
    """Return why a stored object could not be compared, or an empty text. Raises StorageError if it differs."""
    try:
        there = _head(client, location)
    except client.exceptions.ClientError as fault:
        if _code(fault) == "404":
            raise StorageError(
                f"{location} is not there, although the store confirmed its upload",
                hint="check the bucket's lifecycle rules, and the address in AWS_ENDPOINT_URL_S3 if that is set",
            ) from fault
        if _code(fault) != "403":
            raise
        return f"reading {location} back is not allowed: nothing was compared"
    stored = there.get("ChecksumSHA256")
    if stored is None and there["ContentLength"] == size_of(data):
        return f"the store has no SHA-256 of {location}: only its size was compared"
    if stored != _sha256(data):
        raise StorageError(f"{location} does not hold what was uploaded", hint="find out who else writes there")
    return ""


def _each(objects: Mapping[S3Location, Content], do: Callable[[Any, S3Location, Content], None]) -> None:
    """Call `do` for each object. Every error of the library becomes a StorageError."""
    try:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.session import get_session
    except ImportError as fault:
        raise StorageError(NEEDS_EXTRA[0], hint=NEEDS_EXTRA[1]) from fault
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS + max(map(size_of, objects.values())) / CHECKED_BYTES_PER_S,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
    )
    location: S3Location | None = None
    try:
        client = get_session().create_client("s3", config=config)
        for location, data in objects.items():
            do(client, location, data)
    except ClientError as fault:
        raise StorageError(f"{location}: {_code(fault)}: {fault.response.get('Error', {}).get('Message')}") from fault
    except (BotoCoreError, ValueError) as fault:  # ValueError: AWS_ENDPOINT_URL_S3 is not a URL
        raise StorageError(f"{location or 'S3'}: {fault}") from fault
    except (FlopsdError, OSError):
        raise
    except Exception as fault:  # for instance RecursionError, if a store redirects to itself
        raise StorageError(f"{location or 'S3'}: {type(fault).__name__}: {fault}") from fault


def _options(location: S3Location, data: Content, clock: Clock) -> dict[str, Any]:
    options: dict[str, Any] = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": _sha256(data)}
    if location.lock_mode is not None:
        now = datetime.fromtimestamp(clock.wall_ns() // NS_PER_S, tz=timezone.utc)
        options["ObjectLockMode"] = location.lock_mode.upper()
        options["ObjectLockRetainUntilDate"] = now + timedelta(days=location.lock_days)
    if not location.overwrite:
        options["IfNoneMatch"] = "*"
    return options


def _refuse_answer(stored: Any, location: S3Location, data: Content) -> None:
    """Raises StorageError if the answer is not the store's: a proxy that wants a login may answer in its place."""
    if not stored.get("ETag") or stored.get("ChecksumSHA256") not in (None, _sha256(data)):
        raise StorageError(
            f"{location}: the answer to the upload does not come from an S3 store",
            hint="check the proxy, and the address in AWS_ENDPOINT_URL_S3 if that is set",
        )


def _refuse_another(client: Any, location: S3Location, data: Content) -> None:
    """Raises OtherFileThereError unless the existing object has the same bytes: an earlier attempt stored it and its
    answer was lost."""
    there = _head(client, location)
    if there["ContentLength"] != size_of(data) or _stored_sha256(client, location, there) != _sha256(data):
        raise OtherFileThereError(
            f"{location} already exists with other contents, and overwrite=never is set",
            hint="nothing was overwritten; compare the two; `flopsd copy LEDGER --to` copies this one to another key",
        )


def _keep_existing(client: Any, ledger: S3Location, objects: Mapping[S3Location, Content], clock: Clock) -> None:
    """Copy the existing ledger to another name, unless the upload continues its journal and has the same key. Nothing
    is copied if we may never read the objects; a temporary failure to read raises."""
    key = Path(ledger.key)
    journal, public_key = (ledger.beside(name(key).name) for name in (journal_beside, public_key_beside))
    found = (_is_earlier_state(client, place, objects) for place in (journal, ledger))
    is_earlier = next((one for one in found if one is not None), None)
    has_another_key = is_earlier and _is_earlier_state(client, public_key, objects) is False
    if is_earlier is None or (is_earlier and not (has_another_key and _is_of(client, ledger, objects.get(journal)))):
        return
    kept = key.with_name(f"{key.stem}-until-{file_stamp(clock.wall_ns())}{key.suffix}")
    for name, other in ((place(key).name, place(kept).name) for place in (journal_beside, public_key_beside, Path)):
        source, target = ledger.beside(name), ledger.beside(other)
        try:
            client.copy_object(
                Bucket=target.bucket, Key=target.key, CopySource={"Bucket": source.bucket, "Key": source.key},
                TaggingDirective="REPLACE",
            )  # fmt: skip
        except client.exceptions.ClientError as fault:
            if _code(fault) not in ("NoSuchKey", "404"):
                raise
    log.warning(
        "%s held a ledger that is not an earlier state of this one, or that another key signed: it is kept as %s",
        ledger,
        ledger.beside(kept.name),
    )


def _is_earlier_state(client: Any, location: S3Location, objects: Mapping[S3Location, Content]) -> bool | None:
    """Whether the existing object is the beginning of the one to be uploaded. None if none exists or is to be uploaded,
    or we may never read it; a temporary failure raises."""
    if location not in objects:
        return None
    try:
        there = _head(client, location)
        if (size := there["ContentLength"]) > size_of(objects[location]):
            return False
        found = _stored_sha256(client, location, there)
    except client.exceptions.ClientError as fault:
        if fault.response["ResponseMetadata"]["HTTPStatusCode"] in _TEMPORARY:
            raise
        return None
    return found == _sha256(_first(objects[location], size))


def _is_of(client: Any, ledger: S3Location, journal: Content | None) -> bool:
    """Whether the existing ledger may be of the beginning of `journal`. If not, the ledger was kept before an upload
    that replaced its journal and was then interrupted."""
    try:
        body = client.get_object(Bucket=ledger.bucket, Key=ledger.key)["Body"].read(MAX_ENVELOPE_BYTES)
        statement = parse_json(parse_envelope(body).payload, "the payload")
        size = whole_number(statement["predicate"]["method"]["journal"]["bytes"])
        digest = statement["subject"][0]["digest"]["sha256"]
    except (client.exceptions.ClientError, NotVerifiedError, LookupError, TypeError, ValueError):
        return True
    return journal is None or (size <= size_of(journal) and sha256_of(_first(journal, size)) == digest)


def _stored_sha256(client: Any, location: S3Location, there: Any) -> str:
    """The SHA-256 of an object with the head `there`; downloads the object if the store does not have it."""
    if (known := there.get("ChecksumSHA256")) is not None:
        return str(known)
    digest = fastest()(b"")
    for chunk in client.get_object(Bucket=location.bucket, Key=location.key)["Body"].iter_chunks(_CHUNK):
        digest.update(chunk)
    return encode64(digest.digest())


def _first(content: Content, size_bytes: int) -> Content:
    return known_file(content.path, size_bytes) if isinstance(content, KnownFile) else content[:size_bytes]


def _is_there(client: Any, location: S3Location, data: Content) -> bool:
    """Whether the object exists with these bytes, locked for as long as required from when it was stored; False if we
    may not read it."""
    try:
        there = _head(client, location)
    except client.exceptions.ClientError:
        return False
    if there.get("ChecksumSHA256") != _sha256(data):
        return False
    if location.lock_mode is None:
        return True
    until = there.get("ObjectLockRetainUntilDate")
    stored = there["LastModified"] - timedelta(minutes=5)  # this is by the store's clock, the lock was set by ours
    is_held = until is not None and until >= stored + timedelta(days=location.lock_days)
    return is_held and there.get("ObjectLockMode") == location.lock_mode.upper()


def _head(client: Any, location: S3Location) -> Any:
    return client.head_object(Bucket=location.bucket, Key=location.key, ChecksumMode="ENABLED")


def _sha256(data: Content) -> str:
    return encode64(bytes.fromhex(sha256_of(data)))


def _code(fault: Any) -> str:
    return str(fault.response.get("Error", {}).get("Code"))
