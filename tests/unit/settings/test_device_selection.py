"""The setting `devices` as text and as YAML gives it."""

from __future__ import annotations

import pytest

from flopsd.settings.device_selection import DevicesSetting, Whose, parse_devices


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("all", DevicesSetting()),
        ("visible", DevicesSetting(Whose.VISIBLE)),
        (["pod"], DevicesSetting(Whose.POD)),
        ("processes", DevicesSetting(Whose.PROCESSES)),
        ("job", DevicesSetting(Whose.JOB)),
        ("job:4711_3", DevicesSetting(Whose.JOB, job="4711_3")),
        ("0", DevicesSetting(Whose.NAMED, ("0",))),
        (3, DevicesSetting(Whose.NAMED, ("3",))),
        ([0, "GPU-ab"], DevicesSetting(Whose.NAMED, ("0", "GPU-ab"))),
        ("GPU-8932f937 , MIG-GPU-8932f937/1/2", DevicesSetting(Whose.NAMED, ("GPU-8932f937", "MIG-GPU-8932f937/1/2"))),
    ],
)
def test_it_is_read(value: object, expected: DevicesSetting) -> None:
    assert parse_devices(value) == expected
    assert parse_devices(str(expected)) == expected


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "expected all"),
        ([], "expected all"),
        (True, "expected all"),
        ([True], "expected all"),
        ([1.5], "expected all"),
        ({"0": 1}, "expected all"),
        (None, "expected all"),
        ("vissible", "'vissible' is neither a rule nor a device"),
        ("-1", "'-1' is neither"),
        ("all,0", "'all' stands alone"),
        ("job:", "a job id after job:"),
        ("job:a b", "a job id after job:"),
        ("0,1,0", "named twice"),
        ("GPU-AB,gpu-ab", "named twice"),
        ("0,,1", "expected all"),
    ],
)
def test_what_is_wrong_is_said(value: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_devices(value)
