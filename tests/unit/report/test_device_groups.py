"""Devices with the same facts are grouped."""

from dataclasses import replace

import pytest

from flopsd.report.contents.device_groups import alike, equal, ranges, shared_facts, shortened
from flopsd.report.contents.model import Fact, ReportDevice
from flopsd.report.numbers import Amount, Interval
from flopsd.report.report_text import _devices

DEVICE = ReportDevice(
    0, "H100", "GPU-a", "165", "activity", "", Interval(Amount("1", "1"), None, None), "100 %", "5 J",
    (Fact("Driver", "595"), Fact("PCI bus", "10")),
)  # fmt: skip


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([3], "3"), ([0, 1, 2, 3], "0 to 3"), ([6, 0, 1], "0 to 1, 6"), ([0, 0, 0], "0")]
)
def test_consecutive_numbers_are_shown_as_a_range(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text


@pytest.mark.parametrize(
    ("identifier", "text"),
    [("GPU-3f2a9c00-7c1e-4b52-9d0a-8e6f01b4a000", "GPU-3f2a9c00…a000"), ("GPU-h", "GPU-h"), ("0123456789abcdefg", "0123456789abcdefg")],
)  # fmt: skip
def test_only_a_long_identifier_is_shortened(identifier: str, text: str) -> None:
    assert shortened(identifier) == text


def test_only_identical_devices_are_grouped() -> None:
    devices = [
        DEVICE,
        replace(DEVICE, index=1, uuid="GPU-b", facts=(DEVICE.facts[0], Fact("PCI bus", "11"))),
        replace(DEVICE, index=2, energy="6 J"),
        replace(DEVICE, index=3, note="shared"),
    ]
    assert [one.indices for one in equal(devices)] == ["0 to 1", "2", "3"]
    assert [one.indices for one in alike(devices)] == ["0 to 2", "3"]
    assert shared_facts(devices) == (Fact("Driver", "595"),)
    assert shared_facts(devices[:1]) == ()


def test_the_figure_of_identical_devices_is_of_each() -> None:
    other = replace(DEVICE, index=1, uuid="GPU-b")
    for devices, words in (([DEVICE], "FLOP   "), ([DEVICE, other], "FLOP each ")):
        (group,) = equal(devices)
        lines = list(_devices(group))
        assert lines[len(devices)].strip().startswith(words)
