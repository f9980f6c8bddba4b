"""`rfc3161`: a timestamp authority's statement that a signature of the ledger existed at a time.

It covers the signature's bytes, so it cannot be in the payload. It is in the signature's object in the envelope:
`"timestamps": [{"type": "rfc3161", "token": BASE64 OF THE DER TimeStampResp}]`. Needs the extra `timestamp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timezone
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from flopsd.attestation.evidence.item import EvidenceKind, EvidenceState
from flopsd.attestation.times import TOLERANCE_NS
from flopsd.core.rounding import format_duration
from flopsd.core.values import utc_ns
from flopsd.errors import EvidenceError
from flopsd.settings.evidence_kinds import TIMESTAMP
from flopsd.system.clock import NS_PER_S

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, Name

KIND = EvidenceKind(
    TIMESTAMP,
    4,
    "The timestamp authority signed that this signature, and so this ledger, existed at that time.",
    "It proves 'not later than', never 'not earlier than', and only to those who trust the authority. "
    "Whoever holds the file can remove it.",
)
_TIMEOUT_SECONDS = 2
_LIMIT_BYTES = 256 * 1024


def fetch(signature: bytes, url: str) -> bytes:
    """The authority's TimeStampResp over `signature`, in DER: granted, for this request and these bytes. Whether the
    authority can be trusted is not checked here but by the verifier. Raises EvidenceError."""
    from flopsd.attestation.evidence.http import request  # imports an HTTP client: only when sealing

    lib = _lib()
    builder = lib.TimestampRequestBuilder().data(signature).hash_algorithm(lib.HashAlgorithm.SHA256)
    query = builder.nonce(nonce=True).cert_request(cert_request=True).build()
    answer = request(
        url,
        method="POST",
        headers={"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"},
        body=query.as_bytes(),
        timeout_seconds=_TIMEOUT_SECONDS,
        limit_bytes=_LIMIT_BYTES,
    )
    response = _decode(answer)
    try:
        if response.tst_info.nonce != query.nonce:
            raise EvidenceError(f"{url} answered another request: the nonce differs")
        if response.tst_info.message_imprint.message != query.message_imprint.message:
            raise EvidenceError(f"{url} signed the timestamp of other data")
    except ValueError as fault:
        raise EvidenceError(f"{url} did not answer with a timestamp: {fault}") from fault
    return answer


def time_of_token(token: bytes) -> str:
    """The time in a TimeStampResp, unverified. Raises EvidenceError."""
    return _time(_decode(token))


def if_later(token: bytes, states: str, time: str) -> str:
    """A text for a stamped object that `states` a `time` of its own later than the stamp's; empty if that time is not
    later. Raises EvidenceError."""
    response = _decode(token)
    if utc_ns(time) <= utc_ns(_time(response)) + _accuracy_seconds(response) * NS_PER_S + TOLERANCE_NS:
        return ""
    return f"; {states} {time}, WHICH IS LATER: the clock of that machine was ahead, or its time is not true"


def verify(token: bytes, message: bytes, chain: Sequence[Certificate]) -> tuple[str, str]:
    """The time, and the name of the root that certifies it. `chain` is what the verifier trusts: a root, and the signer
    and intermediates that the token does not contain. It must be valid at the time of the stamp, not today. Raises
    EvidenceError with the reason if the token is invalid."""
    lib = _lib()
    response = _decode(token)
    roots, faults = roots_of(chain), dict[str, None]()
    others = [one for one in chain if one not in roots]
    for root in roots:
        try:
            # The library takes the signer's certificate from the token, and treats a different given one as a forgery.
            signer = None if response.signed_data.certificates else _signer(response, chain)
            verifier = lib.VerifierBuilder(roots=[root], tsa_certificate=signer, intermediates=others).build()
            verifier.verify_message(response, message)
        except Exception as fault:  # noqa: BLE001 - the library raises many kinds on untrusted tokens
            faults[str(fault).split("ErrorStack")[0].rstrip(": ")] = None
            continue
        return _time(response), root.subject.rfc4514_string()
    names = ", ".join(root.subject.rfc4514_string() for root in roots)
    raise EvidenceError(f"it does not verify with {names:.300}: {'; '.join(faults)}")


def roots_of(chain: Sequence[Certificate]) -> list[Certificate]:
    return [one for one in chain if one.subject == one.issuer]


def _signer(response: Any, chain: Sequence[Certificate]) -> Certificate | None:
    """The certificate in `chain` that a token without certificates names as its signer's."""
    named = {(info.issuer, info.serial_number) for info in response.signed_data.signer_infos}
    return next((one for one in chain if (one.issuer, one.serial_number) in named), None)


