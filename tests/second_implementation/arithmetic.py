"""Chain, figures, rows, coverage and gaps, by the arithmetic of docs/ledger-format.md."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.second_implementation.rates import J, Rates, ceil

M = 10**6
SUB_PIPES = {"tensor_hmma", "tensor_imma", "tensor_dfma"}
ESTIMATING = ("cycles", "activity", "count")
ELSEWHERE = ("other_job", "metered_as_mig", "replaced")
FRAME = re.compile(rb'\{"h":"([0-9a-f]{64})",(?:"m":"([0-9a-f]{32})",)?"r":(\{.*\})\}\n', re.DOTALL)
Figures = tuple[int, int | None, int | None]


def payload_of(ledger: Path) -> J:
    text = json.loads(ledger.read_bytes())["payload"].replace("-", "+").replace("_", "/").rstrip("=")
    found: J = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
    return found


def records_of(journal: Path) -> tuple[list[J], str]:
    """The records of an unbroken chain, and its head."""
    head, records = bytes(32), []
    for line in re.findall(rb"[^\n]*\n", journal.read_bytes()):  # a record may have another white space that ends lines
        match = re.fullmatch(FRAME, line)
        assert match
        head = hashlib.sha256(head + match[3]).digest()
        assert head.hex().encode() == match[1]
        records.append(json.loads(match[3]))
    return records, head.hex()


def tallies_of(checkpoint: J) -> list[tuple[int, J]]:
    """The tallies of a checkpoint with the numbers of their devices: the values at the same place in every list."""
    numbers = checkpoint["devices"]
    return [(number, _at(checkpoint["tallies"], at, len(numbers))) for at, number in enumerate(numbers)]


def _at(columns: J, at: int, count: int) -> J:
    found: J = {}
    for name, column in columns.items():
        if isinstance(column, dict):
            value = _at(column, at, count) or None
            if value and name in ("observed_ns", "gap_ns", "recovered_ns", "unread_ns"):
                value = {key: ns for key, ns in value.items() if ns != 0}  # what is no count is for the laws
        else:
            assert len(column) == count
            value = column[at]
        if value is not None:
            found[name] = value
    return found


def codes_of_lines(lines: list[tuple[bytes, J]], disclosed: list[str]) -> list[str]:
    """For each incarnation, whether its codes could be checked. Raises Refused if any of the codes is wrong."""
    from tests.second_implementation.laws import need

    known = {hashlib.sha256(bytes.fromhex(text)).hexdigest(): bytes.fromhex(text) for text in disclosed}
    found: list[str] = []
    digest: str | None = None
    closed, key = False, b""
    for at, (line, record) in enumerate(lines, 1):
        match = re.fullmatch(FRAME, line)
        assert match
        if record.get("kind") == "begin":
            digest, closed = (
                str(record["code_secret_sha256"]) if record.get("code_secret_sha256") is not None else None,
                False,
            )
            start = f"flopsd checkpoint key {record.get('incarnation')}".encode()
            key = hmac.digest(known.get(digest or "", b""), start, "sha256")
            found.append("checked" if digest in known else "not_checkable")
        need(not closed, "line_code", f"journal:{at}")
        if digest is not None and not match[2]:
            need(record.get("kind") == "checkpoint", "line_code", f"journal:{at}")
            closed = True
            continue
        need((digest is not None) == bool(match[2]), "line_code", f"journal:{at}")
        if digest in known:
            code = hmac.digest(key, bytes.fromhex(match[1].decode()), "sha256")[:16].hex()
            need(code.encode() == match[2], "line_code", f"journal:{at}")
            key = hashlib.sha256(b"flopsd next key" + key).digest()
    return found


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


class Rated(Rates):
    """A device of one incarnation: its record, its row and its last tally."""

    def __init__(self, record: J, table: J) -> None:
        super().__init__(record, table)
        self.tally: J = {"observed_ns": {}, "gap_ns": {}, **record}
        self.word: str | None = None  # the phase that the settings declare

    def parts(self) -> list[tuple[str, J, J | None]]:
        """Bucket, share of the tally, declared format; the part outside all phases comes last."""
        left, found = dict(self.tally), []
        for bucket, share in sorted(self.tally.get("phases", {}).items()):
            _, _, label = bucket.partition("@")
            pairs = [piece.partition(":") for piece in label.split(",") if piece]
            stated = {name: round(float(ppm) * M) if ppm else M for name, _, ppm in pairs}
            found.append((bucket, {"observed_ns": {}, "gap_ns": {}, **share}, stated))
            left = {name: _less(left[name], share.get(name)) for name in left if name not in ("phases", "running")}
        if found and "sm_cycles" in left:  # what is all in phases has no entry
            kept = {
                evidence: {pipe: c for pipe, c in pipes.items() if c} for evidence, pipes in left["sm_cycles"].items()
            }
            left["sm_cycles"] = kept
        return [*found, ("undeclared", left, None)]

    def undeclared_ceilings(self) -> tuple[int | None, int | None]:
        plain = Rated({**self.record, "precision": None}, self.table)
        return plain.ceiling_rate(), plain.integer_ceiling_rate()

    @property
    def span(self) -> int:
        return int(self.tally["to_ns"] - self.record["to_ns"])

    def gap_ns(self, *reasons: str) -> int:
        return int(sum(ns for r, ns in self.tally["gap_ns"].items() if not reasons or r in reasons))

    @property
    def unknown(self) -> int:
        return unknown_of(self.tally)

    def rows(self, claimed: bool = False) -> list[J]:
        """All rows, unordered; `claimed`: as if the formats that processes claim were true."""
        return [row for bucket, part, stated in self.parts() for row in self.of_share(bucket, part, stated, claimed)]

    def of_share(self, bucket: str, part: J, stated: J | None, claimed: bool) -> list[J]:
        plain = self._rows(bucket, part)
        if not stated or self.record["precision"]:
            return plain
        declared = Rated({**self.record, "precision": {"shares_ppm": stated}}, self.table)
        declared.tally = self.tally
        other = declared._rows(bucket, part)
        if claimed:
            return other
        for row, said_of in zip(plain, other, strict=True):
            for name in ("figures", "integers"):
                row[name] = row[name][0], said_of[name][1], row[name][2]
            row["key"], row["doubt"], row["measured_of"] = said_of["key"], said_of["doubt"], said_of["of"]
        return plain

    def by_phase(self, name: str = "figures", claimed: bool = False) -> dict[str, Figures]:
        """Figures of FLOP, or of "integers"."""
        found: dict[str, list[Figures]] = {}
        for row in self.rows(claimed):
            found.setdefault(row["key"][0], []).append(row[name])
        sums = {phase: add(figures) for phase, figures in found.items()}
        read = {bucket.partition("@")[0] for bucket, part, _ in self.parts() if was_read(part, name)}
        return {phase: settled(sums.get(phase, (0, None, 0)), phase in read, name) for phase in {*sums, *read}}

    def by_words(self, name: str) -> tuple[dict[str, Figures], dict[str, Figures], dict[str, Figures]]:
        """By phase according to the settings, to the settings or else the processes, and to the processes or else
        the settings."""
        recorded = self.by_phase(name)
        settings = {self.word or "undeclared": self.total(name)} if recorded else {}
        measured = settings if self.word else recorded
        if not self.claims():
            return settings, measured, measured
        claimed: dict[str, list[Figures]] = {}
        for phase, figures in self.by_phase(name, claimed=True).items():
            claimed.setdefault(self.word or phase if phase == "undeclared" else phase, []).append(figures)
        return settings, measured, {phase: add(parts) for phase, parts in claimed.items()}

    def claims(self) -> list[tuple[tuple[str, str], Figures]]:
        """Phase and format that processes claim and the settings do not state, with the FLOP executed under them."""
        found = []
        for row in self.rows():
            phase, _, label = row["bucket"].partition("@")
            claim = "" if phase in ("undeclared", self.word) else phase, "" if self.record["precision"] else label
            found += [(claim, row["figures"])] if any(claim) else []
        return found

    def deviation(self, square_sum: int, observed_ns: int) -> int:
        """The possible error of a sum of random samples of the clock."""
        if not square_sum or self.sms_mhz is None:
            return 0
        c, h = (n + n // 100 + 1 for n in (ceil(self.sms_mhz * ns, 1000) for ns in (58_000_000, observed_ns)))
        found = []
        for a in (Fraction(4, 5), *(Fraction(1, 2**k) for k in range(1, 20))):
            first, second, third = Fraction(182, 10) / a, a / 2 + a * a / (3 * (1 - a)), a / 8
            within = min(ceil(math.ceil(2**60 * second) * square_sum, c), math.ceil(2**60 * third) * h)
            found.append(math.ceil(2**60 * first) * c + within)
        return ceil(min(found), 2**60)

    def of_pipe(self, pipe: str | None) -> Rated:
        """The device for rating a pipe. Work left over by the counters of single kinds does not have the declared
        mix, so it is rated as undeclared."""
        stated = (self.record["precision"] or {}).get("shares_ppm", {})
        rest = pipe == "tensor" and len(stated) > 1 and active_in(self.tally) & SUB_PIPES
        return Rated({**self.record, "precision": None}, self.table) if rest else self

    def _rows(self, bucket: str, tally: J) -> list[J]:
        found: list[J] = []
        phase = bucket.partition("@")[0]

        def row(
            evidence: str,
            pipe: str | None,
            cycles: int,
            ns: int,
            figures: Figures,
            integers: Figures,
            doubt: int = 0,
            margin: int | None = None,
            **used: int | None,
        ) -> None:
            of = self.of_pipe(pipe)
            mixed = evidence in ESTIMATING and of.may_be_integer(pipe)
            label = "undeclared" if evidence == "count" else of.label(pipe)
            found.append(
                {
                    "key": (phase, evidence, pipe or "", label),
                    "cycles": cycles,
                    "ns": ns,
                    "figures": figures,
                    "integers": integers,
                    "mixed": mixed,
                    "bucket": bucket,
                    "doubt": doubt,
                    "margin": margin,
                    "of": of,
                    "used": used,
                }
            )

        def known(evidence: str) -> int:
            return int(tally["observed_ns"].get(evidence, 0) + tally.get("recovered_ns", {}).get(evidence, 0))

        for evidence, pipes in tally.get("sm_cycles", {}).items():
            ns = known(evidence)
            for pipe, c in pipes.items():
                d = tally.get("uncertainty_sm_cycles", {}).get(evidence, {}).get(pipe, 0)
                v = tally.get("square_sum", {}).get(evidence, {}).get(pipe, 0)
                d += self.deviation(v, ns)
                of = self.of_pipe(pipe)
                m = of.margin(evidence, pipe)
                both: list[Figures] = []
                for (low, measured, _), bound in (
                    (of.rates(pipe), of.bound(pipe)),
                    (of.integer_rates(pipe), of.integer_bound(pipe)),
                ):
                    figures = (
                        max(0, c - d) * (low or 0) * (M - m) // M,
                        None if measured is None else c * measured,
                        None if bound is None else ceil((c + d) * bound * (M + m), M),
                    )
                    both.append(figures if self.row is not None else (0, None, None))
                doubt = d * (of.rates(pipe)[1] or 0) if self.row else 0
                row(evidence, pipe, c, ns, both[0], both[1], doubt, None if self.row is None else m, d=d)
        for pipe, ns in tally.get("unread_ns", {}).items():
            if not ns:  # as an absent one: what shares leave may be none
                continue
            most, of = None if self.sms_mhz is None else ceil(self.sms_mhz * ns, 1000), self.of_pipe(pipe)
            bounds = of.bound(pipe), of.integer_bound(pipe)
            highs = [None if most is None or bound is None else most * bound for bound in bounds]
            row("gap", pipe, 0, ns, (0, None, highs[0]), (0, None, highs[1]), most=most)
        observed = {evidence: ns for evidence, ns in tally["observed_ns"].items() if ns}
        if "count" in observed or tally.get("counted_flop"):
            c, m = tally.get("counted_flop", 0), self.table["margins"]["count"]["ppm"]
            most = ceil(c * (M + m), M)
            if self.may_be_integer(None):
                row("count", None, 0, known("count"), (0, c, most), (0, None, most), 0, m)
            else:
                row("count", None, 0, known("count"), (c * (M - m) // M, c, most), (0, 0, 0), 0, m)
        if known("utilization"):
            busy, sampled = tally.get("busy_sm_cycles", 0), tally.get("sampled_busy_sm_cycles", 0)
            most = busy
            if self.sms_mhz is not None and sampled <= busy:
                d = self.deviation(tally.get("clocked_square_sum", 0), known("utilization"))
                most += min(0, tally.get("clocked_sm_cycles", 0) + d - sampled)
            highs = [None if r is None else most * r for r in (self.ceiling_rate(), self.integer_ceiling_rate())]
            row("utilization", None, busy, known("utilization"), (0, None, highs[0]), (0, None, highs[1]), most=most)
        if unknown := unknown_of(tally):
            flop, integers = (self.ceiling(unknown, integers=of) for of in (False, True))
            if any(tally["gap_ns"].get(reason) for reason in ("end_unknown", "journal_replaced")):
                flop = integers = None
            row("gap", None, 0, unknown, (0, None, flop), (0, None, integers))
        return found

    def total(self, name: str = "figures") -> Figures:
        return settled(add(row[name] for row in self.rows()), was_read(self.tally, name), name)


def ceil_of_sms(device: Rated, ns: int) -> int:
    assert device.sms_mhz is not None
    return ceil(device.sms_mhz * ns, 1000)


def was_read(tally: J, name: str) -> bool:
    """Whether estimating counters were read and, for integers, separated the kinds of tensor work."""
    observed = [evidence for evidence in ESTIMATING if tally["observed_ns"].get(evidence)]
    if name == "figures":
        return bool(observed)
    apart = "tensor" not in active_in(tally) or active_in(tally) & SUB_PIPES
    return bool(observed and "count" not in observed and apart and not tally.get("unread_ns", {}).get("tensor_imma"))


def active_in(tally: J) -> set[str]:
    return {pipe for pipes in tally.get("sm_cycles", {}).values() for pipe in pipes}


def settled(figures: Figures, read: bool, name: str) -> Figures:
    low, measured, high = figures
    if measured:
        return figures
    return low, 0 if read else None if name == "integers" else measured, high


def unknown_of(tally: J) -> int:
    gaps: dict[str, int] = tally["gap_ns"]
    recovered: dict[str, int] = tally.get("recovered_ns", {})
    return max(0, sum(gaps.values()) - sum(gaps.get(r, 0) for r in ELSEWHERE) - sum(recovered.values()))


def _less(whole: Any, part: Any) -> Any:
    if not isinstance(whole, dict):
        return whole - (part or 0)
    return {name: _less(amount, (part or {}).get(name)) for name, amount in whole.items()}
