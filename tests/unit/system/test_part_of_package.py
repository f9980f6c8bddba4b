"""A module of a package without the rest, and the whole package afterwards for whoever imports it."""

import pytest

from flopsd.system.part_of_package import part_of
from tests.support.process import modules_after

CODE = """
from flopsd.system.part_of_package import part_of
utils = part_of("prometheus_client", "utils")
import sys
assert "prometheus_client.exposition" not in sys.modules
import prometheus_client.metrics  # a module of it that imports another from the package
assert "prometheus_client.exposition" not in sys.modules
import prometheus_client
assert prometheus_client.exposition.generate_latest(prometheus_client.REGISTRY)
from prometheus_client import Counter, utils as again
assert Counter is prometheus_client.metrics.Counter and again is utils
assert part_of("prometheus_client", "utils") is utils
try:
    prometheus_client.no_such_thing
except AttributeError:
    print("refused")
"""


def test_the_rest_is_loaded_when_it_is_asked_for() -> None:
    assert {"refused", "prometheus_client.exposition"} <= modules_after(CODE)


def test_a_package_that_is_not_installed() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        part_of("no_such_package", "utils")