def judge(token: bytes, message: bytes, chains: Sequence[Sequence[Certificate]]) -> tuple[EvidenceState, str]:
    """The state of a stamp of `message`, and a text: time and authority if one of the trusted `chains` certifies it,
    else the reason. A stamp by an authority whose certificates were not given is not checked."""
    if not chains:
        return EvidenceState.NOT_CHECKED, "no certificate of a timestamp authority was given (--tsa-certificate)"
    try:
        _lib()
    except EvidenceError:
        return EvidenceState.NOT_CHECKED, "this needs the extra: pip install 'flopsd[timestamp]'"
    faults = []
    for chain in chains:
        try:
            moment, root = verify(token, message, chain)
        except EvidenceError as fault:
            faults.append(str(fault))
            continue
        doubt = _accuracy_seconds(_decode(token))  # the text is of whole seconds anyway
        within = f", give or take {format_duration(Fraction(doubt))}," if doubt > 1 else ""
        return EvidenceState.HOLDS, f"{moment}{within} according to {root}"
    try:
        signers = signers_of(token)
    except EvidenceError as fault:
        return EvidenceState.FAILED, "; ".join({*faults, str(fault)})
    if any({one.subject, one.issuer} & signers for chain in chains for one in chain):
        return EvidenceState.FAILED, "; ".join(faults)
    named = ", ".join(sorted(name.rfc4514_string() for name in signers)) or "no signer"
    return EvidenceState.NOT_CHECKED, f"no certificate of its authority was given; it names {named:.300}"


def signers_of(token: bytes) -> set[Name]:
    """The names of a token's issuers, as far up as the token's own certificates reach; unverified. Raises
    EvidenceError."""
    from cryptography.x509 import load_der_x509_certificate

    data = _decode(token).signed_data
    try:
        certificates = [load_der_x509_certificate(bytes(one)) for one in data.certificates]
        names = {info.issuer for info in data.signer_infos}
        for _ in certificates:  # each round adds at least one issuer, or none is left
            names |= {one.issuer for one in certificates if one.subject in names}
    except Exception as fault:  # InvalidVersion is not a ValueError, and an unknown kind of text in a name a KeyError
        raise EvidenceError(f"the name of its signer is not valid in X.509: {fault!r:.200}") from fault
    return names


def _lib() -> Any:
    try:
        import rfc3161_client
    except ImportError as fault:
        raise EvidenceError("timestamps need the extra 'timestamp'", hint="pip install 'flopsd[timestamp]'") from fault
    return rfc3161_client


def _decode(token: bytes) -> Any:
    lib = _lib()
    try:
        response = lib.decode_timestamp_response(token)
        if response.status != 0:
            raise EvidenceError(f"the authority refused: status {response.status} {response.status_string}")
        _ = response.tst_info.gen_time
    except ValueError as fault:
        raise EvidenceError(f"it is not a timestamp response: {fault}") from fault
    return response


def _time(response: Any) -> str:
    moment = response.tst_info.gen_time.astimezone(timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z"


def _accuracy_seconds(response: Any) -> int:
    """The accuracy of a stamp in seconds, rounded up, as the authority states it; 0 if it states none."""
    stated = response.tst_info.accuracy
    return 0 if stated is None else (stated.seconds or 0) + bool(stated.millis or stated.micros)
