"""Keys, signatures and sealing: journal -> signed ledger. Needs the extra `seal`.

Signatures are DSSE over the exact payload bytes, made and checked by securesystemslib. The keyid is the
hex SHA-256 of the SPKI DER and only a hint: trust follows from public keys, never from it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopsd import __version__
from flopsd.clock import Clock, rfc3339
from flopsd.config import find_peaks, is_packaged
from flopsd.core.envelope import Envelope, encode_envelope, parse_envelope
from flopsd.core.ledger import PAYLOAD_TYPE, SealFacts, encode, figures_of, statement
from flopsd.core.model import Figures
from flopsd.core.records import History, read_history
from flopsd.errors import LedgerError, NotVerifiedError, SigningKeyError
from flopsd.journal import journal_facts, read_journal

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

DEFAULT_KEY_NAME = "flopsd-key.pem"


@dataclass(frozen=True, slots=True)
class Sealed:
    """What sealing left behind."""

    ledger: Path
    journal: Path
    public_key: Path
    figures: Figures
    replay: bool


def journal_beside(ledger: Path) -> Path:
    """Where the journal of a ledger lies: the ledger's stem with `.journal.jsonl`."""
    return ledger.with_name(f"{ledger.stem}.journal.jsonl")


def public_key_beside(ledger: Path) -> Path:
    return ledger.with_name(f"{ledger.stem}.pub")


def peaks_beside(ledger: Path) -> Path:
    """Where the peak table of a ledger lies when it is not a packaged one."""
    return ledger.with_name(f"{ledger.stem}.peaks.yaml")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key that can sign, and its public half as PEM."""

    signer: CryptoSigner
    public_pem: bytes


def load_signer(uri: str) -> SigningKey:
    """The private key of a key URI: `file:PATH` or a path, PEM, Ed25519 or P-256, not encrypted.

    Raises SigningKeyError.
    """
    _need_extra()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    path = _key_path(uri)
    try:
        private: Any = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as fault:
        raise SigningKeyError(
            f"cannot read the key {path}: {fault.strerror}", hint="give --key a readable PEM file"
        ) from fault
    except (ValueError, TypeError) as fault:
        raise SigningKeyError(
            f"{path} is not an unencrypted PEM private key",
            hint="make one: openssl genpkey -algorithm ed25519 -out key.pem",
        ) from fault
    public = private.public_key()
    pem: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(CryptoSigner(private, _public(public, str(path))), pem)


def load_public(file: str) -> SSlibKey:
    """The public key in a PEM file. Raises SigningKeyError."""
    _need_extra()
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    path = Path(file)
    try:
        data = path.read_bytes()
        public: Any = load_pem_public_key(data)
    except OSError as fault:
        raise SigningKeyError(f"cannot read the public key {path}: {fault.strerror}") from fault
    except (ValueError, TypeError) as fault:
        what = (
            "holds a private key; give the verifier the public one"
            if b"PRIVATE KEY" in data
            else "is not a PEM public key"
        )
        raise SigningKeyError(f"{path} {what}") from fault
    return _public(public, str(path))


def ensure_key(uri: str | None, state_dir: Path) -> tuple[str, bool]:
    """The key URI to use, and whether its file was made just now: Ed25519, mode 0600, in `state_dir`.

    Raises SigningKeyError.
    """
    if uri is not None:
        return uri, False
    path = state_dir / DEFAULT_KEY_NAME
    if path.exists():
        return str(path), False
    _need_extra()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except OSError as fault:
        path.unlink(missing_ok=True)
        raise SigningKeyError(f"cannot make a key at {path}: {fault.strerror}") from fault
    return str(path), True


def sign(payload: bytes, key: SigningKey) -> bytes:
    """The envelope file over `payload`, verified with the public key before it is returned."""
    signer = key.signer
    envelope = Envelope(payload, PAYLOAD_TYPE, ())
    signature = bytes.fromhex(signer.sign(pae(envelope)).signature)
    data = encode_envelope(payload, PAYLOAD_TYPE, [(signer.public_key.keyid, signature)])
    if verify_signatures(parse_envelope(data), [signer.public_key], 1) != {signer.public_key.keyid}:
        raise LedgerError("the fresh signature does not verify")
    return data


def pae(envelope: Envelope) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed."""
    from securesystemslib.dsse import Envelope as Dsse

    encoded: bytes = Dsse(envelope.payload, envelope.payload_type, {}).pae()
    return encoded


