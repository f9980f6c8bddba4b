"""Files that exist, that do not, and that cannot be accessed."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flopsd.system.file_presence import exists, is_file, is_folder, is_link
from tests.support.os_calls import failing

KINDS: tuple[Callable[[Path], bool], ...] = (exists, is_file, is_folder, is_link)


def kinds(path: Path) -> tuple[bool, ...]:
    return tuple(ask(path) for ask in KINDS)


def test_an_existing_file_has_its_kind(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert kinds(tmp_path / "file") == (True, True, False, False)
    assert kinds(tmp_path) == (True, False, True, False)
    assert kinds(tmp_path / "pipe") == (True, False, False, False)
    assert kinds(tmp_path / "link") == (True, True, False, True)
    assert kinds(tmp_path / "loop") == kinds(tmp_path / "dangling") == (False, False, False, True)
    for absent in ("nothing", "file/below", "\0"):
        assert kinds(tmp_path / absent) == (False, False, False, False)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("ask", KINDS)
def test_a_file_that_cannot_be_accessed_does_not_count_as_absent(
    ask: Callable[[Path], bool], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "stat", failing(code))
    with pytest.raises(OSError, match=os.strerror(code)):
        ask(Path("x"))
