"""Upload objects to S3 or a compatible store (AWS_ENDPOINT_URL_S3). Needs the extra `s3`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from typing import Any

from flopsd.core.envelope import encode64
from flopsd.errors import StorageError
from flopsd.settings.locations import S3Location
from flopsd.system.clock import NS_PER_S, Clock

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 3, 5, 3
NEEDS_EXTRA = "copying to S3 needs the packages of the extra 's3'", "pip install 'flopsd[s3]'"


def is_installed() -> bool:
    """Whether the packages are installed; imports nothing."""
    return find_spec("boto3") is not None


def upload(objects: Mapping[S3Location, bytes], clock: Clock) -> None:
    """Upload `objects` in the given order; the store checks the SHA-256 of each. Raises StorageError."""
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
    location: S3Location | None = None
    try:
        client = boto3.session.Session().client("s3", config=config)
        for location, data in objects.items():
            try:
                client.put_object(
                    Bucket=location.bucket, Key=location.key, Body=data, **_options(location, data, clock)
                )
            except ClientError as fault:
                if _code(fault) != "PreconditionFailed":
                    raise
                _refuse_another(client, location, data)
    except ClientError as fault:
        raise StorageError(f"{location}: {_code(fault)}: {fault.response.get('Error', {}).get('Message')}") from fault
    except (BotoCoreError, ValueError) as fault:  # ValueError: AWS_ENDPOINT_URL_S3 is not a URL
        raise StorageError(f"{location or 'S3'}: {fault}") from fault


def _options(location: S3Location, data: bytes, clock: Clock) -> dict[str, Any]:
    options: dict[str, Any] = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": _sha256(data)}
    if location.lock_mode is not None:
        now = datetime.fromtimestamp(clock.wall_ns() // NS_PER_S, tz=timezone.utc)
        options["ObjectLockMode"] = location.lock_mode.upper()
        options["ObjectLockRetainUntilDate"] = now + timedelta(days=location.lock_days)
    if not location.overwrite:
        options["IfNoneMatch"] = "*"
    return options


def _refuse_another(client: Any, location: S3Location, data: bytes) -> None:
    """An object with the same bytes is from an earlier attempt whose answer was lost. Any other is kept."""
    there = client.head_object(Bucket=location.bucket, Key=location.key, ChecksumMode="ENABLED")
    if there.get("ChecksumSHA256") != _sha256(data):
        raise StorageError(
            f"{location} already exists with other contents, and overwrite=never is set",
            hint="nothing was overwritten; choose another object key",
        )


def _sha256(data: bytes) -> str:
    return encode64(hashlib.sha256(data).digest())


def _code(fault: Any) -> str:
    return str(fault.response.get("Error", {}).get("Code"))
