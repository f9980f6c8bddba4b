"""The operator counts of each of two ranks, by the way that the model is spread over them. Prints one line of JSON
each.

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


def pipeline(rank: int) -> dict[str, Any]:
    """This rank's count of its half of a model, and PyTorch's for the same steps."""
    import torch
    from torch import nn
    from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
    from torch.utils.flop_counter import FlopCounterMode, _FlopCounterMode

    from flopsd.integrations.operator_counter import OperatorCounter
    from tests.train.intervals import Loop

    model = llama(num_hidden_layers=2, use_cache=False)
    model.model.layers = model.model.layers[rank : rank + 1]
    if rank:
        model.model.embed_tokens = None
    else:
        model.model.norm = model.lm_head = nn.Identity()

    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = model

        def forward(self, of: Any) -> Any:
            return model(**{"inputs_embeds" if rank else "input_ids": of}).logits

    loop, ours, stage = Loop(model), Counters(), Stage()
    OperatorCounter(ours, device=DEVICE).attach(stage)
    schedule = ScheduleGPipe(
        PipelineStage(stage, rank, 2, torch.device("cpu")),
        n_microbatches=2,
        loss_fn=lambda logits, labels: nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()),
    )
    ids = torch.arange(1, 49).view(4, 12)
    counter = FlopCounterMode(display=False)
    with _FlopCounterMode(counter):  # without the tracking of modules, which refuses gradients of inputs alone
        for _ in range(3):
            schedule.step(target=ids) if rank else schedule.step(ids)
    executed = loop.basis().counted.executed
    found = {"how": "pipeline", "ours": ours.flop, "alone": counter.get_total_flops(), "facts": ours.facts}
    return {**found, "low": executed.low, "high": executed.high}


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
    print(json.dumps(pipeline(dist.get_rank())), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
