"""`config show`, `config check`, `completion` and `man`."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from flopsd import __version__
from flopsd.cli.common import OK, Verbs, add_repeatable, add_settings, layers_of, sources_of
from flopsd.errors import ConfigError, FlopsdError, MissingExtraError
from flopsd.settings.schema import SETTINGS

if TYPE_CHECKING:
    from flopsd.sources.registry import KnownSources

SHELLS = ("bash", "zsh", "fish")
_FILES = """.SH FILES
.TP
\\fI/etc/flopsd/flopsd.yaml\\fR
settings; check it with \\fBflopsd config check\\fR
.TP
\\fI/var/lib/flopsd\\fR
state folder of root and of the service: journal, key, ledger
.TP
\\fI/run/flopsd/client.sock\\fR
socket of the service for training processes
.SH SEE ALSO
.BR dcgm-exporter (1),
.BR systemd.service (5),
.BR srun (1)
"""
_LINES = re.compile(r"(?<=\n)(usage: .*(?:\n.+)*|nvml: .*(?:\n.+)*)")


def add(verbs: Verbs, sources: KnownSources) -> None:
    config = verbs.add_parser(
        "config", help="show the effective settings, or check a settings file", description="Shows or checks settings."
    )
    what = config.add_subparsers(dest="what", required=True, metavar="show|check")

    show = what.add_parser(
        "show",
        help="show every effective setting and where it came from",
        description="Prints every setting as `flopsd run` with the same flags would use it, in the form of a settings "
        "file, with the flag, variable, file or platform that it came from. Secrets are not shown.",
    )
    add_settings(show, SETTINGS, sources)
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=_show)

    check = what.add_parser(
        "check",
        help="report every problem of a settings file at once; compare a peak table or policy with flopsd's own",
        description="Checks the settings in FILE and the files that it names, without variables and flags. With "
        "--peaks and --policy, files of one's own: digest, margins, and each row, rule and field that differs from "
        "flopsd's. Exit code 0: all are valid. Exit code 2: every problem is on stderr.",
    )
    check.add_argument("file", metavar="FILE", nargs="?", help="a settings file")
    add_repeatable(check, "--peaks", "FILE", "a peak table")
    add_repeatable(check, "--policy", "FILE", "a policy")
    check.set_defaults(run=_check)

    completion = verbs.add_parser(
        "completion",
        help="print a completion script for a shell",
        description="Prints a completion script.\n  bash: flopsd completion bash >/etc/bash_completion.d/flopsd\n"
        "  zsh: flopsd completion zsh >DIR-OF-fpath/_flopsd\n"
        "  fish: flopsd completion fish >~/.config/fish/completions/flopsd.fish",
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(run=_completion)

    man = verbs.add_parser(
        "man",
        help="print the manual page flopsd(1)",
        description="Prints the manual page: flopsd man >/usr/local/share/man/man1/flopsd.1, "
        "or flopsd man | man -l - to read it now.",
    )
    man.set_defaults(run=_man)


def _show(arguments: argparse.Namespace) -> int:
    from flopsd.settings.effective import as_yaml, effective_settings
    from flopsd.settings.load import SECRETS
    from flopsd.settings.platform import find_context

    layers = layers_of(arguments)
    found = effective_settings(layers, find_context(os.environ))
    if arguments.json:
        facts = {
            "file": None if layers.file is None else str(layers.file),
            "settings": {one.setting.key: one.for_json() for one in found},
            "secretsSet": [name for name in SECRETS if name in os.environ],
        }
        print(json.dumps(facts))
    else:
        print(as_yaml(found, layers, os.environ), end="")
    return OK


def _check(arguments: argparse.Namespace) -> int:
    from flopsd.report.own_files import peaks_lines, policy_lines
    from flopsd.settings.effective import check_file

    if arguments.file is None and not (arguments.peaks or arguments.policy):
        raise ConfigError(["nothing to check"], hint="give a settings FILE, --peaks FILE or --policy FILE")
    for read, files in ((peaks_lines, arguments.peaks), (policy_lines, arguments.policy)):
        for file in files:
            try:
                print("\n".join(read(file)))
            except FlopsdError as fault:
                raise ConfigError([str(fault)], hint=fault.hint) from fault
    if arguments.file is None:
        return OK
    number = check_file(arguments.file, sources_of(arguments).settings)
    if not arguments.quiet:
        print(f"{arguments.file} is valid: {number} setting{'' if number == 1 else 's'}", file=sys.stderr)
    return OK


def _completion(arguments: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError as fault:
        raise MissingExtraError("completions", "shell") from fault
    parser = arguments.parser()
    _complete_paths(parser, {"FILE": shtab.FILE, "LEDGER": shtab.FILE, "KEY": shtab.FILE, "DIR": shtab.DIRECTORY})
    print(shtab.complete(parser, shell=arguments.shell), end="")
    return OK


def _complete_paths(parser: argparse.ArgumentParser, kinds: Mapping[str, object]) -> None:
    """Make the shell complete paths for flags whose metavar is one of `kinds`."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                _complete_paths(one, kinds)
        for word, kind in kinds.items():
            if word in str(action.metavar):
                action.complete = kind  # type: ignore[attr-defined]


def _man(arguments: argparse.Namespace) -> int:
    try:
        from argparse_manpage.manpage import Manpage
    except ImportError as fault:
        raise MissingExtraError("manual pages", "shell") from fault
    names = {"project_name": "flopsd", "version": __version__, "manual_title": "User Commands"}
    page = str(Manpage(arguments.parser(), {**names, "description": "measures the compute of AI training"}))
    # argparse has broken the lines of usages and of the list of sources already.
    print(_LINES.sub(r".nf\n\1\n.fi", page).rstrip() + "\n" + _FILES, end="")
    return OK
