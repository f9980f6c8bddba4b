"""What each of two ranks counts of its operators, by the way that the model is spread over them. A line of JSON each.

RANK=0|1 WORLD_SIZE=2 MASTER_ADDR=… MASTER_PORT=… python -m tests.train.operator_ranks
"""

import json
from typing import Any

from tests.train.operator_cases import DEVICE, Case, Counters, train
from tests.train.trainers import llama

WAYS = ("ddp", "fsdp", "fsdp of one flat parameter", "tensor")


def spread(how: str) -> Any:
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    mesh = init_device_mesh("cpu", (2,))
    if how == "tensor":
        return parallelize_module(_two(), mesh, {"0": ColwiseParallel(), "1": RowwiseParallel()})
    model = llama()
    if how == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    if "flat" in how:
        from torch.distributed.fsdp.wrap import ModuleWrapPolicy

        layers = ModuleWrapPolicy({type(model.model.layers[0])})
        return FullyShardedDataParallel(model, auto_wrap_policy=layers, device_id=model.device)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def _two() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(64, 128, bias=False), nn.Linear(128, 64, bias=False))


def main() -> None:
    import torch
    import torch.distributed as dist
    from torch.utils.flop_counter import FlopCounterMode

    from flopsd.integrations.operator_counter import OperatorCounter

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for how in WAYS:
        ours, batch = Counters(), "rows" if how == "tensor" else "text"
        train(Case(lambda how=how: spread(how), batch), 3, attach=OperatorCounter(ours, device=DEVICE).attach)  # type: ignore[misc]
        with FlopCounterMode(display=False) as counter:
            train(Case(_two if how == "tensor" else llama, batch), 3)
        found = {"how": how, "ours": ours.flop, "alone": counter.get_total_flops(), "facts": ours.facts}
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
