"""Where a process declared its model and there is no model FLOP, the reason is in the daemon's log at once, in the
node's and the job's ledger, in every report and in the Form. None of them says that nothing was declared."""

import logging
from pathlib import Path
from typing import Any

import pytest

from flopsd.client import connect
from flopsd.core.session_protocol import FactsDeclared, SessionOpened, WorkCounted
from flopsd.settings.platform import Context
from flopsd.settings.words import say_all
from tests.second_implementation.arithmetic import payload_of
from tests.support.jobs import Nodes, gpus, plain
from tests.support.process import in_process
from tests.support.runs import Run
from tests.support.story import VECTORS

OLMO = {
    "model_type": "olmo9", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "vocab_size": 128, "clip_qkv": "8.0",
}  # fmt: skip
LLAMA = {**OLMO, "model_type": "llama"}
WORK = {"train": {"steps": 1, "forward_passes": 1, "tokens": 64, "sequences": 1, "square_pairs": 4096}}


def ledger_of(nodes: Nodes, context: Context, facts: dict[str, Any], work: dict[str, Any] | None) -> Path:
    run = Run(nodes.folder / "state" / context.node, devices=gpus(context.node), context=context)
    run.writer.take_event(SessionOpened("1" * 32, 7, 0, "0.1.0"))
    run.writer.take_event(FactsDeclared("1" * 32, facts))
    run.meter(2)
    if work is not None:
        run.writer.take_event(WorkCounted("1" * 32, work))
    run.meter(2)
    run.finish()
    return run.seal(nodes.folder / context.node / "ledger.json", nodes.key).ledger


@pytest.mark.parametrize(
    ("facts", "work", "reason"),
    [
        ({"model_config": OLMO}, WORK, "flopsd does not model the family 'olmo9'"),
        ({"model_config": OLMO}, None, "flopsd does not model the family 'olmo9'"),
        ({"model_config": LLAMA}, WORK, "llama: flopsd does not know clip_qkv"),
        ({"parameters_total": 1000}, None, "declared its model, and no work of it"),
        ({"method": "full"}, WORK, "declared neither model_config nor parameters_total"),
        # Missing is never zero: steps without tokens were work.
        ({"parameters_total": 1000}, {"train": {"steps": 3}}, "no tokens were counted in phase train"),
    ],
)
def test_the_reason_is_in_the_log_the_ledger_every_report_and_the_form(
    facts: dict[str, Any], work: dict[str, Any] | None, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "flopsd"):
        ledger = ledger_of(Nodes(tmp_path), plain("node-0"), facts, work)
    logged = [record.getMessage() for record in caplog.records if "declares" in record.getMessage()]
    assert len(logged) == (0 if "no work of it" in reason else 1)
    totals = payload_of(ledger)["predicate"]["totals"]
    assert totals["architecture"] is None
    assert reason in say_all("architectureAbsentReasons", totals["architectureAbsentReasons"])
    assert all(reason in line for line in logged)
    for shape in ("text", "html", "form"):
        shown = in_process("report", str(ledger), "--format", shape, code=0).stdout
        words = " ".join(shown.replace("&#x27;", "'").replace("&#39;", "'").split())
        assert reason in words, shape
        assert "architecture is not declared" not in words
    verdict = " ".join(
        in_process("verify", str(ledger), "--key", str(ledger.parent.parent / "trusted.pub")).stdout.split()
    )
    assert "by model no figure" in verdict


def test_a_job_lists_the_reason_of_each_node(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    ledgers = [
        ledger_of(nodes, plain("node-0"), {"model_config": OLMO}, WORK),
        ledger_of(nodes, plain("node-1"), {"parameters_total": 1000}, {"train": {"steps": 3}}),
    ]
    predicate = payload_of(nodes.merge(*ledgers).ledger)["predicate"]
    reasons = [child["totals"]["architectureAbsentReasons"] for child in predicate["children"]]
    assert reasons == [
        [{"code": "family_not_modelled", "family": "olmo9"}],
        [{"code": "no_tokens_in_phase", "phase": "train"}],
    ]
    assert predicate["totals"]["architectureAbsentReasons"] == [*reasons[0], *reasons[1]]


def test_the_reason_is_in_the_log_of_the_training_process_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(tmp_path / "no.sock")
    with caplog.at_level(logging.WARNING, "flopsd.client"):
        client.declare(model_config=OLMO)
        client.declare(model_config={**OLMO, "model_type": "llama", "clip_qkv": None})
    client.close(0)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "does not model the family 'olmo9'" in line


@pytest.mark.parametrize("form", ["text", "html", "form"])
def test_a_ledger_without_a_reason_is_shown_as_such(form: str) -> None:
    """An altered ledger, which is not verified."""
    bent = VECTORS / "invalid" / "bent-totals-architectureabsentreasons" / "ledger.json"
    assert "ledger does not say why" in " ".join(in_process("report", str(bent), "--format", form).stdout.split())
