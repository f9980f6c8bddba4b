"""Whatever an exporter leaves out or replaces: a stated gap, or numbers of the fields that are there."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopsd.core.meter import advance
from flopsd.core.model import Active, Busy, Evidence, Gap, Growth, Limits, Pipe, Reading, Sweep
from flopsd.core.tally import Tally
from flopsd.sources.dcgm.exposition import COUNTERS, FIELD_OF_NAME, Field, parse_page, why_blank
from flopsd.sources.dcgm.gpu import FollowedGpu
from flopsd.sources.validate import check_devices, check_sweep
from flopsd.system.clock import NS_PER_S
from tests.support.exporter import A100_UID, gpu
from tests.support.extent import examples
from tests.support.strategies import table

SENTINELS = [
    str(base + code) for base in (0x7FFFFFF0, 9223372036854775792, 140737488355328) for code in range(5)
] + ["140737488355328.000000", "1.40737488355328e+16", "NaN", "+Inf", "-Inf"]  # fmt: skip
GARBAGE = ["-1", "-0.25", "1.004", "1.006", "101", "176000", "808334905", "0", "1e300", "", "x", "0x10", "1_0", '"']
ONE_NAME_EACH = sorted(
    {known: name for name, known in FIELD_OF_NAME.items() if known is not Field.GPU_UTIL_RATIO}.values()
)
NAMES = sorted({*ONE_NAME_EACH, "DCGM_FI_DEV_GPU_UTIL_RATIO"})
PIPE_OF = {
    Field.HMMA: Pipe.TENSOR_HMMA, Field.IMMA: Pipe.TENSOR_IMMA, Field.DFMA: Pipe.TENSOR_DFMA, Field.TENSOR: Pipe.TENSOR,
    Field.FP64: Pipe.FP64, Field.FP32: Pipe.FP32, Field.FP16: Pipe.FP16,
}  # fmt: skip
MODELS = {"NVIDIA A100-SXM4-80GB": Limits(108, 1410), "NVIDIA H100 80GB HBM3": Limits(132, 1980), "NVIDIA X1": None}


def usual(known: Field) -> st.SearchStrategy[str]:
    if known in COUNTERS:
        return st.integers(0, 10**15).map(str)
    if known.value[0].startswith("PROF_"):
        return st.floats(0, 1).map(lambda value: f"{value:.6f}")
    return (
        st.integers(210, 1410).map(str)
        if known in (Field.SM_CLOCK, Field.MAX_SM_CLOCK)
        else st.integers(0, 100).map(str)
    )


@st.composite
def pages(draw: st.DrawFn) -> dict[str, str]:
    """All fields except any subset, some of them blank or nonsense."""
    left_out = draw(st.sets(st.sampled_from(NAMES), max_size=draw(st.sampled_from([0, 3, len(NAMES)]))))
    odd = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from([*SENTINELS, *GARBAGE]), max_size=3))
    found = {name: draw(usual(FIELD_OF_NAME[name])) for name in ONE_NAME_EACH}
    return {name: value for name, value in {**found, **odd}.items() if name not in left_out}


@pytest.mark.long
@given(
    st.lists(st.tuples(pages(), st.sampled_from([1, 2, 20, 30, 40, 95])), min_size=2, max_size=6),
    st.sampled_from(sorted(MODELS)),
    st.sampled_from(
        [
            None,
            "DCGM 1084-1096 pipes x1, elapsed x1",
            "DCGM 1084-1096 pipes x132, elapsed x132, without fp16",
            "nonsense",
        ]
    ),
)
def test_every_page_gives_a_stated_gap_or_numbers_of_its_fields(
    steps: list[tuple[dict[str, str], int]], model: str, origin: str | None
) -> None:
    always = {"DCGM_FI_DEV_GPU_TEMP": 50}
    first = parse_page(gpu({**steps[0][0], **always}, model=model))[A100_UID]
    now_ns, limits = 10**12, MODELS[model]
    followed = FollowedGpu(first, 0, now_ns, 30 * NS_PER_S, table(), None)
    tally = Tally(now_ns, now_ns)
    for at, (values, seconds) in enumerate([*steps, ({}, 1)]):
        page = parse_page(gpu({**values, **always, "DCGM_FI_DEV_FB_USED": at}, model=model))[A100_UID]
        for second in range(seconds):
            now_ns += NS_PER_S
            shown = page if second == seconds - 1 else followed._page
            readings = followed.follow(shown, now_ns, origin)
            check_sweep(Sweep(tuple(readings), {A100_UID: followed.gauges()}), now_ns)
            check_devices((followed.device,))
            for reading in readings:
                check(reading, tally, now_ns, followed)
                tally = advance(tally, reading, limits)
    assert tally.total_observed_ns + tally.total_gap_ns == tally.span_ns


def check(reading: Reading, tally: Tally, now_ns: int, followed: FollowedGpu) -> None:
    """The reading is contiguous, has only pipes with a usable field value, and evidence as strong as its values."""
    assert reading.begin_ns == tally.watermark_ns
    assert reading.begin_ns < reading.end_ns <= now_ns
    values = followed._last.page.values if followed._last else {}
    if isinstance(reading.work, Active):
        there = {pipe for field, pipe in PIPE_OF.items() if field in values}
        assert set(reading.work.sm_cycles) == there
        assert set(reading.work.unread) == {Pipe.TENSOR, Pipe.FP64, Pipe.FP32, Pipe.FP16} - there
        assert all(cycles >= 0 for cycles in reading.work.sm_cycles.values())
        assert followed.device.evidence is Evidence.ACTIVITY
    if isinstance(reading.work, Busy):
        assert Field.GPU_UTIL in values or Field.GPU_UTIL_RATIO in values
    if isinstance(reading.work, Growth):
        assert reading.totals is not None
    if isinstance(reading.work, Gap):
        assert followed.device.evidence_reason or reading.work.reason.value in ("starting", "stale")


@pytest.mark.parametrize("text", SENTINELS)
def test_every_blank_is_missing_and_never_a_number(text: str) -> None:
    for known in Field:
        page = parse_page(gpu({next(n for n, f in FIELD_OF_NAME.items() if f is known): text}))[A100_UID]
        small = known in COUNTERS and 0 <= float(text) < 2**62  # a counter passes through the smaller blanks
        assert (known in page.values) == small, known
        assert (known in page.blanks) != small, known


@given(st.integers(0, 2**62), st.sampled_from([known for known in Field if known in COUNTERS]))
def test_no_real_counter_is_a_blank(value: int, known: Field) -> None:
    assert why_blank(known, float(value)) is None


@settings(max_examples=examples(50))
@given(st.text(max_size=40), st.sampled_from(["{", "}", '"', " ", "\\", ",", "=", "#"]))
def test_a_bad_line_costs_only_itself(text: str, mark: str) -> None:
    line = ("DCGM_FI_X" + text[:20] + mark + text[20:]).replace("\n", " ").replace("\r", " ")
    good = gpu({"DCGM_FI_DEV_SM_CLOCK": 1230})
    assert parse_page(f"{line}\n{good}")[A100_UID].values == {Field.SM_CLOCK: 1230.0}


@pytest.mark.parametrize("clock", ["-1", "0", "0.4"])
def test_an_impossible_clock_is_unknown(clock: str) -> None:
    page = parse_page(gpu({"DCGM_FI_DEV_MAX_SM_CLOCK": clock, "DCGM_FI_DEV_SM_CLOCK": clock}))[A100_UID]
    followed = FollowedGpu(page, 0, 10**12, 30 * NS_PER_S, table(), None)
    assert followed.device.sm_clock_max_mhz is None
    assert followed.gauges().sm_clock_mhz is None


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_a_newline_ends_a_line(end: str) -> None:
    """Other characters that Python treats as line ends may occur in a label."""
    line = 'DCGM_FI_DEV_SM_CLOCK{UUID="GPU-%d",modelName="a\u2028b\x85c\x0bd\x0ce\x1cf"} 1230' + end
    found = parse_page(line % 1 + line % 2)
    assert [page.values for page in found.values()] == [{Field.SM_CLOCK: 1230.0}] * 2
    assert found["GPU-1"].label("modelName") == "a\u2028b\x85c\x0bd\x0ce\x1cf"
