"""Sums that stay on the device: exact for any number of them, in inference mode too."""

import pytest

pytestmark = [pytest.mark.training("torch")]


def test_many_sums_are_exact_and_kept_in_few_tensors() -> None:
    import torch

    from flopsd.integrations.passes.device_sums import MAX_KEPT, DeviceSums

    sums = DeviceSums()
    for number in range(3 * MAX_KEPT + 5):
        with torch.inference_mode(number % 2 == 0):
            sums.add("train", "sequences", torch.tensor([number, 2**40]).sum())
            sums.of("", "padding_tokens").add_rest(number + 7, torch.count_nonzero(torch.ones(number)))
    assert max(len(one.added) + len(one.taken) for one in sums._sums.values()) < MAX_KEPT
    sums.add("evaluate", "padding_tokens", torch.tensor(1))
    sums.move("", "evaluate")
    count = 3 * MAX_KEPT + 5
    assert sums.take() == {
        "train": {"sequences": count * (count - 1) // 2 + count * 2**40},
        "evaluate": {"padding_tokens": 7 * count + 1},
    }
    assert sums.take() == {}
