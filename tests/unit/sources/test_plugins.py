"""How a source is found by its name, and what a bad plug-in is told: always which distribution it came with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flopsd.errors import SourceUnavailableError
from flopsd.settings.load import config_dir
from flopsd.sources import SourceSettings, open_source
from flopsd.testing import FakeClock
from tests.support.strategies import table

GOOD = """
from flopsd.testing import ScriptedSource
from flopsd.core.model import Sweep
def open_source(settings):
    return ScriptedSource("extra", [], lambda: Sweep(()))
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution on the path, as pip lays it out."""
    monkeypatch.syspath_prepend(tmp_path)

    def install_it(distribution: str, code: str, *, name: str = "extra", point: str = "open_source") -> None:
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{module}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text(f"[flopsd.sources]\n{name} = {module}:{point}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install_it


def settings() -> SourceSettings:
    return SourceSettings(FakeClock(), table(), {"replay_file": str(config_dir() / "recordings" / "h100x2.jsonl")})


def refused(name: str = "extra") -> SourceUnavailableError:
    with pytest.raises(SourceUnavailableError) as caught:
        open_source(name, settings())
    assert not caught.value.absent
    return caught.value


def test_a_plug_in_is_opened_by_its_name(install: Install) -> None:
    install("good-one", GOOD)
    assert open_source("extra", settings()).name == "extra"


def test_an_unknown_name_lists_the_known_ones(install: Install) -> None:
    install("good-two", GOOD)
    fault = refused("nosuch")
    assert str(fault) == "there is no source named 'nosuch'"
    assert fault.hint == "sources here: dcgm, extra, neuron, nvml, replay"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import no_such_library", "cannot be loaded: ModuleNotFoundError"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError"),
        ("x = 1", "cannot be loaded: AttributeError"),
        ("open_source = 5", "cannot be called with one argument, its SourceSettings"),
        ("def open_source(): pass", "cannot be called with one argument, its SourceSettings: too many positional"),
        ("def open_source(a, b): pass", "cannot be called with one argument, its SourceSettings: missing a required"),
        ("def open_source(settings): return None", "gave NoneType, which is no source: devices, read"),
        ("def open_source(settings): raise OSError('no driver')", "cannot be opened: OSError('no driver')"),
        (GOOD.replace('"extra"', '"other"'), "calls itself 'other'"),
    ],
)
def test_a_bad_plug_in_is_named_with_its_distribution(
    install: Install, request: pytest.FixtureRequest, code: str, words: str
) -> None:
    install(f"bad-{request.node.callspec.indices['code']}", code)
    fault = refused()
    assert f"source 'extra' of bad-{request.node.callspec.indices['code']} 2.5" in str(fault)
    assert words in str(fault)


def test_what_a_plug_in_says_of_this_machine_stays_as_it_said_it(install: Install) -> None:
    install(
        "absent-one",
        "from flopsd.errors import SourceUnavailableError\n"
        "def open_source(settings): raise SourceUnavailableError('no card', hint='buy one', absent=True)",
    )
    with pytest.raises(SourceUnavailableError, match=r"^no card$") as caught:
        open_source("extra", settings())
    assert (caught.value.hint, caught.value.absent) == ("buy one", True)


def test_two_plug_ins_of_one_name_are_refused(install: Install) -> None:
    install("left-one", GOOD)
    install("right-one", GOOD)
    fault = refused()
    assert "left-one 2.5" in str(fault)
    assert "right-one 2.5" in str(fault)
    assert fault.hint == "pip uninstall left-one or right-one: only one can be meant"


def test_a_plug_in_does_not_take_a_built_in_sources_name(install: Install) -> None:
    assert open_source("replay", settings()).name == "replay"
    install("taker", GOOD, name="replay")
    fault = refused("replay")
    assert str(fault) == "the name 'replay' is a built-in source's, and a plug-in of taker 2.5 registers it too"
    assert "pip uninstall taker" in fault.hint


def test_without_plug_ins_a_built_in_source_does_not_pay_for_them() -> None:
    code = (
        "import sys\nfrom flopsd.sources import _opener\n_opener('replay')\nprint('importlib.metadata' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
