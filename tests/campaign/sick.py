"""Random machines with several sources, and the faults of each source."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from tests.campaign.cases import FOREVER, Case, hostile
from tests.campaign.exporter import Exporter
from tests.support.exporter import CLOCK, DFMA, ENERGY, FP16, FP32, FP64, HMMA, IMMA, TENSOR
from tests.support.scenario import Fault, Gpu, Segment, a100, h100

TENSOR_FIELDS = (TENSOR, HMMA, IMMA, DFMA)
LEFT_OUT = ((), (), (ENERGY,), (CLOCK,), (HMMA, IMMA, DFMA), (FP16, FP32, FP64), TENSOR_FIELDS)
PAGE_FAULTS = ("down", "hang", "frozen", "no_prof", "blank", "garbage", "gone", "reset", "ahead", "stood")


@dataclass(frozen=True)
class Sick(Case):
    """`stalls_ms`: times at which the daemon stands still, for how long, and whether it ticks before it reads again."""

    exporter: Exporter = field(default_factory=Exporter)
    sources: tuple[str, ...] = ("nvml", "dcgm")
    stalls_ms: tuple[tuple[int, int, bool], ...] = ()
    every_ms: int = 1000  # between two reads
    full_ms: tuple[tuple[int, int], ...] = ()  # spans in which nothing can be written to the disk
    # Whether the machine reboots whenever the daemon is killed: then only the wall clock shows how long it was away.
    reboots: bool = False
    unasked_ms: tuple[tuple[int, int], ...] = ()  # spans in which the owner of the GPUs is unknown

    @property
    def has_clocks(self) -> bool:
        """Whether NVML's clock is read beside the exporter."""
        return "nvml" in self.sources or bool(self.gpus[0].clock_samples_ms)

    @property
    def is_stated(self) -> bool:
        """Whether --dcgm-interval is at most the real interval. Rare reads of a page do not show a longer one."""
        return self.exporter.stated_ms <= self.exporter.interval_ms


