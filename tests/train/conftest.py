"""What CI takes of tests that try every family or every way to train: each so-manieth. `make test-all` runs all."""

from __future__ import annotations

from collections import Counter

import pytest

ONE_OF = {
    "test_the_configuration_tells_every_parameter": 8,
    "test_a_pass_is_counted_as_what_passed": 4,
    "test_a_step_counts_what_pytorch_counts": 3,
    "test_what_pytorch_counts_is_within_the_bounds": 3,
    "test_a_classifier_that_is_trained_beside_its_adapters_is_counted": 3,
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seen: Counter[str] = Counter()
    for item in items:
        name = getattr(item, "originalname", item.name)
        if seen[name] % ONE_OF.get(name, 1):
            item.add_marker(pytest.mark.exhaustive)
        seen[name] += 1
