"""Keys in PKCS#11 tokens: HSMs, smart cards. The key never leaves the token. Needs the extra `hsm`.

    pkcs11:token=T;object=LABEL;id=%01?module-path=/usr/lib/.../lib.so&pin-source=file:PATH&public=PATH

The URI follows RFC 7512. The module is `module-path`, else $PYKCS11LIB; the PIN is in the file of `pin-source`, else in
$FLOPSD_PKCS11_PIN. The public key is read from the token, unless `public` names its PEM file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field, replace
from typing import Any

from flopsd.attestation.signing.base import SigningKey
from flopsd.attestation.signing.key_uri import as_text, attributes
from flopsd.attestation.signing.public_key import PublicKey, load_public, need_extra, need_package, usable
from flopsd.attestation.signing.refused_pin import RefusedPin
from flopsd.attestation.signing.secrets import pin
from flopsd.core.dataclass import dataclass
from flopsd.errors import SigningKeyError
from flopsd.settings.load import PKCS11_PIN

NEEDS_EXTRA = "keys in PKCS#11 tokens need the packages of the extra 'hsm'", "pip install 'flopsd[hsm]'"
_TOKEN: tuple[str, ...] = ("token", "manufacturer", "model", "serial")
_PATH = (*_TOKEN, "object", "id", "type")
_QUERY = ("module-path", "pin-source", "public")
_P256 = bytes.fromhex("06082a8648ce3d030107")  # DER of the object identifier 1.2.840.10045.3.1.7


@dataclass(frozen=True, slots=True)
class _KeyLocation:
    """The module, token and object of a key. None: not given in the URI. `pin_from`: the file or variable of the PIN.
    `refused_pin`: keeps a PIN that the token refused."""

    module: str
    token: dict[str, str]
    label: str | None
    id: bytes | None
    pin: str | None = field(repr=False)
    public: str | None
    pin_from: str
    refused_pin: RefusedPin | None = None

    def describe(self) -> str:
        token = ", ".join(f"{name} {value!r}" for name, value in self.token.items()) or "the only token"
        names = [repr(self.label)] if self.label is not None else []
        names += [f"id {self.id.hex()}"] if self.id is not None else []
        return f"the P-256 key {' '.join(names) or '(the only one)'} on {token} of {self.module}"


@dataclass(frozen=True)
class TokenKey(SigningKey):
    """A P-256 key in a PKCS#11 token."""

    _location: _KeyLocation

    def sign(self, message: bytes) -> bytes:
        """ECDSA over the SHA-256 of `message`, DER. Raises SigningKeyError."""
        import pkcs11
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

        with _session(self._location) as session:
            private = _private_key(session, self._location)
            # Smart cards may require the PIN for each signature, not only for the session.
            again = {"pin": self._location.pin} if _attribute(private, pkcs11.Attribute.ALWAYS_AUTHENTICATE) else {}
            raw = private.sign(hashlib.sha256(message).digest(), mechanism=pkcs11.Mechanism.ECDSA, **again)
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))

    def readers(self) -> dict[str, Any]:
        return {"kind": "pkcs11"}

    def describe(self) -> str:
        return self._location.describe()


def load_token_key(rest: str, environment: Mapping[str, str], refused_pin: RefusedPin | None) -> TokenKey:
    """The key named by `rest`, the part of a key URI after `pkcs11:`. `refused_pin`: keeps a PIN that the token
    refused, so that it is not given to the token again. Raises SigningKeyError."""
    need_extra()
    need_package("pkcs11", NEEDS_EXTRA)
    location = replace(location_of(rest, environment), refused_pin=refused_pin)
    given = None if location.public is None else load_public(location.public)
    with _session(location) as session:
        private = _private_key(session, location)
        public = given or _public_key(session, private, location)
    if public.type != "p256":
        raise SigningKeyError(f"{location.public} is an {public.type} key; keys in tokens are P-256 keys")
    return TokenKey(public, location)


