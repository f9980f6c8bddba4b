"""Pushing: addresses, pages in the pipe, what receivers get, and the cost of bad receivers."""

import gzip
import queue
import re
import struct
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cramjam import snappy
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from flopsd import __version__
from flopsd.errors import ConfigError, PushError
from flopsd.settings.data_files import load_policies
from flopsd.settings.load import SECRETS
from flopsd.settings.push_targets import parse_target
from flopsd.system.clock import NS_PER_S, SystemClock
from flopsd.system.protobuf import message_classes
from flopsd.telemetry.prometheus import Exposition
from flopsd.telemetry.push.feed import FIRST_BACKOFF_SECONDS, Feed
from flopsd.telemetry.push.frames import MAX_PAGE_BYTES, FrameError, FrameReader, Page, encode_frame
from flopsd.telemetry.push.http import Http
from flopsd.telemetry.push.otlp import Otlp
from flopsd.telemetry.push.pages import Parsed, parse_page
from flopsd.telemetry.push.queue import REQUEST_SECONDS, Sender, SendQueue
from flopsd.telemetry.push.remote_write import MESSAGES, RemoteWrite
from flopsd.telemetry.push.states import REASONS, PushState, metrics, parse_state
from flopsd.testing import FakeClock
from tests.support.paths import ROOT
from tests.support.process import PATIENCE_SECONDS, free_port, until_ended, wait_until
from tests.support.receivers import receiving
from tests.support.runs import A100, H100, STRANGER, Run
from tests.support.settings import load_settings

WALL_NS = 1_800_000_000 * NS_PER_S
WRITE_REQUEST = message_classes("prometheus", MESSAGES)["WriteRequest"]


def written(body: bytes) -> Any:
    return WRITE_REQUEST.FromString(bytes(snappy.decompress_raw(body)))


def page_of(run: Run, at_ns: int = WALL_NS, *, first: bool = False) -> Parsed:
    return parse_page(Page(Exposition().render(run.writer.snapshot, "")[0], at_ns, first=first))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "state", devices=(H100, A100))


def test_settings_accept_several_receivers_once_each() -> None:
    two = "pushgateway+http://a:1 otlp+http://b/v1/metrics#auth=env"
    assert load_settings({}, {"FLOPSD_PUSH": two, "FLOPSD_PUSH_AUTH": "Bearer x"}).pushes == tuple(two.split())
    with pytest.raises(ConfigError, match="did you mean FLOPSD_PUSH_EVERY"):
        load_settings({}, {"FLOPSD_PUSH_EVER": "1"})
    assert "FLOPSD_PUSH_AUTH" in SECRETS


def test_the_docs_page_shows_valid_addresses_and_metrics() -> None:
    text = (ROOT / "docs" / "push.md").read_text()
    addresses = re.findall(r"(?:pushgateway|otlp|remotewrite)\+http[^\s'`]+", text)
    for name, value in {"#auth=FILE&tenant=ID": "#auth=f&tenant=t", "sigv4=REGION": "sigv4=eu-west-1"}.items():
        addresses = [address.replace(name, value) for address in addresses]
    assert len([parse_target(address) for address in addresses]) >= 9
    shown = {
        f"{one.name}_total" if one.is_counter else one.name for one in metrics([PushState("x", last_success_wall_ns=1)])
    }
    assert set(re.findall(r"flopsd_push_[a-z_]+", text)) == shown
    assert list(metrics([])) == []
    assert all(f"`{reason}`" in text for reason in REASONS)


