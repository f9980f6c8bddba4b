"""A second implementation of docs/ledger-format.md, written from that page and without a line of flopsd.

It computes what the page's arithmetic says: chain, figures, rows, coverage, gaps. Tests hold it against what flopsd sealed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

M = 10**6
TENSOR_PIPES = ("tensor", "tensor_hmma", "tensor_imma", "tensor_dfma")
VECTOR_PIPES = ("fp64", "fp32", "fp16")
HMMA = ("fp16", "bf16", "tf32", "fp8", "fp6", "fp4")
ESTIMATING = ("cycles", "activity", "count")
ELSEWHERE = ("other_job", "metered_as_mig", "replaced")
Figures = tuple[int, int | None, int | None]
J = dict[str, Any]


def payload_of(ledger: Path) -> J:
    text = json.loads(ledger.read_bytes())["payload"].replace("-", "+").replace("_", "/")
    found: J = json.loads(base64.b64decode(text, validate=True))
    return found


def records_of(journal: Path) -> tuple[list[J], str]:
    """The records behind an unbroken chain, and its head."""
    head, records = bytes(32), []
    for line in journal.read_bytes().splitlines(keepends=True):
        match = re.fullmatch(rb'\{"h":"([0-9a-f]{64})","r":(\{.*\})\}\n', line)
        assert match
        head = hashlib.sha256(head + match[2]).digest()
        assert head.hex().encode() == match[1]
        records.append(json.loads(match[2]))
    return records, head.hex()


def ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def add(parts: Iterable[Figures]) -> Figures:
    listed = list(parts)
    measured = [m for _, m, _ in listed if m is not None]
    highs = [h for _, _, h in listed if h is not None]
    return (
        sum(low for low, _, _ in listed),
        sum(measured) if measured else None,
        sum(highs) if len(highs) == len(listed) else None,
    )


def said(figures: Figures) -> J:
    return {name: None if n is None else str(n) for name, n in zip(("low", "measured", "high"), figures, strict=True)}


def seconds(ns: int) -> str:
    return f"{'-' if ns < 0 else ''}{abs(ns) // 10**9}.{abs(ns) % 10**9:09d}"


class Rated:
    """A device of one incarnation: its record, its row, its last tally."""

    def __init__(self, record: J, table: J) -> None:
        self.record, self.table, self.tally = record, table, record
        self.row: J | None = next((row for row in table["accelerators"] if row["id"] == record["peak_row"]), None)
        rates = (self.row or {}).get("flop_per_cycle_per_sm", {})
        self.tensor, self.vector = rates.get("tensor", {}), rates.get("vector", {})
        disputed = (self.row or {}).get("disputed_flop_per_cycle_per_sm", {}).get("tensor", {})
        self.tops = {f: max(r, disputed.get(f, 0)) for f, r in self.tensor.items()}
        self.integers = [r for f in ("int8", "int4") for r in (self.tensor.get(f), disputed.get(f)) if r]
        shares = (record["precision"] or {}).get("shares_ppm", {})
        self.shares = shares if self.row and shares and all(f in self.tensor for f in shares) else None
        peaks = [
            round(t * 1000) * 10**9 for kind in ("dense", "sparse")
            for t in (self.row or {}).get(f"peak_{kind}_tflop_per_s_per_chip", {}).values()
        ]  # fmt: skip
        self.chip_flop_per_s = max(peaks, default=None)
        clocks = (self.row or {}).get("clocks_mhz", {})
        known = [c for c in (record["sm_clock_max_mhz"], clocks.get("tensor_ref"), clocks.get("vector_ref")) if c]
        sms = record["sm_count"] if record["sm_count"] is not None else (self.row or {}).get("sm_count")
        self.sms_mhz = sms * max(known) if self.row and not peaks and sms is not None and known else None

    def told(self, pipe: str | None) -> J | None:
        """Of a declaration that fits, the shares of the formats that the pipe counts, where there are any."""
        shares = {f: ppm for f, ppm in (self.shares or {}).items() if ppm and (pipe != "tensor_hmma" or f in HMMA)}
        return shares or None

    def rates(self, pipe: str) -> tuple[int | None, int | None, int | None]:
        if pipe in VECTOR_PIPES:
            rate = self.vector.get(pipe)
            return (0 if pipe == "fp32" else rate), rate, rate
        if pipe == "tensor_imma":
            return 0, self.tensor.get("int8"), max(self.integers, default=None)
        if pipe == "tensor_dfma":
            return (self.tensor.get("fp64"),) * 3
        if told := self.told(pipe):
            top = ceil(sum(self.tops[f] * ppm for f, ppm in told.items()), sum(told.values()))
            rate = sum(self.tensor[f] * ppm for f, ppm in told.items()) // sum(told.values())
            return rate, rate, top
        formats = [f for f in self.tensor if pipe == "tensor" or f in HMMA]
        if not formats:
            return None, None, None
        measured = self.tensor.get("bf16", self.tensor.get("fp16"))
        return min(self.tensor[f] for f in formats), measured, max(self.tops[f] for f in formats)

    def bound(self, pipe: str) -> int | None:
        high = self.rates(pipe)[2]
        if high is not None:
            return high
        name = "int8" if pipe == "tensor_imma" else pipe.removeprefix("tensor_")
        times = self.table["unrated_pipe_bounds"].get(name, {}).get("times_fp32")
        return int(self.vector["fp32"]) * int(times) if times is not None and "fp32" in self.vector else None

    def ceiling_rate(self) -> int | None:
        vectors: list[Any] = [self.vector.get(pipe, self.bound(pipe)) for pipe in VECTOR_PIPES]
        if self.row is None or None in vectors:
            return None
        return int(sum(vectors)) + (self.rates("tensor")[2] or 0)

    def ceiling(self, ns: int) -> int | None:
        if self.chip_flop_per_s is not None:
            return ceil(ns * self.chip_flop_per_s, 10**9)
        rate = self.ceiling_rate()
        return None if rate is None or self.sms_mhz is None else ceil(ns * self.sms_mhz * rate, 1000)

    def label(self, pipe: str | None) -> str:
        if pipe in ("tensor_imma", "tensor_dfma"):
            return "int8" if pipe == "tensor_imma" else "fp64"
        if pipe in VECTOR_PIPES:
            return str(pipe)
        told = self.told(pipe)
        if told is None:
            return "undeclared"
        names, whole = sorted(told), sum(told.values())
        return names[0] if len(names) == 1 else ",".join(f"{f}:{told[f] / whole:g}" for f in names)

    def parts(self) -> list[tuple[str, J, J | None]]:
        """Phase, share of the tally, declared format; what no phase accounts for last."""
        left, found = dict(self.tally), []
        for bucket, share in sorted(self.tally.get("phases", {}).items()):
            phase, _, label = bucket.partition("@")
            pairs = [piece.partition(":") for piece in label.split(",") if piece]
            told = {name: round(float(ppm) * M) if ppm else M for name, _, ppm in pairs}
            found.append((phase, share, told))
            left = {name: _less(left[name], share.get(name)) for name in left if name not in ("phases", "totals")}
        return [*found, ("undeclared", left, None)]

    def under(self, told: J | None) -> Rated:
        """The same device with a format that a process declared, where the run's own settings declare none."""
        return (
            self
            if not told or self.record["precision"]
            else Rated({**self.record, "precision": {"shares_ppm": told}}, self.table)
        )

    @property
    def span(self) -> int:
        return int(self.tally["to_ns"] - self.record["to_ns"])

    def gap_ns(self, *reasons: str) -> int:
        return int(sum(ns for r, ns in self.tally["gap_ns"].items() if not reasons or r in reasons))

    @property
    def unknown(self) -> int:
        return unknown_of(self.tally)

    def rows(self) -> list[J]:
        """All rows as [phase, evidence, pipe, precision, cycles, seconds, figures, uncertainty], in no order."""
        return [row for phase, part, told in self.parts() for row in self.under(told)._rows(phase, part)]

    def by_phase(self) -> dict[str, Figures]:
        found: dict[str, list[Figures]] = {}
        for row in self.rows():
            found.setdefault(row["key"][0], []).append(row["figures"])
        sums = {phase: add(figures) for phase, figures in found.items()}
        for phase, part, _ in self.parts():
            low, measured, high = sums.get(phase, (0, None, 0))
            if measured is None and any(part["observed_ns"].get(e) for e in ESTIMATING):
                sums[phase] = (low, 0, high)
        return sums

    def deviation(self, square_sum: int, observed_ns: int) -> int:
        """How far a sum of random samples of the clock may be off."""
        if not square_sum or self.sms_mhz is None:
            return 0
        c, h = (n + n // 100 + 1 for n in (ceil(self.sms_mhz * ns, 1000) for ns in (58_000_000, observed_ns)))
        found = []
        for a in (Fraction(4, 5), *(Fraction(1, 2**k) for k in range(1, 20))):
            first, second, third = Fraction(182, 10) / a, a / 2 + a * a / (3 * (1 - a)), a / 8
            within = min(ceil(math.ceil(2**60 * second) * square_sum, c), math.ceil(2**60 * third) * h)
            found.append(math.ceil(2**60 * first) * c + within)
        return ceil(min(found), 2**60)

    def _rows(self, phase: str, tally: J) -> list[J]:
        found: list[J] = []

        def row(evidence: str, pipe: str | None, cycles: int, ns: int, figures: Figures, doubt: int = 0) -> None:
            label = "undeclared" if evidence == "count" else self.label(pipe)
            found.append(
                {
                    "key": (phase, evidence, pipe or "", label),
                    "cycles": cycles,
                    "ns": ns,
                    "figures": figures,
                    "doubt": doubt,
                }
            )

        def known(evidence: str) -> int:
            return int(tally["observed_ns"].get(evidence, 0) + tally.get("recovered_ns", {}).get(evidence, 0))

        for evidence, pipes in tally.get("sm_cycles", {}).items():
            m = self.table["margins"][evidence]["ppm"]
            ns = known(evidence)
            for pipe, c in pipes.items():
                if not c and phase == "undeclared" and self.tally.get("phases"):
                    continue  # all of it is in a phase
                d = tally.get("uncertainty_sm_cycles", {}).get(evidence, {}).get(pipe, 0)
                v = tally.get("square_sum", {}).get(evidence, {}).get(pipe, 0)
                d += self.deviation(v, ns)
                low, measured, _ = self.rates(pipe)
                bound = self.bound(pipe)
                figures: Figures = (0, None, None)
                if self.row is not None:
                    figures = (
                        max(0, c - d) * (low or 0) * (M - m) // M,
                        None if measured is None else c * measured,
                        None if bound is None else ceil((c + d) * bound * (M + m), M),
                    )
                row(evidence, pipe, c, ns, figures, d * (measured or 0) if self.row is not None else 0)
        for pipe, ns in tally.get("unread_ns", {}).items():
            if not ns:
                continue
            bound = self.bound(pipe)
            has_bound = self.sms_mhz is not None and bound is not None
            row("gap", pipe, 0, ns, (0, None, ceil(self.sms_mhz * ns, 1000) * bound if has_bound else None))  # type: ignore[operator]
        observed = {evidence: ns for evidence, ns in tally["observed_ns"].items() if ns}
        if "count" in observed:
            c, m = tally.get("counted_flop", 0), self.table["margins"]["count"]["ppm"]
            row("count", None, 0, known("count"), (c * (M - m) // M, c, ceil(c * (M + m), M)))
        if "utilization" in observed:
            busy, rate = tally.get("busy_sm_cycles", 0), self.ceiling_rate()
            row("utilization", None, busy, known("utilization"), (0, None, None if rate is None else busy * rate))
        if unknown := unknown_of(tally):
            row("gap", None, 0, unknown, (0, None, self.ceiling(unknown)))
        return found

    def total(self) -> Figures:
        low, measured, high = add(row["figures"] for row in self.rows())
        if measured is None and any(e in self.tally["observed_ns"] for e in ESTIMATING):
            measured = 0
        return low, measured, high


def unknown_of(tally: J) -> int:
    gaps: dict[str, int] = tally["gap_ns"]
    recovered: dict[str, int] = tally.get("recovered_ns", {})
    return max(0, sum(gaps.values()) - sum(gaps.get(r, 0) for r in ELSEWHERE) - sum(recovered.values()))


def _less(whole: Any, part: Any) -> Any:
    if not isinstance(whole, dict):
        return whole - (part or 0)
    return {name: _less(amount, (part or {}).get(name)) for name, amount in whole.items()}
