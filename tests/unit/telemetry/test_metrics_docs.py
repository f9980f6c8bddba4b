"""docs/metrics.md is what the exporter serves."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from scripts.metrics_docs import LABELS, PAGE, families, labels_of, page
from tests.support.paths import GOLDEN

GOLDEN = GOLDEN / "metrics.prom"


def test_the_page_is_the_one_that_is_made() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs` and read the diff"


def test_whatever_is_served_is_on_the_page_with_these_labels() -> None:
    known = {family.name: set(labels_of(family)) for family in families()}
    served = list(text_string_to_metric_families(GOLDEN.read_text()))
    assert served
    for family in served:
        for sample in family.samples:
            assert set(sample.labels) == known[family.name], family.name


def test_no_label_is_explained_that_nothing_has() -> None:
    assert set(LABELS) == {label for family in families() for label in labels_of(family)}