def sick(seed: int) -> Sick:
    """A page, alone or beside NVML, with faults of exporter, driver and daemon."""
    draw = random.Random(seed)
    seconds, own_ms = draw.choice((12, 40, 90, 200)), draw.choice((1000, 5000, 5000, 10_000, 30_000))
    stated_ms = draw.choice((own_ms, own_ms, own_ms, own_ms * 6, own_ms // 5))
    begins = [draw.randrange(seconds * 1000) for _ in range(draw.choice((0, 0, 1, 2, 4)))]
    lengths = (300, 3000, 12_000, 40_000, FOREVER)
    faults = tuple(Fault(at, at + draw.choice(lengths), draw.choice(PAGE_FAULTS)) for at in begins)
    left_out = draw.choice(LEFT_OUT)
    if stated_ms > own_ms:  # a page that is not renewed would look like collections at that long an interval
        faults = tuple(fault for fault in faults if fault.kind not in ("frozen", "stood"))
    has_gpm = draw.random() < 0.4
    exporter = Exporter(
        own_ms, stated_ms, draw.randrange(own_ms), frozenset(left_out), draw.choice((0, 0, 200)),
        draw.choice((167, 1000)), draw.choice((0, 1, 132)) if has_gpm else 0, faults,
    )  # fmt: skip
    steps = _sometimes(draw, seconds, (-36_000_000, -700, 90, 7000))
    return Sick(
        f"sick {seed}",
        tuple(_gpu(draw, own_ms, has_gpm=has_gpm) for _ in range(draw.choice((1, 1, 2)))),
        seconds,
        tuple(draw.choice((7, 480, 1500, 9000, 60_000)) for _ in range(draw.choice((0, 0, 1, 3)))),
        wall_steps_ms=steps,
        sleeps_ms=_sometimes(draw, seconds, (400, 6000, 700_000)),
        exporter=exporter,
        sources=draw.choice((("dcgm",), ("dcgm",), ("nvml", "dcgm"), ("dcgm", "nvml"))),
        stalls_ms=_stalls(draw, seconds),
        every_ms=draw.choice((1000, 1000, 1000, 5000)),
        full_ms=tuple((at, at + ms) for at, ms in _sometimes(draw, seconds, (900, 4000, 30_000))),
        reboots=draw.random() < 0.2 and not steps,
    )


def pages() -> Iterator[Sick]:
    """Pages alone, of an H100, that are each wrong in one way once its counters are in use."""
    slow, little, double = Segment(1000, mhz=700, hmma=0.6), Segment(1000, hmma=0.04), Segment(1000, dfma=0.8)
    for kind, load, ms, counters in (
        ("older", slow, 5000, 1), ("stands", slow, 1000, 132), ("stands", little, 1000, 1), ("split", double, 5000, 0),
    ):  # fmt: skip
        faults = (Fault(200_000 if counters else 20_000, FOREVER, kind),)
        exporter = Exporter(ms, ms, 100, counters=counters, faults=faults)
        gpu = h100((load,), clock_samples_ms=0 if counters else 20)
        yield Sick(f"{kind}, {load.hmma}", (gpu,), 400 if counters else 100, exporter=exporter, sources=("dcgm",))


def calm(seed: int) -> Sick:
    """A page alone, with a load that changes at the collections. Nothing fails."""
    draw = random.Random(seed)
    own_ms = draw.choice((1000, 5000, 5000, 10_000, 30_000))
    gpu = replace(_gpu(draw, own_ms, has_gpm=False), faults=(), clock_samples_ms=20)
    left_out = frozenset(draw.choice(((), (), TENSOR_FIELDS)))
    stated_ms, torn_ms = draw.choice((own_ms, own_ms, own_ms, 6 * own_ms)), draw.choice((0, 300))
    exporter = Exporter(own_ms, stated_ms, draw.randrange(own_ms), left_out, torn_ms)
    return Sick(
        f"calm {seed}", (gpu,), draw.choice((12, 40, 200)), exporter=exporter, sources=("dcgm",),
        every_ms=draw.choice((1000, 1000, 1000, 5000, 30_000)),
    )  # fmt: skip


def driver(seed: int) -> Sick:
    """NVML alone, with all the faults of `hostile`, under a daemon that stands still and a disk that fills up."""
    case, draw = hostile(seed), random.Random(-seed)
    return Sick(
        f"driver {seed}", case.gpus, case.seconds, case.down_ms, False, case.wall_steps_ms, case.sleeps_ms,
        sources=("nvml",), stalls_ms=_stalls(draw, case.seconds),
        full_ms=tuple((at, at + ms) for at, ms in _sometimes(draw, case.seconds, (900, 4000, 30_000))),
        reboots=draw.random() < 0.3 and all(map(_stays, case.gpus)) and not case.wall_steps_ms,
    )  # fmt: skip


def owned(seed: int) -> Sick:
    """A machine of the other kinds whose GPUs belong to this job at times, by a rule that sometimes fails. Ownership
    while the daemon is away for long is not tested: for a GPU that is another job's before and after, no record says
    more."""
    draw = random.Random(seed)
    case = draw.choice((sick, driver))(seed)
    gpus = tuple(
        replace(gpu, mig=False, slices=(), faults=tuple(f for f in gpu.faults if f.kind != "mig_flip"))
        for gpu in case.gpus
    )
    seconds, is_away = draw.choice((40, 90, 200)), bool(case.down_ms)
    stands = case.sleeps_ms or case.stalls_ms
    return replace(
        case, name=f"owned {seed}", gpus=gpus, seconds=seconds,
        down_ms=() if stands else tuple(min(ms, 9000) for ms in case.down_ms),
        owned_ms=tuple(tuple(_turns(draw, seconds)) for _ in gpus),
        unasked_ms=() if is_away else tuple((at, at + ms) for at, ms in _sometimes(draw, seconds, (4000, 13_000, 40_000))),
    )  # fmt: skip


def _turns(draw: random.Random, seconds: int) -> Iterator[tuple[int, int]]:
    """Turns long enough that the ownership is queried in each."""
    at_ms, is_ours = 0, draw.random() < 0.6
    while at_ms < seconds * 1000 + 1_000_000:
        until_ms = at_ms + draw.choice((16_000, 25_000, 60_000, 137_000)) + draw.randrange(3000)
        if is_ours:
            yield at_ms, until_ms
        at_ms, is_ours = until_ms, not is_ours


KINDS: Mapping[str, Callable[[int], Sick]] = {"sick": sick, "calm": calm, "driver": driver, "owned": owned}


def _stays(gpu: Gpu) -> bool:
    """Whether it is listed all the time, and as one device. A new device on a new boot belongs to another machine."""
    return not (gpu.appears_ms or gpu.slices or {"gone", "mig_flip"} & {fault.kind for fault in gpu.faults})


def _sometimes(draw: random.Random, seconds: int, ms: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((draw.randrange(seconds * 1000), draw.choice(ms)) for _ in range(draw.choice((0, 0, 1))))


def _stalls(draw: random.Random, seconds: int) -> tuple[tuple[int, int, bool], ...]:
    lengths = (2000, 20_000, 120_000)
    return tuple(
        (draw.randrange(seconds * 1000), draw.choice(lengths), draw.random() < 0.5)
        for _ in range(draw.choice((0, 0, 1, 2)))
    )


def _gpu(draw: random.Random, own_ms: int, *, has_gpm: bool) -> Gpu:
    top = 1980 if has_gpm else 1410
    load = tuple(
        Segment(
            draw.choice((130, 1000, own_ms, own_ms, 20_000)), mhz=draw.choice((210, top, top)),
            hmma=draw.choice((0, 0.3, 0.6, 1)),
        )
        for _ in range(draw.randint(1, 3))
    )  # fmt: skip
    begins = [draw.randint(0, 50_000) for _ in range(draw.choice((0, 0, 1, 2)))]
    kinds = ("timeout", "gpu_lost", "unknown")
    faults = tuple(Fault(at, at + draw.choice((300, 1500, 12_000, 60_000)), draw.choice(kinds)) for at in begins)
    return (h100 if has_gpm else a100)(load, faults, clock_samples_ms=draw.choice((0, 20)))
