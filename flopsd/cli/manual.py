"""The manual page flopsd(1), from the parser itself. Needs the extra `shell`."""

from __future__ import annotations

import argparse
import re

from flopsd import __version__
from flopsd.errors import MissingExtraError

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
_USAGE = re.compile(r"^(usage: .*(?:\n.+)*)", re.MULTILINE)


def manual_page(parser: argparse.ArgumentParser) -> str:
    """As roff. Raises MissingExtraError."""
    try:
        from argparse_manpage.manpage import Manpage
    except ImportError as fault:
        raise MissingExtraError("manual pages", "shell") from fault
    page = str(
        Manpage(
            parser,
            {
                "project_name": "flopsd",
                "version": __version__,
                "manual_title": "User Commands",
                "description": "the electricity meter of AI training",
            },
        )
    )
    # argparse has formatted the usage lines already.
    return _USAGE.sub(r".nf\n\1\n.fi", page).rstrip() + "\n" + _FILES
