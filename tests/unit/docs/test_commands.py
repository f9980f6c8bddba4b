"""Each command of the pages is run by a test, or is listed with the reason why it cannot be run here; and every
flopsd command on them, including those in running text, is accepted by this flopsd."""

import argparse
import re
import shlex
from typing import Any

import pytest
import yaml

from flopsd.cli.common import layers_of
from flopsd.cli.main import _parser
from flopsd.errors import ConfigError
from flopsd.settings.load import settings_of_layers
from tests.support.doc_commands import COMMANDS, PAGES, WHOLE, By, Not, commands, inline
from tests.support.kubernetes import PACKAGES, render
from tests.support.paths import ROOT

TESTS = ROOT / "tests"
# A placeholder for a verb in a text, or a verb whose operands are on its own page.
SCHEMATIC = {"flopsd VERB --help"}


def test_the_table_has_exactly_the_commands_of_the_pages() -> None:
    found = {name: set(commands(page)) for name, page in PAGES.items() if name not in WHOLE}
    tabled = {name: set(table) for name, table in COMMANDS.items()}
    new = {
        name: sorted(some - tabled.get(name, set())) for name, some in found.items() if some - tabled.get(name, set())
    }
    assert new == {}, "a test must run these: say in tests/support/doc_commands.py which, or why none can"
    assert {name: sorted(some - found[name]) for name, some in tabled.items() if some - found[name]} == {}, "gone"


def test_the_tests_listed_for_commands_exist() -> None:
    named = {how.test for table in COMMANDS.values() for how in table.values() if isinstance(how, By)}
    for test in named | {how.test for how in WHOLE.values()}:
        file, _, function = test.partition("::")
        assert f"\ndef {function}(" in (TESTS / file).read_text(), test
    assert all(how.reason for table in COMMANDS.values() for how in table.values() if isinstance(how, Not))


# A flag in running text is named alone, without the operands of its verb.
NAMED_ALONE = ("the following arguments are required", "expected one argument")


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    return _parser()


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if "flopsd " in page])
def test_flopsd_accepts_every_command_of_a_page(
    name: str, parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its verb, its flags and the values of its settings."""
    faults = []
    in_text = [command for command in inline(PAGES[name]) if command not in SCHEMATIC]
    for command in [*commands(PAGES[name]), *in_text]:
        *assigned, line = command.splitlines()
        for assignment in assigned:
            variable, _, value = assignment.partition("=")
            line = line.replace(f"${variable}", value)
        line = line.replace("REGION", "eu-west-1")
        if not line.startswith("flopsd "):
            continue
        words = shlex.split(re.sub(r"\s*>.*$", "", line))[1:]
        try:
            arguments = parser.parse_args(words)
            if words[0] in ("run", "exec", "seal"):
                settings_of_layers(layers_of(arguments))
        except SystemExit as left:
            said = capsys.readouterr().err
            if left.code and not (command in in_text and any(words in said for words in NAMED_ALONE)):
                faults.append((command, said.splitlines()[-1]))
        except ConfigError as fault:
            faults.append((command, str(fault)))
    assert faults == []


@pytest.mark.long
@pytest.mark.package(*PACKAGES)
def test_the_values_of_helm_install_exist_in_the_chart() -> None:
    """Checked by Helm's own SDK instead of its command: with `--set`, and with the values file that the page shows."""
    for page in ("kubernetes.md", "helm.md"):
        (line,) = [command for command in COMMANDS[page] if command.startswith("helm install")]
        values: dict[str, Any] = {}
        for word in shlex.split(line):
            if (given := re.fullmatch(r"(\w+)\.(\w+)=(.*)", word)) is not None:
                values.setdefault(given[1], {})[given[2]] = given[3]
            elif word.endswith(".yaml"):
                shown = re.search(rf"^ *# {word}\n(.*?)^ *```", PAGES[page], re.DOTALL | re.MULTILINE)
                for key, value in yaml.safe_load((ROOT / word).read_text() if shown is None else shown[1]).items():
                    values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
        rendered = yaml.safe_dump_all(render(values))
        for wanted in (
            "s3://your-bucket/flopsd/nodes/{node}/$(POD_NAME).json",
            "awskms:alias/flopsd",
            "registry.example.com/flopsd",
        ):
            assert wanted in rendered


def test_make_has_every_target_that_a_page_names() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name, page in PAGES.items():
        assert set(re.findall(r"`make ([a-z-]+)", "`".join(["", page, *commands(page)]))) <= targets, name


def test_no_page_installs_flopsd_from_an_index() -> None:
    """There is no release: such a line would install nothing, or a stranger's package of that name."""
    for name, page in PAGES.items():
        for line in page.splitlines():
            assert not re.search(r"pip3? install (-\S+ )*'?flopsd(?!\[EXTRA)\b", line), f"{name}: {line}"


def test_the_hosts_page_lists_every_extra() -> None:
    table = PAGES["host.md"].partition("| extra | for |")[2].partition("\n\n")[0]
    of_users = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text().partition(
        "[project.optional-dependencies]")[2].partition("\ntrain = [")[0], re.MULTILINE)  # fmt: skip
    assert {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if row else "")
    } == set(of_users)
