"""Users of a machine, and who can write to a folder."""

import os
import pwd
from pathlib import Path

import pytest

from flopsd.system.users import User, find_user, only_own_user_writes


def test_a_user_is_found_by_name_or_number() -> None:
    root = find_user("root")
    assert root == find_user("0") == User(0, 0, root.groups, "root", root.home)
    assert 0 in root.groups
    assert root.environment() == {"HOME": root.home, "USER": "root", "LOGNAME": "root"}
    for one in pwd.getpwall():
        if one == pwd.getpwnam(one.pw_name) == pwd.getpwuid(one.pw_uid):
            expected = User(
                one.pw_uid, one.pw_gid, tuple(os.getgrouplist(one.pw_name, one.pw_gid)), one.pw_name, one.pw_dir
            )
            assert find_user(one.pw_name) == find_user(str(one.pw_uid)) == expected
    nobody = find_user("4000000")
    assert nobody == User(4_000_000, 4_000_000, (), "", "")
    assert nobody.environment() == {}
    for name in ("no such user", "9" * 5000):
        with pytest.raises(KeyError):
            find_user(name)


@pytest.mark.parametrize(
    ("folder", "above", "expected"),
    [
        (0o755, 0o755, True), (0o700, 0o1777, True), (0o775, 0o755, False), (0o757, 0o755, False),
        (0o1777, 0o755, False), (0o755, 0o775, False), (0o755, 0o757, False), (0o755, 0o1775, True),
    ],
)  # fmt: skip
def test_users_who_can_write_or_replace_a_folder_are_found(
    tmp_path: Path, folder: int, above: int, expected: bool
) -> None:
    path = tmp_path / "above" / "folder"
    path.mkdir(parents=True)
    path.chmod(folder)
    path.parent.chmod(above)
    assert only_own_user_writes(tmp_path, path) is expected
    assert only_own_user_writes(path / "missing", tmp_path) is (expected or folder == 0o1777), (
        "sticky folders may be open"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_folder_of_another_user_is_not_only_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path := tmp_path / "folder").mkdir()
    os.chown(path, 4_000_000, 0)
    assert not only_own_user_writes(path)
    assert not only_own_user_writes(path / "missing")
    os.chown(path, 0, 4_000_000)
    assert only_own_user_writes(path)
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    assert only_own_user_writes(path), "root may write everything anyway"
    os.chown(path, 4_000_000, 0)
    assert only_own_user_writes(path)
