"""`python -m tests.train.zero3`: a model made under DeepSpeed's real ZeRO-3, by what PyTorch and by what flopsd counts."""

from __future__ import annotations

import socket
from contextlib import closing


def main() -> None:
    import deepspeed
    import torch

    from flopsd.integrations.parameters import count_parameters
    from tests.train.families import build

    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    deepspeed.init_distributed("gloo")
    whole = count_parameters(build("llama"))
    config = {"train_batch_size": 1, "zero_optimization": {"stage": 3}}
    with deepspeed.zero.Init(config_dict_or_path=config, remote_device="cpu"):
        sharded = build("llama")
    elements = sum(parameter.numel() for parameter in sharded.parameters())
    print(f"elements {elements}, counted whole: {count_parameters(sharded) == whole}")


if __name__ == "__main__":
    main()