def location_of(rest: str, environment: Mapping[str, str]) -> _KeyLocation:
    """The key location in `rest`, the part of a key URI after `pkcs11:`. Raises SigningKeyError."""
    path, _, query = rest.partition("?")
    if "pin-value" in query:
        raise SigningKeyError(
            "pkcs11: every user of the host could read a PIN in the URI",
            hint=f"use pin-source=file:PATH, or the variable {PKCS11_PIN}",
        )
    where, how = attributes(path, ";", _PATH, "pkcs11"), attributes(query, "&", _QUERY, "pkcs11")
    if where.get("type", b"private") != b"private":
        raise SigningKeyError("pkcs11: a signing key has type=private", hint="leave type out")
    module = as_text(how, "module-path", "pkcs11") or environment.get("PYKCS11LIB")
    if not module:
        raise SigningKeyError(
            "pkcs11: no module is given",
            hint="append ?module-path=/path/to/the/token's/library.so, or set PYKCS11LIB to it",
        )
    token = {name: as_text(where, name, "pkcs11") or "" for name in _TOKEN if name in where}
    source = as_text(how, "pin-source", "pkcs11")
    return _KeyLocation(
        module,
        token,
        as_text(where, "object", "pkcs11"),
        where.get("id"),
        pin(source, environment),
        as_text(how, "public", "pkcs11"),
        PKCS11_PIN if source is None else source,
    )


@contextmanager
def _session(location: _KeyLocation) -> Iterator[Any]:
    """A session on the token, logged in. Every error of the module or the token becomes a SigningKeyError."""
    import pkcs11
    from pkcs11 import exceptions as faults

    try:
        token = _token(pkcs11.lib(location.module), location)
        if location.pin is None and pkcs11.TokenFlag.LOGIN_REQUIRED in token.flags:
            raise SigningKeyError(
                f"the token {token.label!r} requires a PIN and none is given",
                hint=f"append pin-source=file:PATH to the URI, or set {PKCS11_PIN}",
                reason="secret",
            )
        try:
            _refuse_again(token, location)
            with token.open(user_pin=location.pin) as session:
                if location.refused_pin is not None:
                    location.refused_pin.forget()
                yield session
        except (faults.PinIncorrect, faults.PinInvalid, faults.PinLenRange) as fault:
            raise _refused(token, location, "wrong") from fault
        except faults.PinLocked as fault:
            raise _refused(token, location, "locked") from fault
        except faults.PinExpired as fault:
            raise _refused(token, location, "expired") from fault
    except pkcs11.PKCS11Error as fault:
        gone = isinstance(fault, (faults.TokenNotPresent, faults.TokenNotRecognised, faults.DeviceRemoved))
        raise SigningKeyError(
            f"PKCS#11: {type(fault).__name__}{f': {fault}' if str(fault) else ''}, accessing {location.describe()}",
            hint="check the module, and that the token is plugged in: pkcs11-tool --module MODULE --list-slots",
            reason="no_token" if gone else "other",
        ) from fault


def _refuse_again(token: Any, location: _KeyLocation) -> None:
    """Raises SigningKeyError if the token refused this PIN earlier."""
    if location.refused_pin is None or location.pin is None:
        return
    reason = location.refused_pin.reason(_identity(token), location.pin)
    if reason is not None:
        raise _refusal(location, reason)


def _refused(token: Any, location: _KeyLocation, reason: str) -> SigningKeyError:
    """Note the PIN that the token refused just now, and return the error."""
    if location.refused_pin is not None and location.pin is not None:
        location.refused_pin.note(_identity(token), location.pin, reason)
    return _refusal(location, reason)


def _refusal(location: _KeyLocation, reason: str) -> SigningKeyError:
    """The error for a refusal. A later seal that does not log in uses the same words, so that a log has them once."""
    what = f"the PIN is {reason} for {location.describe()}"
    remedy = "correct it" if reason == "wrong" else "unlock or renew it with the token's own tool"
    if location.refused_pin is None:
        hint = f"a token locks after a few wrong PINs: {remedy} before trying again"
        return SigningKeyError(what, hint=hint, reason="pin_refused")
    return SigningKeyError(
        f"{what}; flopsd does not send the token this PIN of {location.pin_from} again",
        hint=f"{remedy}; the next seal, or `flopsd seal`, logs in with another PIN. To try the same PIN once more, "
        f"remove {location.refused_pin.path}",
        reason="pin_refused",
    )


