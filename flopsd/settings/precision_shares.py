"""Parsers of the declared number formats: of all devices, and of single ones."""

from __future__ import annotations

from collections.abc import Mapping

from flopsd.core.declarations import FORMATS
from flopsd.core.model import PPM, Precision


def precision(value: object) -> Precision | None:
    """`bf16`, or shares of tensor-pipe cycles: {bf16: 0.9, fp8: 0.1} in YAML, `bf16:0.9,fp8:0.1` as text."""
    if value is None or value == "undeclared":
        return None
    shares: Mapping[object, object]
    if isinstance(value, str):
        pieces = [piece.partition(":") for piece in value.split(",")]
        shares = {name.strip(): share.strip() or 1 for name, _, share in pieces}
        if len(shares) != len(pieces):
            raise ValueError("a format is named twice")
    elif isinstance(value, Mapping):
        shares = value
    else:
        raise ValueError("expected a format such as bf16, or shares such as {bf16: 0.9, fp8: 0.1}")
    ppm: dict[str, int] = {}
    for name, share in shares.items():
        if name not in FORMATS:
            raise ValueError(f"{name!r} is not a number format; known: {', '.join(FORMATS)}")
        try:
            ppm[str(name)] = round(float(str(share)) * PPM)
        except (ValueError, OverflowError):
            raise ValueError(f"the share of {name} is not a number") from None
    if any(p <= 0 for p in ppm.values()) or sum(ppm.values()) != PPM:
        raise ValueError("shares must be positive and add up to 1")
    return Precision(tuple(sorted(ppm.items())), declared_by="config")


def device_precision(value: object) -> Mapping[str, Precision]:
    """{GPU-…: bf16, "1": {bf16: 0.9, fp8: 0.1}} in YAML, `GPU-…=bf16;1=bf16:0.9,fp8:0.1` as text."""
    pairs: list[tuple[object, object]]
    if isinstance(value, str):
        pieces = [piece.partition("=") for piece in value.split(";")]
        if not all(separator for _, separator, _ in pieces):
            raise ValueError("expected DEVICE=FORMAT, such as 0=bf16, several with ';' between them")
        pairs = [(name.strip(), declared.strip()) for name, _, declared in pieces]
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        raise ValueError("expected devices, by UUID or index, with a format each, such as {0: bf16}")
    if len({str(name).casefold() for name, _ in pairs}) != len(pairs):
        raise ValueError("a device is named twice")
    found = {str(name): precision(declared) for name, declared in pairs}
    return {name: shares for name, shares in found.items() if shares is not None}
