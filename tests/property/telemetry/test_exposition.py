"""Pages equal, byte for byte, prometheus-client's output for the same families, whatever the previous page
contained."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from flopsd.core.model import GapReason, Gauges, Pipe, Precision, Sweep
from flopsd.core.session_protocol import FactsDeclared, PhaseChanged, SessionOpened, WorkCounted
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.settings.data_files import load_policies
from flopsd.telemetry.families import Family, PageWriter, metric
from flopsd.telemetry.prometheus import Exposition, Kept, changing_families, constant_families, families_of_now
from flopsd.telemetry.snapshot import JournalState, KeyState, Snapshot
from tests.support.extent import Extent, sampled
from tests.support.runs import A100, H100, STRANGER, Run

ACCEPT = ("", "application/openmetrics-text; version=1.0.0")
PLAIN = st.characters(exclude_categories=["Cs"])
TEXTS = st.text(PLAIN, max_size=8) | st.sampled_from(('a"b', "a\\b", "a\nb", "\\n", ""))
NUMBERS = st.floats() | st.integers(-(10**30), 10**30) | st.sampled_from((0.0, -0.0, 1e6, 1e7, 123456789.5, 1e25))


class Of(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def reference(families: Sequence[Family], accept: str) -> bytes:
    encoder, _ = choose_encoder(accept)
    made: bytes = encoder(Of([metric(family) for family in families]))
    return made


@st.composite
def family(draw: st.DrawFn, name: str) -> Family:
    labels = draw(st.lists(st.from_regex("[a-z_][a-z0-9_]{0,5}", fullmatch=True), max_size=3, unique=True))
    made = Family(name, draw(TEXTS), None, labels, is_counter=draw(st.booleans()))
    rows = st.dictionaries(st.tuples(*[TEXTS] * len(labels)), NUMBERS, max_size=4 if labels else 1)
    for values, number in draw(rows).items():
        made.add(values, number)
    return made


@st.composite
def pages(draw: st.DrawFn) -> list[list[Family]]:
    """Pages of one process: a name keeps its help, kind and labels, and has other rows on each."""
    models = [draw(family(name)) for name in ("flopsd_a", "flopsd_b", "c")]
    made = []
    for _ in range(draw(st.integers(1, 4))):
        page = []
        for model in draw(st.permutations(models)):
            one = Family(model.name, model.help, None, model.labels, is_counter=model.is_counter)
            for values, number in model.rows:
                if draw(st.booleans()):
                    one.add(values, draw(st.just(number) | NUMBERS))
            page.append(one)
        made.append(page)
    return made


@given(pages())
def test_the_page_of_any_families_equals_prometheus_clients(made: list[list[Family]]) -> None:
    lines = PageWriter()
    for page in made:
        for accept in ACCEPT:
            text = lines.text(page, is_openmetrics=bool(accept)) + ("# EOF\n" if accept else "")
            assert text.encode() == reference(page, accept)


def test_the_pages_of_a_run_equal_prometheus_clients(tmp_path: Path) -> None:
    """With work, gaps, kills, a lost device and one that joins, policies, sealing, and parts that the table lacks."""
    count = 0
    for devices in ((H100, A100, STRANGER), tuple(replace(H100, uid=f"GPU-{at}", index=at) for at in range(8))):
        run = Run(tmp_path / str(len(devices)), devices=devices, policies=load_policies())
        exposition = Exposition()
        for at in range(12):
            if at == 7:
                run.restart()
            run.meter(1)
            snapshot = replace(run.writer.snapshot, journal_state=JournalState(at * 10**9, 900, at, at // 2, True, at))
            for accept in ACCEPT:
                assert exposition.render(snapshot, accept) == (whole(snapshot, accept), choose_encoder(accept)[1])
                count += 1
    assert count == 48


@sampled(1000)
def test_the_pages_of_random_runs_equal_prometheus_clients(extent: Extent, tmp_path: Path) -> None:
    """Ten pages in each format for each of a thousand runs: with faults, kills, devices that come and go, gauges of
    any size, declared phases and formats, keys and seals in any state."""
    count = 0
    for seed in extent.of(range(1000)):
        rng = random.Random(seed)
        run, exposition = random_run(rng, tmp_path / str(seed)), Exposition()
        for _ in range(10):
            random_step(rng, run)
            snapshot = replace(run.writer.snapshot, journal_state=random_state(rng), ended=rng.random() < 0.1)
            for accept in rng.sample(ACCEPT, 2):
                assert exposition.render(snapshot, accept)[0] == whole(snapshot, accept), seed
                count += 1
        run.kill()
    assert count >= 60


def random_run(rng: random.Random, folder: Path) -> Run:
    number = rng.randrange(1, 5)
    listed = [replace(rng.choice((H100, A100, STRANGER)), uid=f"GPU-{at}", index=at) for at in range(number)]
    precision = Precision((("bf16", 1_000_000),), "flag") if rng.random() < 0.3 else None
    return Run(folder, devices=tuple(listed), policies=rng.choice(((), load_policies())), precision=precision)


def random_step(rng: random.Random, run: Run) -> None:
    """Some seconds of metering, with random events before."""
    if rng.random() < 0.1:
        run.kill()
        run.clock.advance(rng.randrange(10**10))
        run.start()
    if rng.random() < 0.3:
        run.writer.take_event(SessionOpened("s", 1, 1000, "test"))
        run.writer.take_event(PhaseChanged("s", rng.choice(("train", "evaluate", "undeclared"))))
        run.writer.take_event(FactsDeclared("s", {"precision": {rng.choice(("bf16", "fp8")): 1_000_000}}))
        run.writer.take_event(WorkCounted("s", {"train": {"tokens": rng.randrange(10**12)}}))
    faults = [GapReason.DRIVER_TIMEOUT, GapReason.NOT_A_NUMBER, GapReason.DEVICE_LOST]
    faulty = rng.sample([device.uid for device in run.devices], rng.randrange(len(run.devices) + 1))
    run.meter(rng.randrange(4), rng.choice((None, *faults)), faulty)
    if rng.random() < 0.3:
        uid, now_ns = run.devices[0].uid, run.clock.boottime_ns()
        gauges = Gauges({Pipe.FP64: 10 ** rng.uniform(-20, 20)}, rng.random(), rng.randrange(3000))
        sweep = Sweep((), {uid: gauges})
        run.writer.take(Message("sim", now_ns, run.devices, sweep, read_seconds=rng.random()))


def random_state(rng: random.Random) -> JournalState | None:
    key = rng.choice((KeyState(), KeyState(True), KeyState(False, "pin_refused", "the PIN is wrong")))
    known = JournalState(rng.randrange(2 * 10**18), 900, rng.randrange(10**18), 2, True, None, 1, rng.randrange(3), key)
    return rng.choice((None, JournalState(rng.randrange(2 * 10**18)), known))


def whole(snapshot: Snapshot, accept: str) -> bytes:
    return reference(
        [*constant_families(snapshot), *changing_families(snapshot, Kept()), *families_of_now(snapshot)], accept
    )
