"""How a source is found by its name, the errors for a bad plug-in (always with its distribution), and `doctor`'s
questions to all sources: one that fails in any call is named, and costs no other."""

import hashlib
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flopsd.cli.doctor import Diagnosis, can_meter, doctor_text, examine
from flopsd.core.model import Evidence, Sweep
from flopsd.errors import ConfigError, PeakTableError, SourceError, SourceUnavailableError
from flopsd.settings.data_files import config_dir
from flopsd.settings.schema import SETTINGS
from flopsd.sources import Source, SourceSettings
from flopsd.sources.peak_rows import table_of
from flopsd.sources.probe import probe
from flopsd.sources.registry import BUILT_IN, built_in, find, known_sources, open_source, settings_of
from flopsd.testing import FakeClock, ScriptedSource
from tests.support.process import modules_after
from tests.support.runs import A100, H100
from tests.support.settings import load_settings
from tests.support.strategies import table

GOOD = """
from flopsd.core.model import Evidence, Sweep
from flopsd.settings import parsers
from flopsd.sources import SourceInfo, SourceOption
from flopsd.testing import ScriptedSource
def open_source(settings):
    source = ScriptedSource("extra", [], lambda: Sweep(()))
    source.options = settings.options
    return source
SOURCE = SourceInfo(
    name="extra",
    title="a card that does not exist",
    open=open_source,
    evidence=(Evidence.COUNT,),
    remedy="buy one",
    options=(
        SourceOption("url", "URL", "where it is", parsers.url, default="http://127.0.0.1:1/"),
        SourceOption("poll_seconds", "SECONDS", "how often", parsers.seconds(1, 60), default_text="as it likes"),
    ),
)
"""
EARLIER = (Path(__file__).parents[2] / "samples" / "plugin_of_the_earlier_contract.txt").read_text()
Install = Callable[..., None]


