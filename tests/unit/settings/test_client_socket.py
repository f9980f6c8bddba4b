"""The place of the daemon's socket: both sides compute the same."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from flopsd.settings.client_socket import client_socket_candidates, socket_path

DEFAULT = "/run/flopsd/client.sock"
DEEP = "/" + "x" * 95  # 108 bytes with the socket's name


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder for short socket paths of a user without a folder in /run."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"FLOPSD_SOCKET": "/a/b", "FLOPSD_STATE_DIR": "/state"}, ["/a/b"]),
        ({"FLOPSD_SOCKET": "/a/../b"}, ["/b"]),
        ({"FLOPSD_STATE_DIR": "/state"}, ["/state/client.sock", DEFAULT]),
        ({"FLOPSD_STATE_DIR": "/run/flopsd"}, [DEFAULT]),
        ({"STATE_DIRECTORY": "/var/one:/var/two"}, ["/var/one/client.sock", DEFAULT]),
        ({"FLOPSD_CLIENT_SOCKET": "/c", "FLOPSD_STATE_DIR": "/state"}, ["/c", DEFAULT]),
        ({"FLOPSD_CLIENT_SOCKET": "off", "FLOPSD_STATE_DIR": "/state"}, [DEFAULT]),
    ],
)
def test_a_training_process_looks_where_a_daemon_with_the_same_settings_listens(
    environment: Mapping[str, str], expected: list[str]
) -> None:
    assert [str(path) for path in client_socket_candidates(environment)] == expected


@pytest.mark.parametrize(
    ("state", "is_shared", "name"),
    [("/state", False, None), (DEEP[:-1], False, None), (DEEP, False, "flopsd"), ("/state", True, "flopsd-jobs")],
)
def test_the_socket_is_in_the_state_folder_if_accessible_and_short_enough(
    short: Path, state: str, is_shared: bool, name: str | None
) -> None:
    found = socket_path(None, Path(state), shared=is_shared)
    assert found is not None
    if name is None:
        assert found == Path(state) / "client.sock"
        return
    assert found.parent == short / f"{name}-{os.geteuid()}"
    assert found == socket_path(None, Path(state), shared=is_shared), "both sides compute it"
    assert len(found.stem) == 16
    assert found.suffix == ".sock"
    assert found.stem != socket_path(None, Path(state + "y"), shared=is_shared).stem  # type: ignore[union-attr]
    assert socket_path("/given", Path(state), shared=is_shared) == Path("/given")


@pytest.mark.parametrize(
    ("writable", "is_shared", "folder"),
    [
        (("/run/user/7", "/run"), False, "/run/user/7/flopsd"), (("/run",), False, "/run/flopsd"),
        (("/run/user/7", "/run"), True, "/run/flopsd-jobs"), (("/run/user/7",), True, "{tmp}/flopsd-jobs-7"),
        ((), False, "{tmp}/flopsd-7"),
    ],
)  # fmt: skip
def test_a_short_path_is_in_the_users_own_folder(
    short: Path, monkeypatch: pytest.MonkeyPatch, writable: tuple[str, ...], is_shared: bool, folder: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.W_OK and str(path) in writable)
    real = Path.stat
    owned = os.stat_result((0o40700, 1, 1, 1, 7, 7, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda path, **more: owned if str(path) in writable else real(path, **more))
    found = socket_path(None, Path(DEEP), shared=is_shared)
    assert found is not None
    assert str(found.parent) == folder.format(tmp=short)
