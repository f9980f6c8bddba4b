"""The parser of the command line and of each verb: -q and -v everywhere, and errors with suggestions."""

from __future__ import annotations

import argparse
import logging
import sys
import textwrap
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NoReturn

from flopsd.report.terminal import one_line
from flopsd.settings.suggestions import did_you_mean
from flopsd.system.streams import with_priority

_LIKELY_OPTION = 0.7  # higher than for words, since all options begin with dashes


class _Formatter(argparse.HelpFormatter):
    """Keeps words such as addresses and paths with hyphens whole, and the lines of a multi-line text."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        lines = " ".join(text.split())
        return textwrap.wrap(lines, width, break_long_words=False, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            textwrap.fill(" ".join(line.split()), width, initial_indent=indent, subsequent_indent=indent,
                          break_long_words=False, break_on_hyphens=False)
            for line in text.splitlines()
        )  # fmt: skip


class _StoreAction(argparse._StoreAction):
    """Stores the last value of an option, and notes that another one was given before it."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if option_string is not None and parser.given.setdefault(self.dest, values) != values:
            parser.twice.append(option_string)
        super().__call__(parser, namespace, values, option_string)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors show the usage of the verb in question. Its subparsers have this class too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": _Formatter, **options})
        self.given: dict[str, Any] = {}  # the first value of each option, by destination
        self.twice: list[str] = []  # options with another value than that
        for name in (None, "store"):
            self.register("action", name, _StoreAction)
        verbosity_flags = self.add_mutually_exclusive_group()
        # No default, so that the verb's parser does not undo `flopsd -q VERB`.
        for short, long, text in (("-q", "--quiet", "print errors only"), ("-v", "--verbose", "log more on stderr")):
            verbosity_flags.add_argument(short, long, action="store_true", default=argparse.SUPPRESS, help=text)

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message on stderr, and exit with 2."""
        super().error(one_line(message))

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(with_priority(message, logging.ERROR, file), file)

    # argparse would return the rest to the enclosing parser, whose usage says nothing about the verb.
    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As in argparse, except that unparsed arguments are an error."""
        words = sys.argv[1:] if args is None else list(args)
        self.given.clear()
        self.twice.clear()
        if not any(one.nargs in (argparse.PARSER, argparse.REMAINDER) for one in self._actions):
            self._refuse_unknown(words)  # before argparse reports a mistyped option as missing
            if "" in words:
                before = words[words.index("") - 1] if words.index("") else ""
                what = f"{before} has an empty value" if before.startswith("-") else "an argument is empty"
                self.error(f"{what}; is a variable of the shell unset?")
        found, rest = super().parse_known_args(words, namespace)
        self._refuse_unknown(rest)
        if rest:
            self.error(f"unexpected argument: {' '.join(rest)}")
        for option in () if getattr(found, "quiet", False) else dict.fromkeys(self.twice):
            said = f"{self.prog}: {option} is given twice, with different values: the last one counts"
            self._print_message(f"{said}\n", sys.stderr)
        return found, rest

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        """Exit if one of the words is an option that is neither known nor a prefix of a known one."""
        flags = [word.partition("=")[0] for word in takewhile(lambda word: word != "--", words)]
        known = self._option_string_actions
        wrong = [flag for flag in flags if flag.startswith("--") and not any(one.startswith(flag) for one in known)]
        if wrong:
            shown = [flag for flag, action in known.items() if action.help != argparse.SUPPRESS]
            meant = (f"there is no option {flag}{did_you_mean(flag, shown, _LIKELY_OPTION)}" for flag in wrong)
            self.error("; ".join(meant))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        close = did_you_mean(str(value), known)
        if isinstance(action, argparse._SubParsersAction):
            raise argparse.ArgumentError(None, f"there is no `{self.prog} {value}`{close}")
        raise argparse.ArgumentError(action, f"{value!r} is not one of {', '.join(known)}{close}")
