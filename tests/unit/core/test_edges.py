"""Values at the boundary of a decision."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from flopsd.core.architecture import read_model
from flopsd.core.architecture.attention_pairs import Side
from flopsd.core.envelope import parse_envelope
from flopsd.core.figures import NO_FIGURES, Figures
from flopsd.core.ledger.merged_sums import LedgerSums
from flopsd.core.model import PPM, Evidence
from flopsd.core.notes import is_note
from flopsd.core.operator_count import ReadFigures
from flopsd.core.phases import with_share
from flopsd.core.policy.guidelines import MARGIN_PPM
from flopsd.core.policy.reconcile import Ratio
from flopsd.core.tally import Tally
from flopsd.errors import ArchitectureError, NotVerifiedError
from flopsd.settings.precision_shares import precision


@pytest.mark.parametrize(("off_ppm", "within"), [(MARGIN_PPM, True), (MARGIN_PPM + 1, False)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_ratio_at_the_margin_is_within_it(sign: int, off_ppm: int, within: bool) -> None:
    ratio = Ratio("a ratio", None, PPM + sign * off_ppm, None)
    assert ratio.within is within
    assert (ratio.warning is None) is within


def test_phases_without_an_energy_counter_have_no_energy() -> None:
    tally = with_share(Tally(0, 7), Tally(0, 3), "train")
    again = with_share(Tally(0, 9, phases=tally.phases), Tally(0, 7, phases=tally.phases), "train")
    assert again.phases["train"].span_ns == 6
    assert again.phases["train"].energy_mj is None


def test_an_image_of_one_patch_is_an_image() -> None:
    one = {"model_type": "vit", "hidden_size": 8, "num_attention_heads": 2, "image_size": 16, "patch_size": 16}
    assert read_model(one).family == "vit"
    with pytest.raises(ArchitectureError, match="patch_size"):
        read_model({**one, "image_size": 15})
    with pytest.raises(ArchitectureError, match="a_new_field"):
        read_model({**one, "a_new_field": 7})


def test_a_share_of_one_in_a_million_is_a_share() -> None:
    found = precision("bf16:0.999999,fp8:0.000001")
    assert found is not None
    assert dict(found.shares_ppm) == {"bf16": 999_999, "fp8": 1}


def test_padding_removes_rows_and_columns_from_a_full_square() -> None:
    """At least as many pairs as with equal sequences, and at least as many as remain when each padding position is
    removed."""
    assert Side(16, 1, 2, 136, 136).least_square() == 136 - 2 * 11
    assert Side(16, 1, 1, 256, 256).least_square() == 256 - 2 * 16 + 1


@pytest.mark.parametrize(("one", "other", "both"), [(1, 2, 3), (None, 2, None), (1, None, None)])
def test_an_unknown_ceiling_makes_the_sum_unknown(one: int | None, other: int | None, both: int | None) -> None:
    assert (ReadFigures(unmeasured_high=one) + ReadFigures(unmeasured_high=other)).unmeasured_high == both


@pytest.mark.parametrize(
    "said", [None, "code", [], {}, {"more": "x"}, {"code": 1}, {"code": "x", "more": 1}, {"code": None}]
)
def test_a_note_needs_a_code_and_text_values(said: object) -> None:
    assert not is_note(said)
    assert is_note({"code": "x", "more": "y"})


def test_the_sum_of_two_nodes_without_a_model_has_no_count() -> None:
    assert (LedgerSums() + LedgerSums()).counted is None


@pytest.mark.parametrize("labels", [{"num_labels": 3}, {"id2label": {"0": "a", "1": "b", "2": "c"}}])
def test_a_token_classification_head_has_one_output_per_label(labels: dict[str, object]) -> None:
    fields = {
        "model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "vocab_size": 32, "max_position_embeddings": 16, **labels,
    }  # fmt: skip
    model = read_model({**fields, "architectures": ["BertForTokenClassification"]})
    assert [(head.path, head.inputs, head.outputs) for head in model.heads] == [("classifier", 8, 3)]


@pytest.mark.long
@pytest.mark.parametrize(("more", "fault"), [(0, "is not JSON"), (1, "more than 67108864 bytes")])
def test_a_ledger_is_limited_to_64_mib(more: int, fault: str) -> None:
    with pytest.raises(NotVerifiedError, match=fault):
        parse_envelope(b"x" * ((64 << 20) + more))


@pytest.mark.parametrize("signature", [1, {}, {"sig": 1}])
def test_a_signature_without_text_is_refused(signature: object) -> None:
    envelope = {"payloadType": "x", "payload": "", "signatures": [signature]}
    with pytest.raises(NotVerifiedError, match="a signature without the text 'sig'"):
        parse_envelope(json.dumps(envelope).encode())


@pytest.mark.parametrize(("highs", "whole"), [((3, 4), 7), ((3, None), None), ((), 0)])
def test_the_sum_of_ceilings_is_unknown_when_one_is(highs: tuple[int | None, ...], whole: int | None) -> None:
    rows: Any = [SimpleNamespace(evidence=Evidence.UTILIZATION, figures=Figures(0, None, high)) for high in highs]
    assert ReadFigures.of(NO_FIGURES, {}, rows).unmeasured_high == whole
