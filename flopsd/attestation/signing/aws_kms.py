"""Keys in AWS KMS: only a digest leaves the host, the key never leaves KMS. Needs the extra `kms`.

    awskms:KEY[?public=PATH]    KEY: key id, key ARN, alias/NAME or alias ARN

Needs the permissions kms:Sign and kms:GetPublicKey; with `public`, the PEM file of the public key, only kms:Sign.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from flopsd.attestation.signing.base import SigningKey
from flopsd.attestation.signing.key_uri import as_text, attributes
from flopsd.attestation.signing.public_key import PublicKey, load_public, need_extra, need_package, usable
from flopsd.core.dataclass import dataclass
from flopsd.errors import KeyFault, SigningKeyError

# SageMaker kills a job 120 s after SIGTERM; waiting for KMS must leave time to save the journal.
TIMEOUT_SECONDS = 2
MAX_ATTEMPTS = 2
NEEDS_EXTRA = "keys in AWS KMS need the packages of the extra 'kms'", "pip install 'flopsd[kms]'"
_ARN = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]+):[0-9]{12}:(?:key|alias)/.+")
_DENIED = {
    "GetPublicKey": "grant kms:GetPublicKey, or give the public key: awskms:KEY?public=PATH",
    "Sign": "grant kms:Sign on this key",
}
_CREDENTIALS = (
    "ExpiredTokenException", "IncompleteSignature", "IncompleteSignatureException", "InvalidClientTokenId",
    "InvalidSignatureException", "MissingAuthenticationToken", "RequestExpired", "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)  # fmt: skip


@dataclass(frozen=True)
class KmsKey(SigningKey):
    """A P-256 key in AWS KMS."""

    key_id: str
    region: str
    _client: Any = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """ECDSA over the SHA-256 of `message`, DER. Raises SigningKeyError."""
        answer = _ask(
            self._client,
            "Sign",
            KeyId=self.key_id,
            Message=hashlib.sha256(message).digest(),
            MessageType="DIGEST",  # RAW ends at 4096 bytes
            SigningAlgorithm="ECDSA_SHA_256",
        )
        return _bytes(answer, "Signature", "Sign")

    def readers(self) -> dict[str, Any]:
        return {"kind": "awskms"}

    def describe(self) -> str:
        return f"the P-256 key {self.key_id} in AWS KMS, region {self.region}"


def load_kms(rest: str, environment: Mapping[str, str]) -> KmsKey:
    """The KMS key named by `rest`, the part of a key URI after `awskms:`. Raises SigningKeyError."""
    need_extra()
    need_package("botocore", NEEDS_EXTRA)
    key_id, given = key_and_public(rest)
    public = None if given is None else load_public(given)
    if public is not None and public.type != "p256":
        raise SigningKeyError(f"{given} is an {public.type} key; keys in AWS KMS are P-256 keys")
    client, region = _client(key_id, environment)
    if public is None:
        public = _ask_public(client, key_id)
    return KmsKey(public, key_id, region, client)


def key_and_public(rest: str) -> tuple[str, str | None]:
    """The key of an `awskms:` URI, and the file of its public key if one is named. Raises SigningKeyError."""
    key_id, _, query = rest.partition("?")
    given = as_text(attributes(query, "&", ("public",), "awskms"), "public", "awskms")
    if not key_id or key_id.startswith("/"):
        raise SigningKeyError(
            f"awskms:{key_id}: no key is given", hint="write awskms:alias/NAME, or a key id or an ARN after awskms:"
        )
    return key_id, given


def _ask_public(client: Any, key_id: str) -> PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    answer = _ask(client, "GetPublicKey", KeyId=key_id)
    where, der = f"the KMS key {key_id}", _bytes(answer, "PublicKey", "GetPublicKey")
    if answer.get("KeyUsage") != "SIGN_VERIFY":
        raise SigningKeyError(
            f"{where} has key usage {answer.get('KeyUsage')}, not SIGN_VERIFY",
            hint="create one with key usage SIGN_VERIFY",
            reason="wrong_kind",
        )
    try:
        public = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as fault:
        raise SigningKeyError(
            f"{where} ({answer.get('KeySpec')}) is of an unsupported kind",
            hint="create it with key spec ECC_NIST_P256",
            reason="wrong_kind",
        ) from fault
    # Judge by the curve of the key itself: KMS lists the same signing algorithms for secp256k1.
    found = usable(public, where, "create it with key spec ECC_NIST_P256")
    if found.type != "p256":
        raise SigningKeyError(
            f"{where} cannot sign a digest, and a ledger exceeds the 4096 bytes that KMS signs directly",
            hint="create it with key spec ECC_NIST_P256",
            reason="wrong_kind",
        )
    return found


def _client(key_id: str, environment: Mapping[str, str]) -> tuple[Any, str]:
    """A KMS client for the region of the key's ARN, else of the AWS configuration, else $AWS_REGION."""
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError
    from botocore.session import get_session

    config = Config(
        connect_timeout=TIMEOUT_SECONDS,
        read_timeout=TIMEOUT_SECONDS,
        retries={"total_max_attempts": MAX_ATTEMPTS, "mode": "standard"},
    )
    arn = _ARN.fullmatch(key_id)
    try:
        session = get_session()
        region = arn[1] if arn else session.get_config_variable("region") or environment.get("AWS_REGION")
        if not region:
            raise SigningKeyError(
                f"the AWS region of the KMS key {key_id} is unknown",
                hint="give the key's ARN, or set AWS_REGION",
                reason="no_credentials",
            )
        session.set_default_client_config(config)  # also applies to STS, if the credentials are a role's
        return session.create_client("kms", region_name=region), region
    except (BotoCoreError, ValueError) as fault:  # ValueError: AWS_ENDPOINT_URL_KMS is not a URL
        raise SigningKeyError(
            f"cannot connect to AWS KMS: {fault}", hint="check the AWS configuration: its files and its variables"
        ) from fault


