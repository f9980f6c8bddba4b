"""The cases: what each machine has, does and suffers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.support.scenario import LIES, Fault, Gpu, Segment, Slice, a100, h100

FOREVER = 10**9


@dataclass(frozen=True)
class Case:
    name: str
    gpus: tuple[Gpu, ...]
    seconds: int = 120
    down_ms: tuple[int, ...] = ()  # the daemon is killed so many times, evenly over the run, and is away so long


def wave(high_ms: int, low_ms: int, high_mhz: int = 1980, low_mhz: int = 210, **load: float) -> tuple[Segment, ...]:
    """A clock that jumps from idle to maximum and back, at one activity."""
    pipes = load or {"hmma": 0.9}
    return Segment(high_ms, mhz=high_mhz, **pipes), Segment(low_ms, mhz=low_mhz, **pipes)  # type: ignore[arg-type]


STEADY = (Segment(1000, mhz=1755, hmma=0.6, fp32=0.1, util=100, watts=650),)
BURSTS = (Segment(370, mhz=1980, hmma=0.95, watts=680), Segment(610, mhz=1410, util=0, watts=110))
MIXED = (
    Segment(1300, mhz=1755, hmma=0.4, imma=0.2, dfma=0.05, fp64=0.02, fp32=0.1, fp16=0.05, watts=600),
    Segment(900, mhz=1980, imma=0.5, fp32=0.2, watts=600),
)
IDLE_THEN_WORK = (Segment(20_000, mhz=345), Segment(40_000, mhz=1755, hmma=0.5))


def cases(seed: int, random_cases: int) -> Iterator[Case]:
    """The fixed ones, and `random_cases` more from a seed."""
    for high_ms, low_ms in ((500, 500), (100, 900), (900, 100), (250, 250), (40, 43), (1000, 1000)):
        yield Case(f"polled clock, {high_ms}/{low_ms} ms", (h100(wave(high_ms, low_ms)),), 600)
    yield Case("polled clock, steady", (h100(STEADY),), 600)
    yield Case("polled clock, twelve seconds", (h100(wave(500, 500)),), 12)
    yield Case("buffered clock, 500/500 ms", (h100(wave(500, 500), clock_samples_ms=20),))
    yield Case("buffered clock, bursts", (h100(BURSTS, clock_samples_ms=20),))
    for scale in ("average", "sum", "quarter", "wrong", "delta"):
        yield Case(f"running counters, {scale}", (h100(MIXED, counters=scale),))
    for factor in (0.6, 0.75, 1.3, 66, 66 / 132, 100 / 132):
        yield Case(f"running counters times {factor:.3g}", (h100(BURSTS, counters="average", factor=factor),))
    for bits in (32, 48):
        gpu = h100(STEADY, counters="average", bits=bits)
        yield Case(f"running counters of {bits} bits", (replace(gpu, before_epoch=2**48 - 10**11),))
    yield Case(
        "running counters, slow later", (h100(STEADY, (Fault(60_000, FOREVER, "slow"),), counters="average"),), 300
    )
    yield Case(
        "ten deaths, running counters", (h100(MIXED, counters="average"),), 150, (7, 480, 1333, 2000, 61, 9000) * 2
    )
    yield Case("ten deaths, percentages", (h100(MIXED, clock_samples_ms=100),), 150, (7, 480, 1333, 2000, 61, 9000) * 2)
    yield Case("four deaths, polled clock", (h100(wave(500, 500)),), 300, (1000, 20_000, 333, 5000))
    yield Case("counters of 32 bits and deaths", (h100(STEADY, counters="average", bits=32),), 90, (1500, 3000, 700))
    for kind, _ in LIES:
        fault = (Fault(26_500, 45_300, kind),)
        hit, well = h100(STEADY, fault, counters="average"), h100(STEADY, fault, clock_samples_ms=100)
        yield Case(f"lie: {kind}", (hit, well, h100(STEADY)), 90)
    for kind in ("stuck", "full", "clock_zero", "clock_garbage", "unsampled", "util_garbage"):
        work_then_idle = (Segment(40_000, mhz=1755, hmma=0.6, watts=650), Segment(60_000, mhz=1410, util=0, watts=110))
        faults = (Fault(30_000, FOREVER, kind),)
        yield Case(
            f"lie: {kind}", (h100(work_then_idle, faults, clock_samples_ms=100), h100(work_then_idle, faults)), 100
        )
    for kind in ("hang", "hang_after"):
        sick = h100(BURSTS, (Fault(20_400, 21_900, kind), Fault(40_100, 70_100, kind)), clock_samples_ms=20)
        yield Case(f"{kind}: one of eight", (*[h100(BURSTS, clock_samples_ms=20)] * 3, sick, *[h100(BURSTS)] * 4), 80)
    late = replace(h100(STEADY, clock_samples_ms=100), appears_ms=25_500)
    yield Case("a GPU that comes late", (h100(STEADY, clock_samples_ms=100), late), 60)
    yield Case("indices that change", (replace(late, appears_ms=0, moves_ms=12_000), h100(BURSTS)), 60)
    slices = (Slice(1, 60, STEADY), Slice(2, 32, BURSTS, faults=(Fault(30_000, 40_000, "timeout"),)))
    yield Case("MIG slices", (h100(STEADY, mig=True, slices=slices, clock_samples_ms=100),), 60)
    yield Case("MIG slices, running counters", (h100(STEADY, mig=True, slices=slices, counters="sum"),), 60)
    yield Case("utilisation alone", (a100(BURSTS), a100(STEADY), a100(IDLE_THEN_WORK)), 90)
    yield Case("idle, then work", (h100(IDLE_THEN_WORK, counters="average"), h100(IDLE_THEN_WORK)), 120)
    draw = random.Random(seed)
    for number in range(random_cases):
        yield Case(f"random {seed}/{number}", tuple(_gpu(draw) for _ in range(draw.randint(1, 3))), draw.randint(20, 240),
                   tuple(draw.choice((7, 480, 1500, 9000)) for _ in range(draw.choice((0, 0, 1, 3)))))  # fmt: skip


def _gpu(draw: random.Random) -> Gpu:
    load = tuple(
        Segment(
            draw.choice((40, 130, 500, 1000, 7000)), mhz=draw.choice((345, 1100, 1410, 1755, 1980)),
            hmma=draw.choice((0, 0.2, 0.6)), imma=draw.choice((0, 0, 0.2)), dfma=draw.choice((0, 0, 0.05)),
            fp32=draw.choice((0, 0.1)), fp16=draw.choice((0, 0.1)), fp64=draw.choice((0, 0.02)),
        )
        for _ in range(draw.randint(1, 4))
    )  # fmt: skip
    kinds = ("timeout", "gpu_lost", "nan", "zero", "counters_disabled", "stalled", "fell", "contradict", "clock_zero")
    begins = [draw.randint(5_000, 60_000) for _ in range(draw.choice((0, 0, 1, 2)))]
    faults = tuple(Fault(at, at + draw.choice((300, 1500, 12_000)), draw.choice(kinds)) for at in begins)
    counters = draw.choice(("none", "none", "average", "sum", "quarter", "wrong"))
    samples_ms = draw.choice((0, 20)) if counters == "none" else 20
    return h100(load, faults, counters=counters, clock_samples_ms=samples_ms)
