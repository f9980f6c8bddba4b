"""Objects of S3 and of what speaks like it (AWS_ENDPOINT_URL_S3). Needs the extra `s3`."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from typing import Any

from flopsd.errors import StorageError
from flopsd.settings.locations import S3Location
from flopsd.system.clock import NS_PER_S, Clock

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 3, 5, 3
NEEDS_EXTRA = "copying to S3 needs the packages of the extra 's3'", "pip install 'flopsd[s3]'"


def is_installed() -> bool:
    """Whether copying can work here; loads nothing."""
    return find_spec("boto3") is not None


def upload(objects: Mapping[S3Location, bytes], clock: Clock) -> None:
    """Put `objects` in the given order, each checked by the store against its SHA-256. Raises StorageError."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as fault:
        raise StorageError(NEEDS_EXTRA[0], hint=NEEDS_EXTRA[1]) from fault
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
    )
    place: S3Location | None = None
    try:
        client = boto3.session.Session().client("s3", config=config)
        for place, data in objects.items():
            try:
                client.put_object(Bucket=place.bucket, Key=place.key, Body=data, **_asked(place, data, clock))
            except ClientError as fault:
                if _code(fault) != "PreconditionFailed":
                    raise
                _refuse_another(client, place, data)
    except ClientError as fault:
        raise StorageError(f"{place}: {_code(fault)}: {fault.response.get('Error', {}).get('Message')}") from fault
    except (BotoCoreError, ValueError) as fault:  # ValueError: AWS_ENDPOINT_URL_S3 is no URL
        raise StorageError(f"{place or 'S3'}: {fault}") from fault


def _asked(place: S3Location, data: bytes, clock: Clock) -> dict[str, Any]:
    asked: dict[str, Any] = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": _sha256(data)}
    if place.lock_mode is not None:
        now = datetime.fromtimestamp(clock.wall_ns() // NS_PER_S, tz=timezone.utc)
        asked["ObjectLockMode"] = place.lock_mode.upper()
        asked["ObjectLockRetainUntilDate"] = now + timedelta(days=place.lock_days)
    if not place.overwrite:
        asked["IfNoneMatch"] = "*"
    return asked


def _refuse_another(client: Any, place: S3Location, data: bytes) -> None:
    """An object with these very bytes is ours, from an attempt whose answer was lost. Any other stays as it is."""
    there = client.head_object(Bucket=place.bucket, Key=place.key, ChecksumMode="ENABLED")
    if there.get("ChecksumSHA256") != _sha256(data):
        raise StorageError(
            f"{place} is there already, with other contents, and overwrite=never was asked for",
            hint="nothing was overwritten; give the ledger another key",
        )


def _sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode("ascii")


def _code(fault: Any) -> str:
    return str(fault.response.get("Error", {}).get("Code"))
