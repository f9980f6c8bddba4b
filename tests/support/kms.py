"""AWS KMS by moto, as a server of its own: `python -m tests.support.kms HOST` prints its address and serves.

moto 5.2.5 takes `MessageType=DIGEST` and hashes the digest again, so that its signatures never verify
(https://github.com/getmoto/moto/pull/10202). The shim here signs a digest as AWS does, without hashing it. It is
needed until moto does so itself, and harmless afterwards.
"""

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
REGION = "eu-west-1"


def sign_digests_as_they_are() -> None:
    """Patch moto in this process, permanently."""
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
    from moto.kms.exceptions import ValidationException
    from moto.kms.models import KmsBackend
    from moto.kms.responses import KmsResponse

    asked = threading.local()
    respond, sign = KmsResponse.sign, KmsBackend.sign
    hashes = {"ECDSA_SHA_256": SHA256(), "ECDSA_SHA_384": SHA384(), "ECDSA_SHA_512": SHA512()}

    def remember(self: Any) -> Any:
        asked.type = self._get_param("MessageType") or "RAW"
        return respond(self)

    def sign_digest(self: Any, key_id: str, message: bytes, signing_algorithm: str) -> Any:
        answer = sign(self, key_id, message, signing_algorithm)  # with all of moto's checks
        if asked.type != "DIGEST" or signing_algorithm not in hashes:
            return answer
        digest = hashes[signing_algorithm]
        if len(message) != digest.digest_size:
            raise ValidationException("Digest is invalid length for algorithm " + signing_algorithm)
        private = self.describe_key(key_id).private_key.private_key
        return answer[0], private.sign(message, ECDSA(Prehashed(digest))), signing_algorithm

    setattr(KmsResponse, "sign", remember)  # noqa: B010  mypy takes no assignment to a method
    setattr(KmsBackend, "sign", sign_digest)  # noqa: B010


class Kms:
    """A running server, and its customer's actions on it."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a process's AWS SDK finds the server, and none of the host's own AWS settings."""
        return {
            "AWS_ENDPOINT_URL_KMS": self.url, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }  # fmt: skip

    def client(self, service: str = "kms") -> Any:
        return _client(self.url, service)

    def new_key(self, spec: str = "ECC_NIST_P256", alias: str | None = None, usage: str = "SIGN_VERIFY") -> str:
        arn: str = self.client().create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]["Arn"]
        if alias is not None:
            self.client().create_alias(AliasName=f"alias/{alias}", TargetKeyId=arn)
        return arn

    def user(self, *actions: str) -> dict[str, str]:
        """The variables of a user who may perform only these actions. From now on the server checks permissions."""
        iam = self.client("iam")
        iam.create_user(UserName="flopsd")
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
        iam.put_user_policy(UserName="flopsd", PolicyName="p", PolicyDocument=json.dumps(document))
        key = iam.create_access_key(UserName="flopsd")["AccessKey"]
        reset = urllib.request.Request(
            f"{self.url}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
        )
        with urllib.request.urlopen(reset) as answer:
            assert answer.status == 200
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


@cache
def _client(url: str, service: str) -> Any:
    from botocore.session import get_session

    return get_session().create_client(
        service, region_name=REGION, endpoint_url=url, aws_access_key_id="test", aws_secret_access_key="test"
    )


@contextmanager
def kms_server(host: str = "127.0.0.1") -> Iterator[Kms]:
    command = [sys.executable, "-m", "tests.support.kms", host]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          stdin=subprocess.PIPE, text=True) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            line = next((line for line in process.stdout if line.startswith("kms at ")), None)
            assert line is not None, "moto's server did not start"
            yield Kms(line.split()[-1])
        finally:
            process.kill()


def _serve() -> None:
    from moto.server import ThreadedMotoServer

    sign_digests_as_they_are()
    server = ThreadedMotoServer(ip_address=sys.argv[1], port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"kms at http://{host}:{port}", flush=True)
    sys.stdin.read()  # until the parent process is gone
    server.stop()


if __name__ == "__main__":
    _serve()
