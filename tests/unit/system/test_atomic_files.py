"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from flopsd.system.atomic_files import replace_file, replacing


def test_a_folder_in_the_place_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        replace_file(tmp_path, b"x")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path), None)


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")
    with pytest.raises(KeyError), replacing(path):
        raise KeyError
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"new", [path])
