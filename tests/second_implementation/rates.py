"""The rates of a device by its row of the peak table, from docs/ledger-format.md."""

from decimal import Context, Decimal
from typing import Any

VECTOR_PIPES = ("fp64", "fp32", "fp16")
INTEGERS = ("int8", "int4")
HMMA = ("fp16", "bf16", "tf32", "fp8", "fp6", "fp4")
SIX = Context(prec=6)  # half to even
J = dict[str, Any]


def ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


class Rates:
    """A device's record, and the row that rates it."""

    def __init__(self, record: J, table: J) -> None:
        self.record, self.table = record, table
        self.row: J | None = next((row for row in table["accelerators"] if row["id"] == record["peak_row"]), None)
        rates = (self.row or {}).get("flop_per_cycle_per_sm", {})
        self.tensor, self.vector = rates.get("tensor", {}), rates.get("vector", {})
        disputed = (self.row or {}).get("disputed_flop_per_cycle_per_sm", {}).get("tensor", {})
        self.tops = {f: max(r, disputed.get(f, 0)) for f, r in self.tensor.items()}
        self.integers = [r for f in INTEGERS for r in (self.tensor.get(f), disputed.get(f)) if r]
        self.has_integers = (self.row or {}).get("integer_tensor") is not False
        shares = (record["precision"] or {}).get("shares_ppm", {})
        self.shares = shares if self.row and shares and all(f in self.tensor for f in shares) else None
        peaks = [
            (f in INTEGERS, round(t * 1000) * 10**9) for kind in ("dense", "sparse")
            for f, t in (self.row or {}).get(f"peak_{kind}_tflop_per_s_per_chip", {}).items()
        ]  # fmt: skip
        self.formats = {*self.tensor, *(self.row or {}).get("peak_dense_tflop_per_s_per_chip", {})} - {*INTEGERS}
        self.chip_flop_per_s = max((peak for is_integer, peak in peaks if not is_integer), default=None)
        self.chip_integers_per_s = max((peak for is_integer, peak in peaks if is_integer), default=None)
        clocks = (self.row or {}).get("clocks_mhz", {})
        known = [c for c in (record["sm_clock_max_mhz"], clocks.get("tensor_ref"), clocks.get("vector_ref")) if c]
        sms = record["sm_count"] if record["sm_count"] is not None else (self.row or {}).get("sm_count")
        self.sms_mhz = sms * max(known) if self.row and not peaks and sms is not None and known else None

    def stated(self, pipe: str | None) -> J | None:
        """If a declaration fits, the shares of the formats that the pipe counts, if any."""
        shares = {f: ppm for f, ppm in (self.shares or {}).items() if pipe != "tensor_hmma" or f in HMMA}
        return shares or None

    def rates(self, pipe: str) -> tuple[int | None, int | None, int | None]:
        if pipe in VECTOR_PIPES:
            rate = self.vector.get(pipe)
            return (0 if pipe == "fp32" else rate), rate, rate
        if pipe == "tensor_imma":
            return 0, 0, 0
        if pipe == "tensor_dfma":
            return (self.tensor.get("fp64"),) * 3
        if stated := self.stated(pipe):
            return self.mix(stated, [f for f in stated if f not in INTEGERS])
        formats = [f for f in self.tensor if f in HMMA or (pipe == "tensor" and f not in INTEGERS)]
        if not formats:
            return None, None, None
        slowest = 0 if pipe == "tensor" and self.has_integers else min(self.tensor[f] for f in formats)
        return slowest, self.tensor.get("bf16", self.tensor.get("fp16")), max(self.tops[f] for f in formats)

    def mix(self, stated: J, formats: list[str]) -> tuple[int, int, int]:
        whole = sum(stated.values())
        rate = sum(self.tensor[f] * stated[f] for f in formats) // whole
        return rate, rate, ceil(sum(self.tops[f] * stated[f] for f in formats), whole)

    def integer_rates(self, pipe: str) -> tuple[int | None, int | None, int | None]:
        if pipe == "tensor" and (stated := self.stated(pipe)):
            return self.mix(stated, [f for f in stated if f in INTEGERS])
        if pipe not in ("tensor", "tensor_imma") or not self.has_integers:
            return 0, 0, 0
        top = max(self.integers, default=None)
        if pipe == "tensor":
            return 0, None, top
        return min((self.tensor[f] for f in INTEGERS if f in self.tensor), default=None), self.tensor.get("int8"), top

    def may_be_integer(self, pipe: str | None) -> bool:
        if pipe is None:  # a vendor's count
            named = (self.record["precision"] or {}).get("shares_ppm", {})
            return self.has_integers and not (named and self.formats.issuperset(named))
        return pipe == "fp32" or (pipe == "tensor" and self.has_integers and not self.stated(pipe))

    def margin(self, evidence: str, pipe: str) -> int:
        """The widest margin of the formats that the pipe's work may have; each has its own where the row states one."""
        stated = self.stated(pipe) if pipe in ("tensor", "tensor_hmma") else None
        of_pipe = {"tensor_hmma": HMMA, "tensor_imma": INTEGERS, "tensor_dfma": ("fp64",), "tensor": tuple(self.tensor)}
        formats = list(stated or (f for f in of_pipe.get(pipe, ()) if f in self.tensor))
        plain, own = self.table["margins"][evidence]["ppm"], (self.row or {}).get("margins", {}).get(evidence, {})
        return max((int(own.get(f, {"ppm": plain})["ppm"]) for f in formats), default=int(plain))

    def bound(self, pipe: str) -> int | None:
        high = self.rates(pipe)[2]
        return high if high is not None else self.times_fp32(pipe.removeprefix("tensor_"))

    def integer_bound(self, pipe: str) -> int | None:
        high = self.integer_rates(pipe)[2]
        return high if high is not None else self.times_fp32("int8")

    def times_fp32(self, name: str) -> int | None:
        times = self.table["unrated_pipe_bounds"].get(name, {}).get("times_fp32")
        return int(self.vector["fp32"]) * int(times) if times is not None and "fp32" in self.vector else None

    def ceiling_rate(self) -> int | None:
        vectors: list[Any] = [self.vector.get(pipe, self.bound(pipe)) for pipe in VECTOR_PIPES]
        if self.row is None or None in vectors:
            return None
        return int(sum(vectors)) + (self.rates("tensor")[2] or 0)

    def integer_ceiling_rate(self) -> int | None:
        return self.integer_bound("tensor_imma") if self.row is not None else None

    def ceiling(self, ns: int, *, integers: bool = False) -> int | None:
        if self.chip_flop_per_s is not None:
            peak = self.chip_integers_per_s if integers else self.chip_flop_per_s
            return None if peak is None else ceil(ns * peak, 10**9)
        rate = self.integer_ceiling_rate() if integers else self.ceiling_rate()
        return None if rate is None or self.sms_mhz is None else ceil(ns * self.sms_mhz * rate, 1000)

    def label(self, pipe: str | None) -> str:
        if pipe in ("tensor_imma", "tensor_dfma"):
            return "int8" if pipe == "tensor_imma" else "fp64"
        if pipe in VECTOR_PIPES:
            return str(pipe)
        stated = self.stated(pipe)
        if stated is None:
            return "undeclared"
        names, whole = sorted(stated), sum(stated.values())
        return (
            names[0]
            if len(names) == 1
            else ",".join(f"{f}:{float(SIX.divide(Decimal(stated[f]), Decimal(whole))):g}" for f in names)
        )