def with_opener(code: str) -> str:
    """The good plug-in with another function that opens it: `open_it` in `code`."""
    return GOOD.replace("open=open_source", "open=open_it").replace("SOURCE =", f"{code}\nSOURCE =")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution on the path, as pip lays it out."""
    monkeypatch.syspath_prepend(tmp_path)

    def install_it(distribution: str, code: str, *, name: str = "extra", point: str = "SOURCE") -> None:
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{module}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text(f"[flopsd.sources]\n{name} = {module}:{point}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install_it


def settings() -> SourceSettings:
    return SourceSettings(FakeClock(), table())


def refused(name: str = "extra") -> SourceUnavailableError:
    with pytest.raises(SourceUnavailableError) as caught:
        open_source(name, settings())
    assert not caught.value.absent
    return caught.value


def test_a_plug_in_is_opened_by_name_and_an_unknown_name_lists_the_known_ones(install: Install) -> None:
    install("good-one", GOOD)
    assert open_source("extra", settings()).name == "extra"
    fault = refused("nosuch")
    assert str(fault) == "there is no source named 'nosuch'"
    assert fault.hint == f"sources here: {', '.join(sorted((*BUILT_IN, 'extra')))}"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import no_such_library", "cannot be loaded: ModuleNotFoundError"),
        ("SOURCE = 5", "its entry point bad_1:SOURCE is a int, not a flopsd.sources.SourceInfo"),
        (with_opener("def open_it(): pass"), "with one argument, its SourceSettings: too many positional"),
        (with_opener("def open_it(a, b): pass"), "cannot be called with one argument, its SourceSettings: missing a"),
        (with_opener("def open_it(settings): return None"), "gave NoneType, which is not a source: devices, read"),
        (with_opener("def open_it(settings): raise OSError('no driver')"), "cannot be opened: OSError('no driver')"),
        (GOOD.replace('name="extra"', 'name="other"'), "declares the name 'other'"),
        (GOOD.replace('name="extra"', 'name="Extra!"'), "be loaded: ValueError(\"'Extra!' is not a name of a source"),
        (GOOD.replace('ScriptedSource("extra"', 'ScriptedSource("other"'), "calls itself 'other'"),
    ],
)
def test_a_bad_plug_in_is_named_with_its_distribution(
    install: Install, request: pytest.FixtureRequest, code: str, words: str
) -> None:
    install(f"bad-{request.node.callspec.indices['code']}", code)
    fault = refused()
    assert f"source 'extra' of bad-{request.node.callspec.indices['code']} 2.5" in str(fault)
    assert words in str(fault)


def test_a_plug_in_of_the_earlier_contract_is_refused_with_the_change(install: Install) -> None:
    """The plug-in is the example of the old docs/plugins.md, verbatim; its entry point named the function that opens
    it."""
    install("flopsd-acme", EARLIER, name="earlier", point="open_source")
    fault = refused("earlier")
    assert str(fault) == (
        "source 'earlier' of flopsd-acme 2.5 is written for an earlier version of flopsd: its entry point "
        "flopsd_acme:open_source is a function that opens the source; flopsd now expects a flopsd.sources.SourceInfo "
        "there, which declares the source's options, evidence and devices, and names that function as `open`"
    )
    assert fault.hint == "install a newer flopsd-acme, or ask its authors; docs/plugins.md shows the change"
    known = known_sources()
    assert [info.name for info in known.infos] == list(BUILT_IN), "the built-in sources are not affected"
    assert list(map(str, known.faults)) == [str(fault)]


def test_a_plug_ins_own_error_about_this_machine_is_kept(install: Install) -> None:
    opener = (
        "from flopsd.errors import SourceUnavailableError\n"
        "def open_it(settings): raise SourceUnavailableError('no card', hint={hint!r}, absent=True)"
    )
    for distribution, hint, shown in (("absent-one", "sell one", "sell one"), ("absent-two", "", "buy one")):
        install(distribution, with_opener(opener.format(hint=hint)).replace('"extra"', f'"{distribution}"'),
                name=distribution)  # fmt: skip
        with pytest.raises(SourceUnavailableError, match=r"^no card$") as caught:
            open_source(distribution, settings())
        assert (caught.value.hint, caught.value.absent) == (shown, True)


def test_a_missing_package_is_named_with_its_remedy(install: Install) -> None:
    needs = 'packages=(Package("no_such_module", "acme-binding", "flopsd-acme[acme]"),),'
    install("needy", GOOD.replace("options=(", needs + "options=(", 1).replace("SourceInfo, ", "Package, SourceInfo, "))
    with pytest.raises(SourceUnavailableError, match=r"^the Python package acme-binding is not installed$") as caught:
        open_source("extra", settings())
    assert (caught.value.hint, caught.value.absent) == ("pip install 'flopsd-acme[acme]'", True)


def test_options_of_a_plug_in_are_settings_like_any_other(install: Install, tmp_path: Path) -> None:
    install("good-three", GOOD)
    known = known_sources()
    assert known.faults == ()
    url, poll = known.settings[-2:]
    assert (url.key, url.flag, url.variable) == ("extra_url", "--extra-url", "FLOPSD_EXTRA_URL")
    assert url.help == "where it is (default: http://127.0.0.1:1/)"
    assert (poll.key, poll.flag, poll.variable) == ("extra_poll_seconds", "--extra-poll", "FLOPSD_EXTRA_POLL")
    file = tmp_path / "flopsd.yaml"
    file.write_text("extra_url: http://from-file/\n")
    found = load_settings({}, {"FLOPSD_EXTRA_POLL": "5"}, str(file), known.settings)
    options = find("extra").options_from(found.source_options)
    assert options == {"url": "http://from-file/", "poll_seconds": 5.0}
    with pytest.raises(ConfigError, match="FLOPSD_EXTRA_POLL: '0': expected"):
        load_settings({}, {"FLOPSD_EXTRA_POLL": "0"}, str(file), known.settings)
    opened: Any = open_source("extra", settings())
    assert opened.options == {"url": "http://127.0.0.1:1/", "poll_seconds": None}, "defaults, where nothing is set"


ROW = "{id: %s, vendor: acme, names: [%s], status: published, sources: [a data sheet]}"


def with_rows(install: Install, folder: Path, rows: str, *, name: str = "extra", distribution: str = "rows") -> None:
    """A plug-in that ships peak rows in a file next to it."""
    file = folder / f"{distribution}.yaml"
    file.write_text(rows)
    more = f'vendor="acme",\n    peaks=__import__("pathlib").Path({str(file)!r}),\n    evidence='
    install(distribution, GOOD.replace("evidence=", more).replace('"extra"', f'"{name}"'), name=name)


def test_rows_of_a_plug_in_are_added_to_the_table_reproducibly(install: Install, tmp_path: Path) -> None:
    with_rows(install, tmp_path, "# ours\n   - " + ROW % ("one", "One") + "\n   - id: two\n     vendor: acme\n"
              "     names: [Two]\n     status: >-\n       published\n\n     sources: []\n")  # fmt: skip
    with_rows(install, tmp_path, "- " + ROW % ("three", "Three"), name="other", distribution="more")
    found = table_of(None, ["other", "nvml", "extra"])
    assert found == table_of(None, ["extra", "other"])
    assert found.added == ("extra", "other")
    assert found.table.sha256 == hashlib.sha256(found.data).hexdigest()
    assert list(found.table.parts) == ["one", "two", "three", *table().parts]
    assert found.table.resolve(replace(A100, model="Two", pci_device_id=None)).id == "two"
    assert {name: part for name, part in found.table.parts.items() if name in table().parts} == table().parts
    assert table_of(None, ["nvml"]).data == table_of(str(config_dir() / "peaks.yaml"), ["extra"]).data
    install("plain", GOOD.replace('"extra"', '"plain"'), name="plain")
    assert table_of(None, ["plain"]) == table_of(None, ["nvml"]), "a plug-in need not have rows"


@pytest.mark.long
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("{accelerators: []}", "not a list of rows"),
        ("- [1]", "not a list of rows"),
        ("- {a: 1", "not YAML"),
        ("- {id: a, id: b}", "given twice"),
        ("- {id: mine, vendor: nvidia}", "rows of vendor nvidia, and the source's is 'acme'"),
        (
            "- {id: mine, vendor: acme}",
            "with them: peak table is malformed: row 'mine' of accelerators: 'status' is missing",
        ),
        ("- " + ROW % ("h100-pcie", "One"), "two rows share an id"),
        ("- " + ROW % ("mine", "NVIDIA H100 PCIe"), "'NVIDIA H100 PCIe' belongs to both 'mine' and 'h100-pcie'"),
        ("[" + ROW % ("mine", "One") + "]", "the rows are not a plain YAML list"),
        pytest.param(
            "#" * 2**20 + "\n- " + ROW % ("mine", "One"),
            "with these rows the table has more than 1048576 bytes",
            id="long",
        ),
        ("---\n- " + ROW % ("mine", "One"), "the rows are not a plain YAML list"),
    ],
)
def test_invalid_rows_are_refused_with_their_distribution(
    install: Install, tmp_path: Path, rows: str, words: str
) -> None:
    with_rows(install, tmp_path, rows)
    with pytest.raises(PeakTableError) as caught:
        table_of(None, ["extra"])
    assert str(caught.value).startswith(f"the peak rows of source 'extra' of rows 2.5, {tmp_path}/rows.yaml: ")
    assert words in str(caught.value)


def test_invalid_rows_of_one_plug_in_cost_no_other_its_rows(install: Install, tmp_path: Path) -> None:
    with_rows(install, tmp_path, "- [1]")
    with pytest.raises(PeakTableError) as caught:
        table_of(None, ["extra"])
    with_rows(install, tmp_path, "- " + ROW % ("sound", "Sound"), name="other", distribution="more")
    stated: list[PeakTableError] = []
    assert table_of(None, ["extra", "other"], stated.append).added == ("other",), "under exec and --wait-for-source"
    assert list(map(str, stated)) == [str(caught.value)]
    with_rows(install, tmp_path, "- " + ROW % ("sound", "Same"), name="third", distribution="same")
    with pytest.raises(PeakTableError, match=r"rows of source 'third' of same 2\.5.*two rows share an id"):
        table_of(None, ["other", "third"])


def test_doctor_probes_unnamed_plug_ins_and_none_costs_another(install: Install, tmp_path: Path) -> None:
    install("broken", "import no_such_library", name="broken")
    install(
        "plain", GOOD.replace('"extra"', '"plain"').replace('"url"', '"at"').replace('"poll_', '"look_'), name="plain"
    )
    with_rows(install, tmp_path, "- " + ROW % ("one", "One") + "\n")
    device = "Device('GPU-x', 0, 'acme', 'One', sm_count=64, evidence=Evidence.COUNT)"
    file = tmp_path / "rows.py"
    file.write_text("from flopsd.core.model import Device\n" + file.read_text().replace('", [],', f'", [{device}],'))
    with_rows(install, tmp_path, "[1]", name="unfit", distribution="unfit")
    here = {"state_dir": str(tmp_path / "s"), "listen": "off", "neuron_monitor": "off"}
    given = load_settings(here, {}, None, known_sources().settings)
    checks = examine(given, {}, FakeClock(), known_sources())
    assert [check for check in checks if checks.count(check) > 1] == []
    found = {check.name: check for check in checks}
    assert (found["plug-in"].state, "source 'broken' of broken 2.5 cannot be loaded" in found["plug-in"].detail) == (
        "fail", True)  # fmt: skip
    assert "the peak rows of source 'unfit' of unfit 2.5" in found["peak table"].detail
    assert found["source extra"].state == "ok"
    assert ("row one" in found["device 0"].detail, found["device 0"].meters) == (True, False)
    assert found["device 0"].needs == "--source extra"
    said = " ".join(doctor_text(list(found.values())).split())
    assert "-> `flopsd run --source extra` meters it" in said
    assert said.endswith("with --source extra it meters what a plug-in reads")
    by_name = examine(replace(given, sources=("extra",)), {}, FakeClock(), known_sources())
    assert can_meter(by_name)
    assert not {"plug-in", "source unfit"} & {check.name for check in by_name}


def test_doctor_gives_no_remedy_for_an_absent_source_where_another_one_meters() -> None:
    absent = Diagnosis("source dcgm", "none", "no exporter answers", "start one")
    assert "-> start one" in doctor_text([absent])
    gpu = Diagnosis("device 0", "ok", "an H100", meters=True)
    assert "start one" not in doctor_text([absent, gpu])
    assert "-> start one" in doctor_text([replace(absent, state="warn"), gpu])


def test_an_option_cannot_take_another_settings_name(install: Install) -> None:
    install("first", GOOD.replace('"extra"', '"a"').replace('"url"', '"b_url"'), name="a")
    install("second", GOOD.replace('"extra"', '"a-b"'), name="a-b")
    install("third", GOOD.replace('"extra"', '"state"').replace('"url"', '"dir"'), name="state")
    known = known_sources()
    assert [info.name for info in known.infos] == [*BUILT_IN, "a"]
    assert list(map(str, known.faults)) == [
        "source 'a-b' of second 2.5 declares the option a_b_url, the name of another setting",
        "source 'state' of third 2.5 declares the option state_dir, the name of another setting",
    ]


def test_two_plug_ins_of_one_name_are_refused(install: Install) -> None:
    install("left-one", GOOD)
    install("right-one", GOOD)
    fault = refused()
    assert "left-one 2.5" in str(fault)
    assert "right-one 2.5" in str(fault)
    assert fault.hint == "pip uninstall left-one or right-one: only one may have this name"


def test_a_plug_in_cannot_take_a_built_in_sources_name(install: Install) -> None:
    assert open_source("replay", settings()).name == "replay"
    install("taker", GOOD, name="replay")
    fault = refused("replay")
    assert str(fault) == "the name 'replay' is a built-in source's, and a plug-in of taker 2.5 registers it too"
    assert "pip uninstall taker" in fault.hint


def test_the_command_line_reads_source_declarations_without_their_drivers() -> None:
    loaded = modules_after("from flopsd.cli.main import _parser; _parser()")
    assert not {"importlib.metadata", "pynvml", "socket", "yaml"} & loaded
    described = {f"flopsd.sources.{name}" for name in (*BUILT_IN, "registry")}
    assert {name for name in loaded if name.startswith("flopsd.sources.")} == described


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_source_declares_its_name_title_and_remedy(name: str) -> None:
    info = built_in(name)
    assert info.name == name
    assert info.title
    assert info.remedy
    assert info.evidence == tuple(sorted(info.evidence, key=list(Evidence).index))
    assert {part.vendor for part in table().parts.values()} == {built_in(one).vendor for one in BUILT_IN} - {""}
    assert {setting.key for setting in settings_of(info)}.isdisjoint(setting.key for setting in SETTINGS)


def leave() -> None:
    raise SystemExit(3)


FAULTS: dict[str, Callable[[], Any]] = {
    "describe": lambda: 1 / 0,
    "devices": lambda: None,
    "read": leave,
    "close": lambda: 1 / 0,
}


def faulty(call: str) -> ScriptedSource:
    """A source that fails in the given call; closing it works all the same."""
    source = ScriptedSource("bad", [A100], lambda: Sweep(()))
    close = source.close

    def fails() -> Any:
        if call == "close":
            close()
        return FAULTS[call]()

    setattr(source, call, fails)
    return source


@pytest.mark.parametrize("call", FAULTS)
def test_a_source_that_fails_in_any_call_is_named_with_its_fault(call: str, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = ScriptedSource("good", [H100], lambda: Sweep(())), faulty(call)
    sources: dict[str, Source] = {"bad": bad, "good": good}
    found = probe(["bad", "good"], sources.__getitem__, FakeClock())
    assert bad.closed
    assert good.closed
    if call == "close":  # read by then
        assert [one.fault for one in found.sources] == ["", ""]
        assert found.devices == ((A100, "bad"), (H100, "good"))
        assert "division by zero" in caplog.text
    else:
        assert [(one.name, bool(one.fault)) for one in found.sources] == [("bad", True), ("good", False)]
        assert "source 'bad' failed: " in found.sources[0].fault
        assert found.devices == ((H100, "good"),)


def test_a_source_that_hangs_is_named_and_costs_no_other() -> None:
    hang = threading.Event()
    good, bad = (ScriptedSource(name, [H100], lambda: Sweep(())) for name in ("good", "bad"))
    bad.read = hang.wait  # type: ignore[assignment, method-assign]
    sources: dict[str, Source] = {"bad": bad, "good": good}
    found = probe(["bad", "good"], sources.__getitem__, FakeClock(), 0.05)
    hang.set()
    assert [one.fault for one in found.sources] == [
        "no answer within 0.05 s: a call of its driver or server has not returned", ""]  # fmt: skip
    assert found.devices == ((H100, "good"),)


def test_errors_of_opening_a_source_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    def opener(name: str) -> Source:
        if name == "gone":
            raise SourceUnavailableError("nothing here", hint="plug it in", absent=True)
        if name == "bad":
            raise SourceError("its devices cannot be listed")
        if name == "worse":
            raise SystemExit(1)
        return ScriptedSource(name, [replace(H100, sm_count=None)], lambda: Sweep(()))

    found = probe(["gone", "bad", "worse", "good"], opener, FakeClock())
    assert [(one.fault, one.absent) for one in found.sources] == [
        ("nothing here", True), ("its devices cannot be listed", False),
        ("source 'worse' failed: SystemExit(1)", False), ("", False)]  # fmt: skip
    assert not caplog.records