def _identity(token: Any) -> list[str]:
    return list(_named(token).values())


def _token(module: Any, location: _KeyLocation) -> Any:
    """The only token that matches the URI."""
    import pkcs11

    tokens = list(module.get_tokens(token_flags=pkcs11.TokenFlag.TOKEN_INITIALIZED))
    described = [_named(token) for token in tokens]
    matching = [t for t, s in zip(tokens, described, strict=True) if all(s[n] == v for n, v in location.token.items())]
    if len(matching) != 1:
        there = ", ".join(f"token={s['token']};serial={s['serial']}" for s in described) or "no token"
        raise SigningKeyError(
            f"{len(matching) or 'no'} tokens of {location.module} match the key URI; available: {there}",
            hint="select one: pkcs11:token=...;serial=..."
            if tokens
            else "plug it in, and check the module's own configuration: pkcs11-tool --module MODULE --list-slots",
            reason="other" if matching else "no_token",
        )
    return matching[0]


def _named(token: Any) -> dict[str, str]:
    """A token's description by the attribute names of RFC 7512, without the blanks that PKCS#11 pads with."""
    padded = {"token": token.label, "manufacturer": token.manufacturer_id, "model": token.model, "serial": token.serial}
    return {
        name: (value.decode("utf-8", "relocation") if isinstance(value, bytes) else value).strip(" \0")
        for name, value in padded.items()
    }


def _private_key(session: Any, location: _KeyLocation) -> Any:
    import pkcs11

    wanted: dict[Any, Any] = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}
    if location.label is not None:
        wanted[pkcs11.Attribute.LABEL] = location.label
    if location.id is not None:
        wanted[pkcs11.Attribute.ID] = location.id
    found = list(session.get_objects(wanted))
    if len(found) != 1:
        raise SigningKeyError(
            f"{len(found) or 'no'} private keys match {location.describe()}",
            hint="select one with object=LABEL or id=%01; pkcs11-tool --list-objects --login lists them",
            reason="other" if found else "not_found",
        )
    if found[0].key_type != pkcs11.KeyType.EC or _attribute(found[0], pkcs11.Attribute.EC_PARAMS) not in (None, _P256):
        raise SigningKeyError(
            f"{location.describe()} is not a P-256 key",
            hint="create one: --key-type EC:prime256v1",
            reason="wrong_kind",
        )
    return found[0]


def _public_key(session: Any, private: Any, location: _KeyLocation) -> PublicKey:
    """The public key of `private` on the token: the public object with its id, or with its label if it has no id."""
    import pkcs11
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    wanted = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY, pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.EC}
    by = (pkcs11.Attribute.ID, private.id) if private.id else (pkcs11.Attribute.LABEL, private.label)
    found = list(session.get_objects({**wanted, by[0]: by[1]}))
    if len(found) != 1:
        raise SigningKeyError(
            f"the token has {len(found) or 'no'} public keys for {location.describe()}",
            hint="give the public key in a PEM file: append public=PATH to the URI's query",
            reason="public_key",
        )
    try:
        public = load_der_public_key(pkcs11.util.ec.encode_ec_public_key(found[0]))
    except (ValueError, TypeError) as fault:
        raise SigningKeyError(f"the public key of {location.describe()} cannot be read: {fault}") from fault
    return usable(public, location.describe())


def _attribute(key: Any, attribute: Any) -> Any:
    """An attribute of an object; None if the token does not reveal it."""
    import pkcs11

    try:
        return key[attribute]
    except (pkcs11.AttributeTypeInvalid, pkcs11.AttributeSensitive):
        return None
