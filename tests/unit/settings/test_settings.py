"""Settings from file, environment and flags: precedence, and all problems at once."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.errors import ConfigError
from flopsd.settings.data_files import config_dir
from flopsd.settings.load import settings_sha256
from flopsd.settings.parsers import parse_listen
from flopsd.settings.schema import BY_KEY, SETTINGS, Settings
from flopsd.settings.strict_yaml import read_yaml
from flopsd.sources.registry import known_sources
from tests.support.settings import load_settings


def test_the_file_is_found_by_either_variable_and_a_flag_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "flopsd.yaml"
    file.write_text("run_id: from-file\n")
    assert load_settings({}, {"FLOPSD_CONFIG": str(file)}).run_id == "from-file"
    assert load_settings({}, {"CONFIGURATION_DIRECTORY": str(tmp_path)}).run_id == "from-file"
    assert load_settings({"run_id": "from-flag"}, {"FLOPSD_RUN_ID": "from-env"}, str(file)).run_id == "from-flag"


def test_every_problem_is_reported_at_once_with_its_location_and_fix(tmp_path: Path) -> None:
    file = tmp_path / "flopsd.yaml"
    file.write_text(
        "intervall_seconds: 1\ncheckpoint_seconds: 1m\nlisten: nowhere\nrun_id: a\nrun_id: b\nseal: maybe\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_settings({"precision": "bf17"}, {"FLOPSD_INTERVAL": "0"}, str(file))
    assert caught.value.problems == (
        f"{file}: line 5: run_id is given twice, first on line 4",
        f"{file}: intervall_seconds: unknown setting; did you mean interval_seconds?",
        f"{file}: checkpoint_seconds: '1m': expected a number of seconds, without a unit",
        f"{file}: listen: 'nowhere': expected HOST:PORT or HOST:FIRST-LAST, such as 127.0.0.1:10188 or [::1]:10188-10251",
        f"{file}: seal: 'maybe': expected true or false",
        "environment: FLOPSD_INTERVAL: '0': expected between 0.1 and 60 seconds",
        "command line: --precision: 'bf17' is not a number format; known: bf16, fp16, tf32, fp8, fp6, fp4, fp64, int8",
    )


@given(st.binary(max_size=200))
def test_any_bytes_give_settings_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.mktemp("yaml") / "flopsd.yaml"
    file.write_bytes((config_dir() / "flopsd.yaml").read_bytes() + b"\nsources: " + data)
    try:
        assert isinstance(load_settings({}, {}, str(file)), Settings)
    except ConfigError as fault:
        assert fault.problems


@pytest.mark.parametrize(
    ("text", "problem"),
    [("run_id: &a [*a]", "an alias refers to a node that contains it"), ("run_id: 2001-99-99", "not YAML"),
     *((f"sources: !!{tagged}", "not YAML") for tagged in ("bool x", "timestamp x", "int _", "float ''")),
     *((text, "flopsd.yaml") for text in ("[1, 2", "- a\n- b\n", "just text", "a: *nowhere", "\x00")),
     ("precision: {bf16: .inf}", "is not a number"), ("timestamp_url: 'http://['", "expected a URL"), ("devices: null", "devices: null: expected all"),
     ("policies: [null, true]", "policies: [null, true]: expected")],
)  # fmt: skip
def test_odd_values_are_reported_and_never_crash(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "flopsd.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings({}, {}, str(file))
    assert problem in str(caught.value)


def test_nested_yaml_aliases_cost_no_time() -> None:
    """Each alias names the previous one ten times: expanded one by one they would be 10^40."""
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 41))]
    document, problems = read_yaml("\n".join(lines).encode(), "file")
    assert (len(document), problems) == (41, [])


def test_an_inaccessible_settings_folder_stops_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "stat", refused)
    assert load_settings({}, {"CONFIGURATION_DIRECTORY": str(tmp_path)}) == Settings()
    assert "may not enter" in caplog.text


def test_listen_addresses_are_parsed() -> None:
    assert parse_listen("127.0.0.1:0") == ("127.0.0.1", range(1))
    assert parse_listen("[::1]:10188-10190") == ("::1", range(10188, 10191))
    assert parse_listen(":9") == ("", range(9, 10))
    assert load_settings({"listen": "off"}, {}).listen is None
    for wrong in ("127.0.0.1:70000", ":9-70000", ":9-8", ":0-9", ":9-", ":-9"):
        with pytest.raises(ValueError, match="HOST:PORT"):
            parse_listen(wrong)


def test_every_setting_is_a_key_a_flag_and_a_variable() -> None:
    assert set(BY_KEY) == set(Settings.__dataclass_fields__) - {"source_options"}
    known = (*SETTINGS, *known_sources().settings)
    assert len({s.flag for s in known}) == len({s.variable for s in known}) == len({s.key for s in known}) == len(known)


def test_the_settings_digest_excludes_the_location_of_the_key() -> None:
    assert settings_sha256(Settings(key="a")) == settings_sha256(Settings(key="b"))
    assert settings_sha256(Settings(interval_seconds=2)) != settings_sha256(Settings())
