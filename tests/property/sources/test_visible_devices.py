"""CUDA_VISIBLE_DEVICES by the rules of the CUDA programming guide, for any list of entries."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flopsd.core.model import Device
from flopsd.errors import OwnershipError
from flopsd.sources.neuron.ownership import chips_of, neuron_cores
from flopsd.sources.nvml.ownership import cuda_visible
from tests.support.owners import GPUS

NO_DEVICE = ("-1", "", "NoDevFiles", "0x1", "GPU-00000000", "99", "1.0", "GPU-", "all", "MIG-", "²")
uuids = st.uuids().map(lambda uuid: f"GPU-{uuid}")


@st.composite
def nodes(draw: st.DrawFn) -> list[Device]:
    found = draw(st.lists(uuids, min_size=1, max_size=8, unique=True))
    return [replace(GPUS[0], uid=uid, index=index) for index, uid in enumerate(found)]


@st.composite
def entries(draw: st.DrawFn, node: list[Device]) -> tuple[str, Device]:
    """One entry that names a device, and the device: by index, by UUID, or by a sufficient prefix of it."""
    device = draw(st.sampled_from(node))
    kind = draw(st.sampled_from(["index", "uuid", "beginning"]))
    if kind == "index":
        return str(device.index), device
    length = len(device.uid)
    if kind == "beginning":
        length = draw(st.integers(5, len(device.uid)))
        assume(sum(other.uid.startswith(device.uid[:length]) for other in node) == 1)
    blank = draw(st.sampled_from(["", " "]))
    return blank + device.uid[:length] + blank, device


@given(st.data(), nodes())
def test_devices_are_visible_in_the_order_of_the_list(data: st.DataObject, node: list[Device]) -> None:
    named = data.draw(st.lists(entries(node), min_size=1, max_size=12))
    expected = list(dict.fromkeys(device.uid for _, device in named))
    assert [device.uid for device in cuda_visible(",".join(text for text, _ in named), node)] == expected


@given(st.data(), nodes(), st.sampled_from(NO_DEVICE), st.text(max_size=20))
def test_the_first_invalid_entry_ends_the_list(
    data: st.DataObject, node: list[Device], invalid: str, rest: str
) -> None:
    assume(invalid == "GPU-" or not any(device.uid.startswith(invalid) for device in node if invalid))
    named = ",".join(text for text, _ in data.draw(st.lists(entries(node), min_size=1, max_size=4)))
    assert cuda_visible(f"{named},{invalid},{rest}", node) == cuda_visible(named, node)


@given(st.data(), nodes())
def test_an_ambiguous_uuid_prefix_is_not_guessed(data: st.DataObject, node: list[Device]) -> None:
    twin = replace(node[0], uid=node[0].uid[:-1] + ("0" if node[0].uid[-1] != "0" else "1"), index=len(node))
    shared = node[0].uid[: data.draw(st.integers(5, len(twin.uid) - 1))]
    with pytest.raises(OwnershipError, match="is the beginning of"):
        cuda_visible(shared, [*node, twin])


@given(st.sets(st.integers(0, 255), min_size=1), st.integers(1, 8))
def test_cores_select_the_chips_that_contain_them(cores: set[int], per_chip: int) -> None:
    ordered = sorted(cores)
    spans: list[tuple[int, int]] = []
    for core in ordered:
        if spans and spans[-1][1] == core - 1:
            spans[-1] = (spans[-1][0], core)
        else:
            spans.append((core, core))
    text = ",".join(f"{a}-{b}" if a != b else str(a) for a, b in spans)
    assert neuron_cores(text) == cores
    held = chips_of(neuron_cores(text), per_chip)
    assert sum(held.values()) == len(cores)
    assert set(held) == {core // per_chip for core in cores}
    assert max(held.values()) <= per_chip


@pytest.mark.parametrize("text", ["", "a", "3-1", "0-", "1,,2", "-1", "0-3-5"])
def test_an_invalid_list_of_cores_is_refused(text: str) -> None:
    with pytest.raises(OwnershipError, match="is not a list of cores"):
        neuron_cores(text)
