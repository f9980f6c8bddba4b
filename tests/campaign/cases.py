"""The cases: the hardware of each machine, its load and its faults."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.support.scenario import LIES, Fault, Gpu, Segment, Slice, a100, h100

FOREVER = 10**9


@dataclass(frozen=True)
class Case:
    name: str
    gpus: tuple[Gpu, ...]
    seconds: int = 120
    down_ms: tuple[int, ...] = ()  # the daemon is killed once for each, evenly over the run, and is away for that long
    is_damaged: bool = False  # whether its files are damaged when the daemon is first killed
    wall_steps_ms: tuple[tuple[int, int], ...] = ()  # times at which the wall clock is set, and by how much
    sleeps_ms: tuple[
        tuple[int, int], ...
    ] = ()  # times at which the machine is suspended, and for how long; its GPUs go on
    owned_ms: tuple[
        tuple[tuple[int, int], ...], ...
    ] = ()  # for each GPU, the spans in which it belongs to this job; empty: always


def wave(high_ms: int, low_ms: int, high_mhz: int = 1980, low_mhz: int = 210, **load: float) -> tuple[Segment, ...]:
    """A clock that jumps from idle to maximum and back, at constant activity."""
    pipes = load or {"hmma": 0.9}
    return Segment(high_ms, mhz=high_mhz, **pipes), Segment(low_ms, mhz=low_mhz, **pipes)  # type: ignore[arg-type]


STEADY = (Segment(1000, mhz=1755, hmma=0.6, fp32=0.1, util=100, watts=650),)
BURSTS = (Segment(370, mhz=1980, hmma=0.95, watts=680), Segment(610, mhz=1410, util=0, watts=110))
MIXED = (
    Segment(1300, mhz=1755, hmma=0.4, imma=0.2, dfma=0.05, fp64=0.02, fp32=0.1, fp16=0.05, watts=600),
    Segment(900, mhz=1980, imma=0.5, fp32=0.2, watts=600),
)
IDLE_THEN_FULL = (Segment(10_000, mhz=210, util=0), Segment(11_000, mhz=1980, hmma=1, util=100))
IDLE_THEN_WORK = (Segment(20_000, mhz=345), Segment(40_000, mhz=1755, hmma=0.5))


def cases(seed: int, random_cases: int) -> Iterator[Case]:
    """The fixed cases, and `random_cases` more from a seed."""
    for high_ms, low_ms in ((500, 500), (100, 900), (900, 100), (250, 250), (40, 43), (1000, 1000)):
        yield Case(f"polled clock, {high_ms}/{low_ms} ms", (h100(wave(high_ms, low_ms)),), 600)
    yield Case("polled clock, steady", (h100(STEADY),), 600)
    yield Case("polled clock, twelve seconds", (h100(wave(500, 500)),), 12)
    yield Case("polled clock, bursts", (h100(BURSTS),))
    yield Case("clock samples of the driver, in step", (h100(wave(100, 100), clock_samples_ms=200),))
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
        "ten deaths, running counters", (h100(MIXED, counters="average"),), 400, (7, 480, 1333, 2000, 61, 9000) * 2
    )
    yield Case("ten deaths, percentages", (h100(MIXED),), 150, (7, 480, 1333, 2000, 61, 9000) * 2)
    yield Case("four deaths, polled clock", (h100(wave(500, 500)),), 300, (1000, 20_000, 333, 5000))
    yield Case("counters of 32 bits and deaths", (h100(STEADY, counters="average", bits=32),), 160, (1500, 3000, 700))
    for kind, _ in LIES:
        fault = (Fault(26_500, 45_300, kind),)
        hit, well = h100(STEADY, fault, counters="average"), h100(STEADY, fault)
        yield Case(f"lie: {kind}", (hit, well, h100(STEADY)), 90)
    for kind in ("stuck", "full", "clock_zero", "clock_garbage", "unsampled", "util_garbage"):
        work_then_idle = (Segment(40_000, mhz=1755, hmma=0.6, watts=650), Segment(60_000, mhz=1410, util=0, watts=110))
        faults = (Fault(30_000, FOREVER, kind),)
        yield Case(f"lie: {kind}", (h100(work_then_idle, faults),), 100)
    for kind in ("hang", "hang_after"):
        sick = h100(BURSTS, (Fault(20_400, 21_900, kind), Fault(40_100, 70_100, kind)))
        yield Case(f"{kind}: one of eight", (*[h100(BURSTS)] * 3, sick, *[h100(BURSTS)] * 4), 80)
    late = replace(h100(STEADY), appears_ms=25_500)
    yield Case("a GPU that comes late", (h100(STEADY), late), 60)
    yield Case("indices that change", (replace(late, appears_ms=0, moves_ms=12_000), h100(BURSTS)), 60)
    uneven = replace(STEADY[0], ms=1300), replace(STEADY[0], ms=1170, hmma=0.8)
    reset = h100(uneven, (Fault(25_000, 130_000, "reset"),), counters="average", before_epoch=0)
    yield Case("counters that grew past their old values since a reset", (reset,), 140)
    slices = (Slice(1, 60, STEADY), Slice(2, 32, BURSTS, faults=(Fault(30_000, 40_000, "timeout"),)))
    yield Case("MIG slices", (h100(STEADY, mig=True, slices=slices),), 60)
    yield Case("MIG slices, running counters", (h100(STEADY, mig=True, slices=slices, counters="sum"),), 120)
    yield Case("utilisation alone", (a100(BURSTS), a100(STEADY), a100(IDLE_THEN_WORK)), 90)
    loads = IDLE_THEN_FULL, tuple(replace(part, mhz=min(part.mhz, 1410)) for part in IDLE_THEN_FULL)
    for set_ms in (-10_000, -300, 90, 800, 3_600_000, -18_000_000):
        gpus = h100(loads[0]), h100(loads[0], counters="average"), a100(loads[1])
        yield Case(f"wall clock set by {set_ms} ms", gpus, 32, wall_steps_ms=((10_900, set_ms),))
    drift = (Segment(500, mhz=1100, hmma=0.6), Segment(80, mhz=1980, hmma=0.6))
    asleep = h100(drift, counters="quarter"), h100(drift), a100(loads[1])
    yield Case("a machine that sleeps", asleep, 900, sleeps_ms=((645, 700_000),))
    yield Case("idle, then work", (h100(IDLE_THEN_WORK, counters="average"), h100(IDLE_THEN_WORK)), 120)
    later = replace(late, appears_ms=31_000)
    yield Case("a GPU that comes while the daemon is away", (h100(STEADY), later), 60, (9000,))
    stands_still = h100(IDLE_THEN_WORK, (Fault(5_000, FOREVER, "clock_stuck"),), counters="average")
    yield Case("a clock that stands still beside running counters", (stands_still,), 90)
    full = (Segment(1000, mhz=1980, hmma=1.0),)
    yield Case("running counters that run ahead", (h100(full, counters="average", factor=1.08),))
    fast = (Segment(1000, mhz=2300, hmma=1.0),)
    yield Case("a clock above its stated maximum", (h100(fast), h100(fast, counters="average")), 60)
    yield from _calls_that_do_half()
    yield from _counters_of_their_own()
    yield from _unused_by_the_driver()
    draw = random.Random(seed)
    for number in range(random_cases):
        yield Case(f"random {seed}/{number}", tuple(_gpu(draw) for _ in range(draw.randint(1, 3))), draw.randint(20, 240),
                   tuple(draw.choice((7, 480, 1500, 9000)) for _ in range(draw.choice((0, 0, 1, 3)))))  # fmt: skip


def _calls_that_do_half() -> Iterator[Case]:
    """A driver that reports success and writes nothing, or only a part."""
    work_then_little = (Segment(20_000, hmma=0.9, watts=650), Segment(20_000, hmma=0.02, util=100, watts=610))
    nothing = tuple(Fault(at, at + 24_000, "unfilled") for at in (15_000, 55_000))
    for counters in ("none", "average"):
        yield Case(f"answers left untouched, {counters}", (h100(work_then_little, nothing, counters=counters),))
        double = h100((Segment(1000, dfma=0.8),), (Fault(10_000, FOREVER, "flicker"),), counters=counters)
        yield Case(f"tensor work split at times, {counters}", (double,), 60)


def _counters_of_their_own() -> Iterator[Case]:
    """Running counters of which some stand still, are old, or are narrower than the others."""
    little = h100((Segment(1000, hmma=0.04),), (Fault(30_000, FOREVER, "mma_stands"),), counters="average")
    yield Case("a counter that stands still while little runs", (little,))
    some = h100((Segment(1000, hmma=0.1),), (Fault(30_000, FOREVER, "mma_slow"),), counters="average")
    yield Case("a counter that is slow while little runs", (some,))
    slow = h100((Segment(1000, mhz=700, hmma=0.6, watts=500),), (Fault(60_000, FOREVER, "old"),), counters="average")
    yield Case("counters that are old at times", (slow,), 600)
    for counters, bits, away_ms in (("average", 40, 1_150_000), ("sum", 48, 2_030_000)):
        narrow = h100(STEADY, counters=counters, pipe_bits=bits, before_epoch=2 * 10**12)
        yield Case(f"pipes of {bits} bits, {counters}", (narrow,), 2 * away_ms // 1000 + 200, (away_ms,))


def _unused_by_the_driver() -> Iterator[Case]:
    """Utilisation that shows nothing while the GPU works: of another unit, or of nothing."""
    work = Segment(1000, mhz=1410, hmma=0.6)
    share = a100((work,), (Fault(20_000, FOREVER, "util_share"),))
    yield Case("utilisation that is a share", (share, a100((replace(work, util=0),))), 60)


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
    return h100(load, faults, counters=counters)


def hostile(seed: int) -> Case:
    """Everything at once: loads up to the part's limit, a driver that fails and lies, GPUs that appear, disappear
    and move, MIG switched while they work, a wall clock that is set, a machine that sleeps, and a daemon that is
    killed."""
    draw = random.Random(seed)
    gpus = tuple(_hostile_gpu(draw, stays=not at) for at in range(draw.randint(1, 3)))
    seconds = draw.randint(8, 60)
    steps = tuple(
        (
            draw.randrange(seconds * 1000),
            draw.choice((-36_000_000, -30_000, -9000, -700, -120, 90, 800, 7000, 86_400_000)),
        )
        for _ in range(draw.choice((0, 1, 1, 3)))
    )
    sleeps = tuple(
        (draw.randrange(seconds * 1000), draw.choice((400, 6000, 700_000))) for _ in range(draw.choice((0, 0, 1)))
    )
    down = tuple(draw.choice((7, 480, 1500, 9000)) for _ in range(draw.choice((0, 0, 1, 3))))
    return Case(f"hostile {seed}", gpus, seconds, down, draw.random() < 0.3, tuple(sorted(steps)), sleeps)


def _hostile_gpu(draw: random.Random, *, stays: bool) -> Gpu:
    is_a100 = draw.random() < 0.5
    top = 1410 if is_a100 else 1980
    has_slices = not is_a100 and draw.random() < 0.25
    load = _hostile_load(draw, top)
    kinds = ["timeout", "gpu_lost", "unknown", "backwards", "clock_zero", "clock_garbage"]
    kinds += ([] if stays else ["gone"]) + ([] if is_a100 else ["mig_flip"])
    kinds += ["util_garbage"] if is_a100 else ["nan", "infinite", "range", "fell", "contradict", "counters_disabled"]
    begins = [draw.randint(0, 50_000) for _ in range(draw.choice((0, 1, 2, 4)))]
    faults = tuple(Fault(at, at + draw.choice((60, 300, 1500, 12_000, FOREVER)), draw.choice(kinds)) for at in begins)
    counters = "none" if is_a100 else draw.choice(("none", "none", "average", "sum", "quarter", "wrong", "delta"))
    changed: dict[str, Any] = {
        "appears_ms": 0 if stays else draw.choice((0, 7000)), "moves_ms": draw.choice((None, None, 9000)),
    }  # fmt: skip
    if is_a100:
        return a100(load, faults, **changed)
    slices = tuple(
        Slice(
            at + 1,
            sms,
            tuple(replace(part, hmma=draw.choice((0, 0.5, 1))) for part in load),
            faults=tuple(Fault(a, a + 5000, "gone") for a in begins[at : at + 1]),
        )
        for at, sms in enumerate(draw.choice(((60, 32), (16, 60), (16,))) if has_slices else ())
    )
    return h100(load, faults, counters=counters, mig=has_slices, slices=slices, **changed)


def _hostile_load(draw: random.Random, top: int) -> tuple[Segment, ...]:
    load = []
    for _ in range(draw.randint(1, 4)):
        busy = draw.choice((0, 0.3, 0.6, 1))
        mhz = draw.choice((210, 1100, top, top))
        load.append(
            Segment(draw.choice((40, 170, 500, 1000, 6000, 10_000)), mhz=mhz, hmma=busy, watts=round(90 + 600 * busy))
        )
    return tuple(load)
