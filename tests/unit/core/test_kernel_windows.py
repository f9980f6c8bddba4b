"""Kernel counters that processes report are in the ledger, and change no other part of it."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from flopsd.core.kernel_windows import KERNEL_COUNTERS
from tests.make_vectors import runs
from tests.make_vectors.files import parsed, statement_of
from tests.support.process import in_process
from tests.support.story import chain, tell

J = dict[str, Any]
VECTOR = Path(__file__).parents[2] / "vectors" / "valid" / "kernel-windows"


def without_kernels(records: list[J]) -> list[J]:
    found = copy.deepcopy(records)
    for record in found:
        for session in record.get("sessions", ()):
            if "work" in session:
                session["work"] = {
                    phase: {name: count for name, count in counted.items() if name not in KERNEL_COUNTERS}
                    for phase, counted in session["work"].items()
                }
    return found


def judged(records: list[J]) -> J:
    """The statement without the digest of the journal and without the kernel counters."""
    found: J = copy.deepcopy(statement_of(chain(records))["predicate"])
    found["method"].pop("journal")
    for session in found["declared"]["sessions"]:
        session.pop("work")
    return found


@pytest.mark.parametrize("kind", ["works", "only sees"])
def test_no_figure_finding_or_note_depends_on_kernel_counters(kind: str) -> None:
    records = [dict(line.record()) for line in parsed(tell(runs.windows))]
    if kind == "only sees":  # a process that declares its model and counts no work
        for session in (one for record in records for one in record.get("sessions", ()) if "work" in one):
            seen = {name: count for name, count in session["work"]["train"].items() if name in KERNEL_COUNTERS}
            session["work"] = {"train": seen}
    assert any(name in json.dumps(records) for name in KERNEL_COUNTERS)
    assert judged(records) == judged(without_kernels(records))


def test_the_report_labels_kernel_counters_as_sampled_and_self_reported() -> None:
    given = [str(VECTOR / "ledger.json"), "--key", str(VECTOR / "ledger.pub")]
    given += ["--peaks", str(VECTOR.parents[1] / "peaks.yaml"), "--policy", str(VECTOR.parents[1] / "policy.yaml")]
    words = " ".join(in_process("report", *given).stdout.split())
    assert "Sampled: 4 windows of 160 ms in all, 0.89 % of the time of 2 devices" in words
    assert "2 left out because another profiler ran or a step failed; 1 refused" in words
    assert "which nobody checked; no figure rests on it" in words
    assert "matrix products in BF16 66.7 % 96 ms 28" in words
    assert "kernel launches" not in words, "the counters are in the table alone"
    page = in_process("report", *given, "--format", "html").stdout
    assert all(
        words in page for words in ("Kernels that they saw, sampled", "matrix products in BF16", "fused attention")
    )
