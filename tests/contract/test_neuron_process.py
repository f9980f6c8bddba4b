"""The life of neuron-monitor as our child: invalid, late and missing output, its death, and its end with us."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from flopsd.core.model import Gap, GapReason
from flopsd.errors import SourceUnavailableError
from flopsd.sources import SourceSettings
from flopsd.sources.neuron.monitor_process import MonitorProcess
from flopsd.sources.registry import open_source
from flopsd.system.clock import NS_PER_S
from flopsd.system.guarded_child import GuardedChild
from flopsd.testing import FakeClock
from tests.support.neuron import MONITOR, Lead, Led, alive, counting, flop, inf2
from tests.support.process import PATIENCE_SECONDS, wait_until
from tests.support.strategies import table

SECOND = 1.000665759  # the period in the inf2 capture


def test_the_monitor_is_configured_for_each_second_and_its_config_removed(
    lead: Lead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    counting(lead, inf2())
    understood = json.loads((tmp_path / "understood").read_text())  # "1.0s" would have been understood as 5 s
    assert understood == [1, ["neuroncore_counters"], ["neuron_hw_counters"]]
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("garbage", [{"raw": "{"}, {"raw": "[]"}, {"raw": "neuron-monitor 2.1"}, {"raw": '{"a": 1}'},
                                     {"raw": "[" * 100_000}, {"raw": "9" * 10_000}, {"huge": 8_000_001}])  # fmt: skip
def test_an_invalid_line_costs_its_period(lead: Lead, garbage: dict[str, object]) -> None:
    led = counting(lead, inf2())
    (bad,) = led.after(1, **garbage)
    (good,) = led.after(SECOND, doc=inf2())
    assert bad.work == Gap(GapReason.DRIVER_ERROR)
    assert flop(good) == 876_173_407_187
    assert good.begin_ns == bad.end_ns
    assert led.source.describe()["garbled_lines"] == 1


def test_time_that_no_period_covers_is_a_hole(lead: Lead) -> None:
    led = counting(lead, inf2())
    (late,) = led.after(4, doc=inf2())
    assert late.end_ns - late.begin_ns == 1_000_665_759
    (jittered,) = led.after(1.100732334, doc=inf2())  # a tenth more than its period
    assert jittered.begin_ns == late.end_ns
    (later,) = led.after(1.100732335, doc=inf2())
    assert later.begin_ns > jittered.end_ns


def test_a_dead_monitor_is_a_gap_and_is_restarted(lead: Lead, caplog: pytest.LogCaptureFixture) -> None:
    led = counting(lead, inf2())
    end_ns = led.clock.boottime_ns()
    led.clock.advance(NS_PER_S // 2)
    led.send(stderr="no such device i-0011223344556677a")
    led.send(exit=3)
    died = list(led.sweep().readings)
    assert [reading.work for reading in died] == [Gap(GapReason.SOURCE_DOWN)]
    assert (died[0].begin_ns, died[0].end_ns) == (end_ns, end_ns + NS_PER_S // 2)
    assert led.source.read().readings == ()  # no time has passed, and it is too early
    assert len(led.pids()) == 1
    led.clock.advance(NS_PER_S)
    assert led.sweep().readings[0].work == Gap(GapReason.SOURCE_DOWN)
    wait_until(lambda: len(led.pids()) == 2, "a second start")
    assert flop(led.after(SECOND, doc=inf2())[0]) == 876_173_407_187
    assert led.source.describe()["restarts"] == 1
    assert [record.getMessage() for record in caplog.records] == [
        "source neuron: neuron-monitor ended with exit code 3: no such device (id); it is started again; until it "
        "reports, the devices' time is a gap",
        "source neuron: neuron-monitor reports again",
    ]


def test_a_monitor_that_dies_again_and_again_is_logged_every_ten_minutes(
    lead: Lead, caplog: pytest.LogCaptureFixture
) -> None:
    led, logged = counting(lead, inf2()), []
    for _ in range(4):
        led.send(exit=3)
        led.clock.advance(1)
        led.sweep()  # sees the end, but it is too early for another start
        led.clock.advance(200 * NS_PER_S)
        led.sweep()
        led.after(SECOND, doc=inf2())
        logged.append(len(caplog.records))
    assert logged == [2, 2, 2, 4]


def test_a_line_cut_off_by_death_is_no_document(lead: Lead) -> None:
    led = counting(lead, inf2())
    led.clock.advance(NS_PER_S)
    led.send(cut=json.dumps(inf2()))
    assert {reading.work for reading in led.sweep().readings} == {Gap(GapReason.DRIVER_ERROR)}
    wait_until(lambda: led.source.read() and not alive(led.pids()[0]), "its end")
    assert led.source.describe()["garbled_lines"] == 1


def test_a_hanging_monitor_is_killed_and_restarted(lead: Lead) -> None:
    led = counting(lead, inf2())
    led.hang()
    led.clock.advance(10 * NS_PER_S)
    assert led.source.read().readings == ()
    led.clock.advance(1)
    assert led.source.read().readings[0].work == Gap(GapReason.SOURCE_SILENT)
    wait_until(lambda: not alive(led.pids()[0]), "its end")
    led.clock.advance(NS_PER_S)
    led.sweep()
    assert flop(led.after(SECOND, doc=inf2())[0]) == 876_173_407_187


def test_close_leaves_no_process_and_no_file(lead: Lead) -> None:
    led = counting(lead, inf2())
    led.hang()
    led.source.close()
    led.source.close()
    assert not alive(led.pids()[0])


def test_a_monitor_that_fails_at_once_is_unavailable_with_its_message(lead: Lead, tmp_path: Path) -> None:
    led = lead()
    led.send(stderr="driver not found on i-0011223344556677a")
    led.send(exit=1)
    with pytest.raises(SourceUnavailableError, match=r"ended with exit code 1: driver not found on \(id\)") as caught:
        open_source("neuron", SourceSettings(led.clock, table(), {"monitor": str(MONITOR),
                                                                  "sysfs": str(tmp_path)}))  # fmt: skip
    assert "aws-neuronx-dkms" in caught.value.hint


def test_the_last_message_of_a_monitor_is_the_reason_of_its_end(tmp_path: Path) -> None:
    script = tmp_path / "neuron-monitor"
    script.write_text("#!/bin/sh\nyes | head -n 50000 >&2\necho 'no driver' >&2\nexit 1\n")
    script.chmod(0o755)
    with pytest.raises(SourceUnavailableError, match="ended with exit code 1: no driver"):
        open_source("neuron", SourceSettings(FakeClock(), table(), {"monitor": str(script), "sysfs": str(tmp_path)}))


def test_a_monitor_that_cannot_be_followed_is_not_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    started = Mock(side_effect=RuntimeError("can't start new thread"))
    ended = Mock(wraps=GuardedChild.end)
    monkeypatch.setattr(threading.Thread, "start", started)
    monkeypatch.setattr(GuardedChild, "end", lambda child: ended(child))
    with pytest.raises(SourceUnavailableError, match="cannot be followed: can't start new thread"):
        MonitorProcess("/bin/cat", FakeClock())
    ((child,), _) = ended.call_args
    child.process.wait(PATIENCE_SECONDS)


def test_a_machine_without_neuron_is_absent_but_a_missing_named_monitor_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes, nowhere = [False], SourceSettings(FakeClock(), table(), {"sysfs": str(tmp_path)})
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("flopsd.sources.neuron._INSTALLED", str(MONITOR))  # it would end without its folder
    monkeypatch.setattr("flopsd.sources.neuron.sysfs.has_device_node", nodes.pop)
    with pytest.raises(SourceUnavailableError, match="no Neuron device") as caught:
        open_source("neuron", nowhere)
    assert caught.value.absent
    assert "aws-neuronx-tools" in caught.value.hint
    nodes.append(True)
    monkeypatch.setattr("flopsd.sources.neuron._INSTALLED", "/nowhere")
    with pytest.raises(SourceUnavailableError, match="no neuron-monitor was found") as caught:
        open_source("neuron", nowhere)
    assert not caught.value.absent
    with pytest.raises(SourceUnavailableError, match="is off") as caught:
        open_source("neuron", SourceSettings(FakeClock(), table(), {"monitor": "off"}))
    assert caught.value.absent
    with pytest.raises(SourceUnavailableError, match="not an executable") as caught:
        open_source("neuron", SourceSettings(FakeClock(), table(), {"monitor": str(tmp_path / "x")}))
    assert not caught.value.absent


def test_a_killed_parent_takes_even_a_hanging_monitor_with_it(tmp_path: Path) -> None:
    led = Led(tmp_path)
    led.send(doc=inf2())
    program = (
        "import sys, threading; from flopsd.system.clock import SystemClock; from flopsd.sources.neuron.monitor_process import MonitorProcess;"
        "monitor = MonitorProcess(sys.argv[1], SystemClock()); monitor.wait(60);"
        "print('ready', flush=True); threading.Event().wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(MONITOR)],
        env={**os.environ, "NEURON_STANDIN": str(tmp_path)},
        stdout=subprocess.PIPE,
    ) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"ready\n"
            led.hang()
            assert alive(led.pids()[0])
        finally:
            parent.kill()
            led.close()
    wait_until(lambda: not alive(led.pids()[0]), "the end of the orphan")