def _ask(client: Any, operation: str, **arguments: Any) -> Mapping[str, Any]:
    from botocore import exceptions as faults

    call = client.sign if operation == "Sign" else client.get_public_key
    try:
        answer: Mapping[str, Any] = call(**arguments)
    except faults.ClientError as fault:
        error = fault.response.get("Error", {})
        code, message = str(error.get("Code")), " ".join(str(error.get("Message")).split())[:300]
        who, asked, (hint, reason) = "AWS KMS", f"{operation} with {arguments['KeyId']}", _remedy(operation, code)
        if fault.operation_name != operation:  # the credentials are those of a role
            who, asked = "AWS", fault.operation_name
            hint, reason = "check the role, its trust policy, and the web identity token", "no_credentials"
        if _is_temporary(code, fault.response):
            hint, reason = "try again: the key itself is fine", "no_answer"
        raise SigningKeyError(f"{who} refused {asked}: {code}: {message}", hint=hint, reason=reason) from fault
    except (faults.HTTPClientError, faults.ConnectionError) as fault:
        raise SigningKeyError(
            f"no answer from AWS KMS to {operation}: {fault}",
            hint="check region and network, and the VPC endpoint for KMS where there is no internet",
            reason="no_answer",
        ) from fault
    except (faults.BotoCoreError, OSError) as fault:  # OSError: the file of the web identity token
        raise SigningKeyError(
            f"no AWS credentials for {operation}: {fault}",
            hint="give the daemon a role, or credentials in the AWS files or variables",
            reason="no_credentials",
        ) from fault
    return answer


def _remedy(operation: str, code: str) -> tuple[str, KeyFault]:
    """The hint for an error code of KMS, and the reason of the fault."""
    if "AccessDenied" in code or code == "403":
        return _DENIED[operation], "denied"
    if code == "NotFoundException":
        return "check the key's name, the account and the region", "not_found"
    if code == "DisabledException":
        return "enable it: aws kms enable-key --key-id KEY", "disabled"
    if code == "KMSInvalidStateException":
        return "it must be enabled: cancel its deletion if it has one (aws kms cancel-key-deletion)", "disabled"
    if code in _CREDENTIALS:
        hint = "renew the AWS credentials: they are wrong or have expired, or this host's clock is wrong"
        return hint, "no_credentials"
    if code in ("InvalidKeyUsageException", "UnsupportedOperationException"):
        return "the key must be of key spec ECC_NIST_P256 and key usage SIGN_VERIFY", "wrong_kind"
    return "the error says what AWS KMS, or a proxy before it, found; check the key's name and its key store", "other"


def _is_temporary(code: str, answer: Mapping[str, Any]) -> bool:
    """Whether the same request may succeed later: it was throttled, or the service failed."""
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    named = ("DependencyTimeoutException", "KeyUnavailableException", "LimitExceededException", "RequestLimitExceeded")
    return code.startswith("Throttl") or code in named or status == 429 or status >= 500


def _bytes(answer: Mapping[str, Any], name: str, operation: str) -> bytes:
    """A bytes field of the answer. KMS always returns it; a proxy that answers in its place may not."""
    found = answer.get(name)
    if not isinstance(found, bytes):
        raise SigningKeyError(
            f"the answer to {operation} has no {name}: AWS KMS did not send it",
            hint="check the proxy, and the address in AWS_ENDPOINT_URL_KMS if that is set",
            reason="no_answer",
        )
    return found
