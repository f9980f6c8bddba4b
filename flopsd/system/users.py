"""Users of this machine, by name or number."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import NamedTuple


class User(NamedTuple):
    """A user, and what a process that becomes this user gets. `name` and `home` are empty if no account is known."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    name: str = ""
    home: str = ""

    def environment(self) -> dict[str, str]:
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name} if self.name else {}


def find_user(name: str) -> User:
    """Return the user with a name or number. A number without an account has the group of the same number. Raises
    KeyError if there is no such name."""
    number = int(name) if name.isdecimal() and len(name) <= 10 else None
    try:
        entry = pwd.getpwnam(name) if number is None else pwd.getpwuid(number)
    except KeyError:
        if number is None:
            raise
        return User(number, number)
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return User(entry.pw_uid, entry.pw_gid, groups, entry.pw_name, entry.pw_dir)


def only_own_user_writes(*paths: Path) -> bool:
    """Whether no other user except root can write the paths that exist, or put others in their place. A user who can
    write a parent folder can rename what is in it, unless the folder is sticky, as /tmp is."""
    trusted = {0, os.geteuid()}
    for path in (path.absolute() for path in paths):
        for each in (path, *path.parents):
            try:
                found = each.stat()
            except OSError:
                continue
            is_open = found.st_mode & 0o022 and (each == path or not found.st_mode & stat.S_ISVTX)
            if found.st_uid not in trusted or is_open:
                return False
    return True
