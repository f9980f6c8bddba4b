"""A module of a package without the rest, and the whole package later for whoever imports it."""

import sys
from pathlib import Path

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


def test_the_rest_of_a_package_is_loaded_on_demand() -> None:
    assert {"refused", "prometheus_client.exposition"} <= modules_after(CODE)


def test_a_package_that_is_not_installed_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        part_of("no_such_package", "utils")


def test_an_attribute_that_is_no_module_runs_the_packages_own_code_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package := tmp_path / "flopsd_lazy").mkdir()
    (package / "__init__.py").write_text(
        "import flopsd_lazy.one\nVALUE = [5]\nloaded = flopsd_lazy.one.loads.append(1)\n"
    )
    (package / "one.py").write_text("loads = []\n")
    (package / "broken.py").write_text("import flopsd_no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        one = part_of("flopsd_lazy", "one")
        whole = sys.modules["flopsd_lazy"]
        with pytest.raises(ModuleNotFoundError, match="flopsd_no_such_module"):
            _ = whole.broken
        assert one.loads == []
        assert whole.VALUE == [5]
        assert whole.one is one is part_of("flopsd_lazy", "one")
        with pytest.raises(AttributeError, match="flopsd_lazy"):
            _ = whole.other
        assert one.loads == [1]
    finally:
        for name in [name for name in sys.modules if name.startswith("flopsd_lazy")]:
            del sys.modules[name]