def verify_signatures(envelope: Envelope, keys: Sequence[SSlibKey], threshold: int) -> set[str]:
    """Key ids of the distinct public keys with a good signature; keyids in the envelope are ignored.

    Raises NotVerifiedError when they are fewer than `threshold`.
    """
    from securesystemslib.exceptions import UnverifiedSignatureError
    from securesystemslib.signer import Signature

    good: set[str] = set()
    signed = pae(envelope)
    distinct = {key.keyid: key for key in keys}  # the keyid here is the digest of the key itself
    for _, raw in envelope.signatures:
        for keyid, key in distinct.items():
            try:
                key.verify_signature(Signature(keyid, raw.hex()), signed)
            except UnverifiedSignatureError:
                continue
            good.add(keyid)
    if len(good) < threshold:
        raise NotVerifiedError(
            f"{len(good)} of the given keys signed this ledger, {threshold} must have: "
            "wrong key, or the ledger was changed"
        )
    return good


def seal_journal(journal: Path, key_uri: str, ledger: Path, clock: Clock, peaks_file: str | None = None) -> Sealed:
    """Seal `journal` into `ledger`, with journal and public key beside it; the ledger appears last, whole.

    `peaks_file` is the peak table of the run where that is not a packaged one; it is then laid beside too.
    Raises LedgerError, JournalError, SigningKeyError, PeakTableError.
    """
    key = load_signer(key_uri)
    ledger = ledger.absolute()
    try:
        ledger.parent.mkdir(parents=True, exist_ok=True)
        exhibit = journal_beside(ledger)
        _replace(exhibit, journal.read_bytes())
        facts = journal_facts(exhibit)
        history = read_history(line.record() for line in read_journal(exhibit))
        if not history.incarnations:
            raise LedgerError(f"the journal {journal} is empty: there is nothing to seal")
        sha256 = one_peak_table(history)
        table = find_peaks(sha256, [Path(peaks_file)] if peaks_file else [])
        if peaks_file is not None and not is_packaged(sha256):
            _replace(peaks_beside(ledger), Path(peaks_file).read_bytes())
        document = statement(history, table, facts, SealFacts(__version__, rfc3339(clock.wall_ns())))
        data = sign(encode(document), key)
        _replace(public_key_beside(ledger), key.public_pem)
        _replace(ledger, data)
    except OSError as fault:
        raise LedgerError(
            f"cannot write the ledger {ledger}: {fault.strerror}",
            hint="the journal is kept; run `flopsd seal` again with another --ledger",
        ) from fault
    return Sealed(ledger, exhibit, public_key_beside(ledger), figures_of(history, table), history.replay is not None)


def one_peak_table(history: History) -> str:
    """The SHA-256 of the peak table that all incarnations used. Raises LedgerError where they differ."""
    tables = sorted({str(incarnation.begin["peaks_sha256"]) for incarnation in history.incarnations})
    if len(tables) != 1:
        raise LedgerError(
            f"the run was metered with {len(tables)} different peak tables",
            hint="its incarnations cannot stand in one ledger; give the run one table or two run ids",
        )
    return tables[0]


def _replace(path: Path, data: bytes) -> None:
    """Put `data` in place at once and durably: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _public(public: Any, where: str) -> SSlibKey:
    """A key of a kind that others can verify too, with the digest of its SPKI DER as keyid."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from securesystemslib.signer import SSlibKey

    curve = public.curve if isinstance(public, EllipticCurvePublicKey) else None
    if not isinstance(public, Ed25519PublicKey) and not isinstance(curve, SECP256R1):
        raise SigningKeyError(
            f"{where} is neither an Ed25519 nor a P-256 key",
            hint="make one: openssl genpkey -algorithm ed25519 -out key.pem",
        )
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SSlibKey.from_crypto(public, keyid=hashlib.sha256(der).hexdigest())


def _key_path(uri: str) -> Path:
    scheme, colon, rest = uri.partition(":")
    if not colon or "/" in scheme:
        return Path(uri)
    if scheme == "file":
        return Path(rest)
    raise SigningKeyError(f"keys of the kind {scheme!r} are not supported by this flopsd", hint="use file:PATH")


def _need_extra() -> None:
    try:
        import cryptography  # noqa: F401
        import securesystemslib  # noqa: F401
    except ImportError as fault:
        raise SigningKeyError(
            "sealing and verifying need the packages of the extra 'seal'", hint="pip install 'flopsd[seal]'"
        ) from fault
