"""moto's S3 as a server of its own: in another process and over real HTTP, so that the program finds it like any
store."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

SERVE = (
    "import sys; from moto.server import ThreadedMotoServer; server = ThreadedMotoServer(sys.argv[1], 0, verbose=False);"
    "server.start(); print(server.get_host_and_port()[1], flush=True); sys.stdin.read(); server.stop()"
)


@dataclass(frozen=True)
class Store:
    """A running store, with the environment variables that flopsd needs, and queries for tests."""

    url: str

    @property
    def variables(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": self.url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "eu-central-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip

    def client(self) -> Any:
        return _client(self.url)

    def bucket(self, name: str, *, lock: bool = False) -> str:
        where = {"LocationConstraint": "eu-central-1"}
        self.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock, CreateBucketConfiguration=where)
        return name

    def keys(self, bucket: str) -> list[str]:
        return sorted(found["Key"] for found in self.client().list_objects_v2(Bucket=bucket).get("Contents", ()))

    def get(self, bucket: str, key: str) -> bytes:
        data: bytes = self.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        return data


@cache
def _client(url: str) -> Any:
    import boto3

    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "eu-central-1"}
    return boto3.session.Session().client("s3", endpoint_url=url, **keys)


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Store]:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, host],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield Store(f"http://{host}:{int(process.stdout.readline())}")
        finally:
            process.kill()
