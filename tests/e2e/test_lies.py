"""Every lie and blinding at once through the real program: each a gap with its own reason in metrics and ledger,
within two ticks, and the GPU beside them untouched."""

from __future__ import annotations

from pathlib import Path

from flopsd.core.model import GapReason, Pipe
from flopsd.journal.journal import read_journal
from flopsd.system.clock import NS_PER_S
from tests.support.process import environment, get, predicate, started, wait_until
from tests.support.scenario import LIES as ALL_LIES
from tests.support.scenario import Fault, Scenario, Segment, h100

BUSY = (Segment(1000, mhz=1755, hmma=0.6, fp32=0.1, util=100, watts=650),)
FROM_MS, TO_MS = 6000, 8500
LIES = tuple(lie for lie in ALL_LIES if lie[0] not in ("infinite", "unknown", "no_permission"))


def test_each_lie_is_told_and_the_others_are_untouched(tmp_path: Path, standin: Path) -> None:
    liars = tuple(h100(BUSY, (Fault(FROM_MS, TO_MS, kind),), counters="average") for kind, _ in LIES)
    scenario = Scenario((*liars, h100(BUSY, counters="sum")))
    env = environment(standin, scenario.write(tmp_path / "scenario.txt"))
    ledger, honest = tmp_path / "ledger.json", scenario.uuid(len(LIES))
    with started("run", "--source", "nvml", "--state-dir", str(tmp_path / "state"), "--ledger", str(ledger),
                 "--listen", "127.0.0.1:0", env=env) as program:  # fmt: skip
        url = program.wait_for(r"metrics at (\S+)/metrics")[1]

        def told(index: int, reason: GapReason) -> bool:
            lines = get(f"{url}/metrics")[1].splitlines()
            start = f'flopsd_gap_seconds_total{{gpu="{index}",reason="{reason.value}"'
            return any(line.startswith(start) for line in lines)

        for index, (_, reason) in enumerate(LIES):
            wait_until(lambda at=index, why=reason: told(at, why), f"{reason.value} in /metrics")
        wait_until(lambda: _seen(url, honest) > 11, "eleven seconds of the honest one")
        program.process.terminate()
        assert program.finish() == 0, program.text

    sealed = predicate(ledger)
    begin_ns = _begin_ns(ledger)
    for index, (kind, reason) in enumerate(LIES):
        uuid = scenario.uuid(index)
        gaps = [gap for gap in sealed["coverage"]["gaps"] if gap["device"] == uuid and gap["reason"] == reason.value]
        assert gaps, (kind, sealed["coverage"]["gaps"])
        found_at = begin_ns + round(float(gaps[0]["endSeconds"]) * NS_PER_S) - scenario.epoch_ns
        print(f"{kind}: {reason.value} of {sum(float(gap['seconds']) for gap in gaps):.1f} s")
        assert float(gaps[0]["beginSeconds"]) * NS_PER_S + begin_ns - scenario.epoch_ns < (FROM_MS + 1100) * 1_000_000
        assert found_at > FROM_MS * 1_000_000
    (device,) = [device for device in sealed["devices"] if device["uuid"] == honest]
    hmma = {row["evidence"]: int(row["smCycles"]) for row in device["work"] if row["pipe"] == "tensor_hmma"}
    observed = {row["evidence"]: float(row["seconds"]) for row in device["work"] if row["pipe"] == "tensor_hmma"}
    for evidence, cycles in hmma.items():
        true = scenario.gpus[-1].sm_cycles(Pipe.TENSOR_HMMA, 0, round(observed[evidence] * NS_PER_S), 132)
        assert abs(cycles / float(true) - 1) < 1e-4, (evidence, cycles / float(true))
    assert set(sealed["coverage"]["gapSecondsByReason"]) >= {reason.value for _, reason in LIES}


def _seen(url: str, uuid: str) -> float:
    lines = get(f"{url}/metrics")[1].splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("flopsd_observed_seconds_total{") and uuid in line
    )


def _begin_ns(ledger: Path) -> int:
    return int(next(read_journal(ledger.with_suffix(".journal.jsonl"))).record()["ns"])
