"""The answer for a run without declarations, word for word in every place that prints it."""

from html import unescape
from pathlib import Path

import pytest

from flopsd.core.declarations import Base, Method
from flopsd.core.figures import Figures
from flopsd.core.policy.evaluate import Case, findings
from flopsd.core.policy.guidelines import Guidelines
from flopsd.report.answer import answer_to
from flopsd.report.contents.model import ReportState
from flopsd.report.html.kit import typeset
from flopsd.report.numbers import beyond_margin
from flopsd.report.threshold_text import threshold_facts
from flopsd.settings.data_files import load_policies
from flopsd.telemetry.page.status_page import Assets, status_page
from flopsd.telemetry.status import status_of_snapshot
from flopsd.telemetry.status_text import status_text
from tests.support.process import in_process
from tests.support.runs import H100, Run

FAR_BELOW = "Far below: at most 1/7,400,000 of the lowest threshold that could apply, except for certain base models"
PLANNED = ("--parameters", "1e8", "--tokens", "1e6", "--sequence-length", "1024", "--method", "full")


def flat(text: str) -> str:
    return " ".join(unescape(text).split())


def test_the_headline_is_the_same_in_all_five_places(tmp_path: Path) -> None:
    run = Run(tmp_path / "state", devices=(H100,), policies=load_policies())
    run.meter(5)
    status = status_of_snapshot(run.writer.snapshot)
    answer = answer_to(status["thresholds"])
    assert answer.headline == FAR_BELOW
    assert len(answer.only_if) == 3
    run.finish()
    ledger = tmp_path / "ledger.json"
    key = str(run.seal(ledger).public_key)
    shown = {
        "status": status_text(status),
        "page": status_page(status, Assets()),
        "verify": in_process("verify", str(ledger), "--key", key).stdout,
        "report": in_process("report", str(ledger), "--key", key).stdout,
        "html": in_process("report", str(ledger), "--key", key, "--format", "html").stdout,
    }
    for words in (answer.headline, *answer.only_if):
        for name, text in shown.items():
            assert flat(typeset(words) if name in ("page", "html") else words) in flat(text), name
    planned = flat(in_process("estimate", *PLANNED).stdout)
    assert "Far below: at most 1/23,000,000 of the lowest threshold that could apply, except for certain" in planned


def said(figures: Figures, method: Method | None, base: Base | None) -> str:
    case = Case(Guidelines(figures, figures), method, base)
    return answer_to([found.for_ledger() for policy in load_policies() for found in findings(policy, case)]).headline


KNOWN = Base("b", "known", 9 * 10**23, None, False)
NEAR = Base("b", "known", 99 * 10**23, None, False)
NOT_KNOWN = Base("b", "unknown", None, None, None)
EDGE = Base("b", "estimated", 12 * 10**22, "6ND", False)


@pytest.mark.parametrize(
    ("high", "method", "base", "headline"),
    [
        (10**20, None, None, "Far below: at most 1/330 of the lowest threshold that could apply, except for certain"),
        (5 * 10**21, None, None, "Indeterminate for 4 of 9 thresholds: no single base model is declared"),
        (10**20, Method.LORA, KNOWN, "Far below: at most 1/3,000 of the lowest threshold that applies"),
        (
            10**20,
            Method.LORA,
            NEAR,
            "Far below: at most 1/33,000 of the lowest threshold that applies; together with its "
            "base model at most 99.1 % of another",
        ),
        (10**23, Method.LORA, KNOWN, "Below: at most 33.4 % of the lowest threshold that applies"),
        (10**22, Method.LORA, NOT_KNOWN, "Below: at most 30 % of the lowest threshold that could apply"),
        (10**24, Method.LORA, NOT_KNOWN, "Indeterminate for 1 of 3 thresholds: above the threshold, if the rule"),
        (10**20, Method.LORA, EDGE, "Far below: at most 1/330 of the lowest threshold that could apply, except"),
        (4 * 10**22, Method.LORA, EDGE, "Indeterminate for 2 of 3 thresholds: "),
        (1, Method.LORA, Base("b", "known", 10**22, None, False), "Below: at most 10.1 % of the lowest threshold that"),
    ],
)
def test_the_headline_claims_only_what_is_certain(
    high: int, method: Method | None, base: Base | None, headline: str
) -> None:
    assert said(Figures(high, None, high), method, base).startswith(headline)


def test_bounds_wider_than_an_estimates_margin_get_a_note_next_to_the_point() -> None:
    assert beyond_margin(Figures(70, 100, 130)) == beyond_margin(Figures(0, None, 10**9)) == ""
    for wide in (Figures(69, 100, 130), Figures(70, 100, 131), Figures(70, 100, None)):
        assert "paragraph 120" in beyond_margin(wide)


def test_several_regimes_are_named_with_their_answers_and_open_conditions() -> None:
    figures, chosen = Figures(10**26, None, 10**26), ["eu-ai-act", "kr-ai-basic-act", "us-ca-sb-53"]
    case = Case(Guidelines(figures, figures), Method.PRETRAINING)
    found = [one.for_ledger() for policy in load_policies(chosen) for one in findings(policy, case)]
    answer = answer_to(found)
    assert answer.state is ReportState.ABOVE
    assert answer.headline == (
        "eu-ai-act: Above both thresholds; "
        "kr-ai-basic-act: Above the threshold that applies (other conditions are not decided here); "
        "us-ca-sb-53: Below: at most 100 % of the threshold that applies"
    )
    korean = next(words for words in answer.sentences if words.startswith("kr-ai-basic-act: "))
    assert "Even the lower bound reaches the threshold. The official text of this rule was not read." in korean
    assert "compute alone; not decided here: the most advanced technology is applied; the risk is" in korean
    rows = dict.fromkeys(words for _, words in threshold_facts([{**one, "crossing": None} for one in found]))
    assert any("ABOVE: eu-ai-act: general-purpose AI model: " in row and "; assumes: the model" in row for row in rows)
    assert any("ABOVE: kr-ai-basic-act: high-performance AI" in row and "not decided here: " in row for row in rows)