@given(
    pages=st.lists(
        st.builds(Page, st.binary(max_size=300), st.integers(0, 2**63), st.booleans(), st.booleans()), max_size=5
    ),
    cuts=st.lists(st.integers(1, 40), min_size=1),
)
def test_pages_are_read_whole_however_the_stream_is_split(pages: list[Page], cuts: list[int]) -> None:
    stream, reader, found, at, turn = b"".join(map(encode_frame, pages)), FrameReader(), [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        found += reader.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert found == pages


@pytest.mark.parametrize("junk", [b"page 1 99999999999\n", b"nonsense\n", b"x" * 64, b"page -1 2\n", b"\n"])
def test_an_invalid_frame_is_refused_in_bounded_memory(junk: bytes) -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(junk)


def test_the_largest_page_is_accepted_and_a_larger_one_refused() -> None:
    assert FrameReader().feed(b"page 1 %d\n" % MAX_PAGE_BYTES) == []
    with pytest.raises(FrameError, match=f"a page of {MAX_PAGE_BYTES + 1} bytes"):
        FrameReader().feed(b"page 1 %d\n" % (MAX_PAGE_BYTES + 1))


def test_a_page_of_another_program_is_refused() -> None:
    for text in (b"up 1\n", b"\xff", b"flopsd_run_info{run_id='\n"):
        with pytest.raises(PushError, match="this is not a page of"):
            parse_page(Page(text, 0))


def test_a_write_request_has_the_bytes_of_prometheus_own_schema() -> None:
    request = WRITE_REQUEST()
    series = request.timeseries.add()
    series.labels.add(name="a", value="b")
    series.samples.add(value=1.0, timestamp=300)
    label, sample = b"\x0a\x01a\x12\x01b", b"\x09" + struct.pack("<d", 1.0) + b"\x10\xac\x02"
    assert request.SerializeToString() == b"\x0a\x16" + b"\x0a\x06" + label + b"\x12\x0c" + sample


def test_otlp_and_remote_write_send_the_same_with_run_node_and_job(run: Run) -> None:
    target = parse_target("otlp+http://x/v1/metrics#job=j")
    http = Http(target, {})
    otlp, remote = Otlp(target, http), RemoteWrite(target, http)
    first, later = page_of(run), None
    run.meter(3)
    later = page_of(run, WALL_NS + NS_PER_S)
    for parsed in (first, later):
        answer = ExportMetricsServiceRequest.FromString(gzip.decompress(otlp.encode(parsed)))
        request = written(remote.encode(parsed))
        by_otlp, by_remote = set(), set()
        (resource,) = answer.resource_metrics
        (scope,) = resource.scope_metrics
        assert {one.key: one.value.string_value for one in resource.resource.attributes} == {
            "service.name": "j", "service.instance.id": parsed.instance,
        }  # fmt: skip
        assert (scope.scope.name, scope.scope.version) == ("flopsd", __version__)
        described = [family.documentation for family in parsed.families if family.samples]
        assert [metric.description for metric in scope.metrics] == described
        for metric in scope.metrics:
            sums = metric.WhichOneof("data") == "sum"
            assert sums == metric.name.endswith("_total")
            assert not sums or (metric.sum.is_monotonic and metric.sum.aggregation_temporality == 2)
            for point in (metric.sum if sums else metric.gauge).data_points:
                labels = {a.key: a.value.string_value for a in point.attributes}
                shown = tuple(sorted((k, v) for k, v in labels.items() if v))
                at_ms, rest_ns = divmod(point.time_unix_nano, 1_000_000)
                assert rest_ns == 0
                by_otlp.add((metric.name, shown, at_ms, point.as_double))
        for series in request.timeseries:
            labels = {label.name: label.value for label in series.labels}
            assert list(labels) == sorted(labels)
            name, instance = labels.pop("__name__"), labels.pop("instance")
            assert (labels["job"], instance) == ("j", f"{labels['node']}/run-1")
            by_remote |= {(name, tuple(sorted(labels.items())), s.timestamp, s.value) for s in series.samples}
        assert by_otlp == by_remote
        assert len(by_otlp) > 30
    flop = [one for one in by_otlp if one[0] == "flopsd_flop_total" and one[3] > 0]
    assert flop
    for name, its, at_ms, _ in flop:  # new since the page before, so they were zero
        assert (name, its, at_ms - 1, 0.0) in by_otlp
    again = written(remote.encode(later))
    assert {len(series.samples) for series in again.timeseries} == {1}


@pytest.mark.parametrize("of_run", [False, True])
def test_zero_points_precede_a_pushers_first_page_only_if_it_is_the_runs_first(run: Run, of_run: bool) -> None:
    run.meter(3)
    target = parse_target("remotewrite+http://x/w")
    request = written(RemoteWrite(target, Http(target, {})).encode(page_of(run, first=of_run)))
    at_ms = WALL_NS // 10**6
    for series in request.timeseries:
        name = next(label.value for label in series.labels if label.name == "__name__")
        zeros = [(sample.timestamp, sample.value) for sample in series.samples[:-1]]
        assert zeros == ([(at_ms - 1, 0.0)] if of_run and name.endswith("_total") else []), name


def ended(sender: RemoteWrite | Otlp, parsed: Parsed) -> set[tuple[str, str]]:
    """Names and bounds of the series that a page ends."""
    body, found = sender.encode(parsed), set()
    if isinstance(sender, RemoteWrite):
        for series in written(body).timeseries:
            labels = {label.name: label.value for label in series.labels}
            if struct.pack("<d", series.samples[-1].value) == struct.pack("<Q", 0x7FF0000000000002):
                found.add((labels["__name__"], labels.get("bound", "")))
        return found
    for metric in (
        ExportMetricsServiceRequest.FromString(gzip.decompress(body)).resource_metrics[0].scope_metrics[0].metrics
    ):
        for point in (*metric.gauge.data_points, *metric.sum.data_points):
            if point.flags & 1:
                labels = {one.key: one.value.string_value for one in point.attributes}
                assert {"run_id", "node", "job"} <= labels.keys()
                found.add((metric.name, labels.get("bound", "")))
    return found


@pytest.mark.parametrize("kind", [RemoteWrite, Otlp])
def test_a_value_that_is_no_longer_known_ends_its_series(tmp_path: Path, kind: type[RemoteWrite | Otlp]) -> None:
    """Otherwise the receiver shows it for five more minutes."""
    target = parse_target("otlp+http://x/v1/metrics")
    sender, run = kind(target, Http(target, {})), Run(tmp_path, devices=(H100,), policies=load_policies())
    run.meter(2)
    pages = [page_of(run)]
    run.devices = (H100, STRANGER)  # without an upper bound
    run.meter(1)
    pages += [page_of(run, WALL_NS + NS_PER_S), page_of(run, WALL_NS + 2 * NS_PER_S)]
    over = {("flopsd_threshold_ratio", "high"), ("flopsd_threshold_flop", "high")}
    assert [ended(sender, page) for page in pages] == [set(), over, set()]
    assert ended(sender, replace(pages[0], node="other")) == set(), "of another run nothing is known"


def send_queue(target: str, states: list[PushState]) -> SendQueue:
    found = parse_target(target)

    def opener() -> Sender:
        return RemoteWrite(found, Http(found, {}))

    return SendQueue(found.name, opener, SystemClock(), states.append)


def test_pages_missed_by_a_dead_receiver_arrive_in_order_up_to_a_bound(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(RemoteWrite, "keeps", 5)
    states: list[PushState] = []
    port = free_port()
    one = send_queue(f"remotewrite+http://127.0.0.1:{port}/w", states)
    for number in range(8):
        one.offer(page_of(run, WALL_NS + number * NS_PER_S), [one.state])
    wait_until(lambda: one.state.failures, "a failure")
    assert (one.state.waiting, one.state.dropped) == (5, 3)
    with receiving(port) as receiver:
        wait_until(lambda: one.state.successes == 5, "five pushes")
        bodies = [written(body) for _, _, _, body in receiver.requests]
    seconds = [body.timeseries[0].samples[-1].timestamp // 1000 - WALL_NS // NS_PER_S for body in bodies]
    assert seconds == [3, 4, 5, 6, 7]
    assert [r.message.count("succeeds again") for r in caplog.records if r.levelname == "WARNING"] == [1]
    assert states[-1].last_success_wall_ns is not None
    one.finish(SystemClock().boottime_ns() + PATIENCE_SECONDS * NS_PER_S)
    assert one.done.wait(PATIENCE_SECONDS), "nothing waits any more"
    assert one.all_sent
    assert parse_state(states[-1].line()) == states[-1]


def test_a_page_dropped_while_it_is_sent_drops_no_other_page(run: Run) -> None:
    begun, may_go_on, sent = threading.Event(), threading.Event(), list[bytes]()

    class Slow:
        keeps = 2

        def encode(self, _: Parsed) -> bytes:
            return bytes([len(encoded)])

        def send(self, page: bytes, seconds: float) -> None:
            begun.set()
            assert may_go_on.wait(seconds)
            sent.append(page)

    encoded: list[int] = []
    one = SendQueue("x", Slow, SystemClock(), lambda _: None)
    for number in range(3):
        encoded.append(number)
        one.offer(page_of(run), [])
        assert begun.wait(PATIENCE_SECONDS)
    may_go_on.set()
    one.finish(SystemClock().boottime_ns() + PATIENCE_SECONDS * NS_PER_S)
    assert one.done.wait(PATIENCE_SECONDS)
    assert sent == [b"\1", b"\2", b"\3"]


def test_a_failure_is_counted_each_time_and_logged_once_with_its_hint(caplog: pytest.LogCaptureFixture) -> None:
    one, counted = send_queue("remotewrite+http://127.0.0.1:1/w", []), []
    off = PushError("off", reason="refused", hint="see to it", final=True)
    for fault in (PushError("none", reason="timeout"), PushError("none", reason="timeout"), off):
        one._failed(fault)
        counted.append((sum(one.state.failures.values()), one.state.dropped))
    begin = f"NOT PUSHED to {one.name}:"
    assert caplog.messages == [f"{begin} none; metering goes on", f"{begin} off; see to it; metering goes on"]
    assert counted == [(1, 0), (2, 0), (3, 1)]
    assert dict(one.state.failures) == {"timeout": 2, "refused": 1}


def test_a_receiver_that_cannot_be_opened_is_a_failure_and_does_not_delay_the_end(run: Run) -> None:
    def opener() -> Sender:
        raise PushError("no credentials", reason="refused")

    states: list[PushState] = []
    one = SendQueue("x", opener, SystemClock(), states.append)
    one.offer(page_of(run), [])
    one.finish(SystemClock().boottime_ns())
    assert one.done.is_set()
    assert not one.all_sent
    assert [(dict(state.failures), state.waiting) for state in states] == [({"refused": 1}, 0)]


def test_an_hour_is_kept_at_the_default_interval() -> None:
    assert RemoteWrite.keeps * load_settings({}, {}).push_every_seconds == 3600


def test_the_end_waits_for_a_receiver_no_longer_than_allowed(run: Run) -> None:
    clock, states = SystemClock(), list[PushState]()
    with receiving() as receiver:
        receiver.hang.set()
        one = send_queue(f"remotewrite+{receiver.url}/w", states)
        one.offer(page_of(run), [])
        begun_ns = clock.boottime_ns()
        one.finish(begun_ns + NS_PER_S // 2)
        assert one.done.wait(30)
    # Once, or twice if it was tried before the end was known.
    assert (set(states[-1].failures), states[-1].dropped, states[-1].waiting) == ({"timeout"}, 1, 1)


@pytest.mark.parametrize("final", [False, True])
def test_the_state_of_a_receiver_is_reported_once_per_try(run: Run, final: bool) -> None:
    states: queue.SimpleQueue[PushState] = queue.SimpleQueue()
    waits: queue.SimpleQueue[float] = queue.SimpleQueue()

    class Down:
        keeps = 5

        def encode(self, _: Parsed) -> bytes:
            return b""

        def send(self, _: bytes, seconds: float) -> None:
            assert seconds == REQUEST_SECONDS
            raise PushError("down", reason="server_error", final=final)

    class Waits(SystemClock):
        def wait(self, event: threading.Event, seconds: float) -> bool:
            waits.put(seconds)
            return event.wait(0 if waits.qsize() < 9 else PATIENCE_SECONDS)

    one = SendQueue("x", Down, Waits(), states.put)
    for number in range(1, 4):
        one.offer(page_of(run), [])
        state = states.get(timeout=PATIENCE_SECONDS)
        assert (sum(state.failures.values()), state.dropped, state.waiting) == (
            (number, number, 0) if final else (1, 0, 1)
        )
        if not final:
            break
    for bound in () if final else (1, 2, 4, 8, 16, 32, 60, 60, 60):
        assert bound / 2 <= waits.get(timeout=PATIENCE_SECONDS) <= bound
    one.finish(SystemClock().boottime_ns() + 2 * PATIENCE_SECONDS * NS_PER_S)
    assert one.done.wait(PATIENCE_SECONDS)
    assert one.all_sent == final


def fed(clock: FakeClock, code: str, size: int = 3_000_000) -> tuple[Feed, list[int]]:
    """Pages are larger than any pipe buffer, unless `size` says otherwise."""
    rendered: list[int] = []

    def render() -> bytes:
        rendered.append(1)
        return b"x" * size

    return Feed((sys.executable, "-c", code), 1, render, clock), rendered


def end(feed: Feed, seconds: float) -> None:
    """End it in real time, waiting for it."""
    feed._clock = SystemClock()
    feed.end(seconds)


def test_a_pusher_that_reads_nothing_is_never_waited_for_and_gets_one_page() -> None:
    clock = FakeClock()
    feed, rendered = fed(clock, "import signal; signal.pause()")
    for _ in range(20):
        feed.each_tick()
        clock.advance(NS_PER_S)
    assert len(rendered) == 1
    assert feed._child is not None
    child = feed._child
    feed.finish()
    end(feed, 0.1)
    assert child.returncode == -9


@pytest.mark.parametrize("begins_run", [False, True])
def test_only_the_first_page_of_a_new_run_is_marked_first(tmp_path: Path, begins_run: bool) -> None:
    kinds, clock = tmp_path / "kinds", FakeClock()
    code = (
        "import sys\nfrom flopsd.telemetry.push.frames import FrameReader\nreader = FrameReader()\n"
        "for page in iter(lambda: sys.stdin.buffer.read1(), b''):\n"
        "    for one in reader.feed(page):\n"
        f"        print(one.first, one.last, file=open({str(kinds)!r}, 'a'), flush=True)\n"
        "        sys.exit(not one.last)\n"
    )
    feed = Feed((sys.executable, "-c", code), 1, lambda: b"x", clock, begins_run=begins_run)
    feed.each_tick()
    assert feed._child is not None
    until_ended(feed._child.pid)
    feed.finish()  # by another pusher
    end(feed, PATIENCE_SECONDS)
    assert kinds.read_text().splitlines() == [f"{begins_run} False", "False True"]


def test_a_page_is_offered_once_per_interval() -> None:
    clock = FakeClock()
    feed, rendered = fed(clock, "import signal; signal.pause()", size=10)
    pages = []
    for ns in (0, 0, NS_PER_S - 1, 1, 0):
        clock.advance(ns)
        feed.each_tick()
        pages.append(len(rendered))
    assert pages == [1, 1, 1, 2, 2]
    end(feed, 0)


def test_a_pusher_that_dies_is_restarted_ever_later(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    feed, _ = fed(clock, "raise SystemExit(7)")
    starts: list[int] = []
    for second in range(40):
        ended = caplog.text.count("ended with exit code 7")
        feed.each_tick()
        if feed._child is not None:
            until_ended(feed._child.pid)
            feed.each_tick()
        starts += [second] * (caplog.text.count("ended with exit code 7") - ended)
        clock.advance(NS_PER_S)
    assert starts == [0, 1, 3, 7, 15, 31]
    assert FIRST_BACKOFF_SECONDS == 1


PUSHER = """
import sys
from pathlib import Path
from flopsd.telemetry.push.frames import FrameReader
from flopsd.telemetry.push.states import PushState
reader, pages, dies = FrameReader(), [], Path(sys.argv[1])
if dies.exists():
    dies.unlink()
    sys.stdout.buffer.write(PushState("of the one that died", 9).line())
    raise SystemExit
while not (pages and pages[-1].last):
    pages += reader.feed(sys.stdin.buffer.read1())
sys.stdout.buffer.write(PushState("x", len(pages)).line())
"""


@pytest.mark.parametrize("before", ["a page is half through", "none was started", "it died"])
def test_the_last_page_of_a_run_arrives_whole_and_its_outcome_is_known(tmp_path: Path, before: str) -> None:
    dies = tmp_path / "dies"
    feed, _ = fed(FakeClock(), PUSHER)
    feed._command = (*feed._command, str(dies))
    if before == "it died":
        dies.touch()
    if before != "none was started":
        feed.each_tick()
    if before == "it died":
        assert feed._child is not None
        until_ended(feed._child.pid)
        feed._listen(feed._child)
        assert [state.successes for state in feed.states] == [9]
    feed.finish()
    end(feed, PATIENCE_SECONDS)
    assert feed.states == (PushState("x", 1 + (before == "a page is half through")),)


def test_a_pusher_that_cannot_start_is_logged_and_delays_neither_tick_nor_end(caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed(("/nowhere/python",), 1, lambda: b"x", FakeClock())
    feed.each_tick()
    feed.finish()
    feed.end(PATIENCE_SECONDS)
    assert [message.count("NOT PUSHED: the pushing process cannot be started") for message in caplog.messages] == [1, 1]


def test_the_metrics_of_a_receiver_match_its_pushers_state() -> None:
    states = [PushState("a", 3, {"timeout": 2}, 1, 4, 1_500_000_000), PushState("b")]
    found = {family.name.removeprefix("flopsd_push_"): dict(family.rows) for family in metrics(states)}
    assert found.pop("failures") == {
        (name, reason): 2 if (name, reason) == ("a", "timeout") else 0 for name in "ab" for reason in REASONS
    }
    assert found == {
        "successes": {("a",): 3, ("b",): 0},
        "dropped_snapshots": {("a",): 1, ("b",): 0},
        "queued_snapshots": {("a",): 4, ("b",): 0},
        "last_success_timestamp_seconds": {("a",): 1.5},
    }


def test_a_page_is_sent_over_several_ticks_and_its_outcome_is_shown() -> None:
    state = PushState("otlp+http://x/v1", 3, {"timeout": 2}, 1, 4, WALL_NS)
    code = f"""
import signal, sys
from flopsd.telemetry.push.frames import FrameReader
reader = FrameReader()
while not reader.feed(sys.stdin.buffer.read1()):
    pass
sys.stdout.buffer.write(b'nonsense\\n' + {state.line()!r})
sys.stdout.flush()
signal.pause()
"""
    feed, _ = fed(FakeClock(), code)

    def arrived() -> bool:
        feed.each_tick()
        return bool(feed.states)

    wait_until(arrived, "a state")
    assert feed.states == (state,)
    end(feed, 0)
