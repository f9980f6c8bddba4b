"""Random runs, fed reading by reading to the real writer: every kind of device, evidence, declaration and fault."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flopsd.core.declarations import Base, Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.kernel_windows import KERNEL_COUNTERS
from flopsd.core.model import UNBOUNDED, Busy, Counted, Device, Evidence, GapReason, Growth, Pipe, Precision
from flopsd.core.session_protocol import FactsDeclared, PhaseChanged, SessionClosed, SessionOpened, WorkCounted
from flopsd.journal.segments import closed_segments
from flopsd.settings.platform import Context
from tests.make_vectors.runs import SECRETS, TINY
from tests.support.story import (
    A10G,
    A100,
    CONTEXT,
    CYCLES_H100,
    H100,
    HALF_KNOWN,
    STRANGER,
    TRAINIUM,
    Second,
    Story,
    Work,
    active,
    gap,
    policy,
)

SLICE = replace(
    H100, uid="MIG-00000000-0000-4000-8000-000000000006", index=5, model="NVIDIA H100 80GB HBM3 MIG 1g.10gb", sm_count=16,
    parent=H100.uid,
)  # fmt: skip
TENSOR = (Pipe.TENSOR_HMMA, Pipe.TENSOR_IMMA, Pipe.TENSOR_DFMA, Pipe.TENSOR)
VECTOR = (Pipe.FP64, Pipe.FP32, Pipe.FP16)
OF_SOURCES = tuple(reason for reason in GapReason if reason not in UNBOUNDED)
FORMATS = (
    None, None, {"bf16": 1_000_000}, {"tf32": 1_000_000}, {"fp64": 1_000_000}, {"fp8": 1_000_000},
    {"bf16": 900_001, "fp8": 99_999}, {"bf16": 333_333, "int8": 600_001, "tf32": 66_666}, {"int8": 1_000_000},
)  # fmt: skip
BOOTS = tuple(f"00000000-0000-4000-8000-00000000b1{number:02d}" for number in range(100))


@dataclass(frozen=True)
class Node:
    """The place of a run, so that several can be merged."""

    context: Context = CONTEXT
    marker: str = ""  # part of its devices' UUIDs


def random_run(draw: random.Random, node: Node | None = None) -> Callable[[Path], bytes]:
    """A run for `tell`. The draws are made while it is told, so tell it only once."""

    def story(folder: Path) -> bytes:
        return _Teller(draw, node or Node()).tell(folder)

    return story


def random_segments(draw: random.Random) -> Callable[[Path], list[bytes]]:
    """The journals of a run that is rotated twice."""

    def story(folder: Path) -> list[bytes]:
        teller = _Teller(draw, Node())
        run = teller.open(folder)
        for segment in range(3):
            teller.some_seconds(run)
            assert segment == 2 or run.writer.rotate()
        last = run.finish()
        return [*(path.read_bytes() for path in closed_segments(run.state)), last]

    return story


class _Teller:
    def __init__(self, draw: random.Random, node: Node) -> None:
        self.draw, self.node = draw, node
        self.sessions: list[str] = []
        self.boots = draw.sample(BOOTS, len(BOOTS))  # each is used once

    def tell(self, folder: Path) -> bytes:
        run = self.open(folder)
        for _ in range(self.draw.randint(1, 5)):
            self.some_seconds(run)
            if self.draw.random() < 0.25:
                run.kill(for_seconds=self.draw.choice((0, 1, 4, 9, 40, 70)))
                if self.draw.random() < 0.3:
                    run.reboot(replace(self.node.context, boot_id=self.boots.pop(), attempt=str(self.draw.randint(0, 9))))  # fmt: skip
                run.start()
                self.sessions = self.sessions if self.draw.random() < 0.5 else []
        return run.so_far() if self.draw.random() < 0.15 else run.finish()

    def open(self, folder: Path) -> Story:
        draw = self.draw
        offered = (H100, CYCLES_H100, A100, A10G, HALF_KNOWN, STRANGER, TRAINIUM, SLICE)
        some = draw.sample(offered, draw.choice((0, 1, 1, 1, 2, 2, 3, 4)))
        if H100 in some and CYCLES_H100 in some:
            some.remove(H100)
        self.devices = tuple(
            device if device is CYCLES_H100 or not self.node.marker else replace(device, uid=device.uid[:-2] + self.node.marker + device.uid[-1])
            for device in some if not (device is CYCLES_H100 and self.node.marker)
        )  # fmt: skip
        declared = OperatorDeclarations(
            draw.choice((None, None, *Phase)), draw.choice((None, None, *Method)), draw.choice((None, None, *Recomputation)), self._base()
        )  # fmt: skip
        shares = draw.choice(FORMATS)
        precision = None if shares is None else Precision(tuple(sorted(shares.items())), "config")
        return Story(
            folder, self.devices, precision=precision, declared=declared, context=self.node.context,
            policies=(policy(),) if draw.random() < 0.7 else (), replay=draw.random() < 0.05,
            secrets=SECRETS if draw.random() < 0.2 else {},
        )  # fmt: skip

    def _base(self) -> Base | None:
        draw = self.draw
        kind = draw.choice(("none", "none", "known", "estimated", "unknown"))
        if kind == "none":
            return None
        flop = None if kind == "unknown" else draw.choice((7 * 10**13, 10**23 - 4 * 10**15, 10**25 + 1, 3 * 10**22))
        method = "tokens x parameters" if kind == "estimated" else None
        return Base(draw.choice((None, "a base model")), kind, flop, method, draw.choice((None, True, False)))

    def some_seconds(self, run: Story) -> None:
        draw = self.draw
        if draw.random() < 0.5:
            self._declare(run)
        run.during(draw.randint(1, 8), {device: self._work(device) for device in self.devices})

    def _declare(self, run: Story) -> None:
        """A declaration of a process, new or continuing."""
        draw = self.draw
        if not self.sessions or draw.random() < 0.3:
            self.sessions.append(f"{draw.getrandbits(128):032x}")
            run.says(SessionOpened(self.sessions[-1], draw.randint(1, 9999), 1000, "0.1.0"))
        session = draw.choice(self.sessions)
        run.says(SessionOpened(session, 4711, 1000, "0.1.0"))
        facts: dict[str, Any] = {}
        if draw.random() < 0.5:
            facts |= {"model_config": TINY} if draw.random() < 0.6 else {"parameters_total": draw.randint(1, 10**10)}
        if draw.random() < 0.5:
            facts["method"] = draw.choice(list(Method)).value
        if draw.random() < 0.5:
            facts["recomputation"] = draw.choice(list(Recomputation)).value
        facts |= self._facts_of_models()
        shares = draw.choice(FORMATS)
        if shares is not None:
            facts["precision"] = shares
        if facts:
            run.says(FactsDeclared(session, facts))
        phase = draw.choice([*Phase]).value
        run.says(PhaseChanged(session, phase))
        if draw.random() < 0.7:
            run.says(WorkCounted(session, {phase: self._counters()}))
        if draw.random() < 0.3:  # also for a process that counts no work; some facts are impossible
            seen = {name: draw.choice((0, 1, 3 * 10**8)) for name in draw.sample(KERNEL_COUNTERS, 12)}
            run.says(WorkCounted(session, {phase: {"kernel_windows": 1, "kernel_window_ns": 10**9, **seen}}))
        if draw.random() < 0.2:
            run.says(SessionClosed(session, clean=draw.random() < 0.5))
            self.sessions.remove(session)

    def _facts_of_models(self) -> dict[str, Any]:
        """The facts that decide the architecture basis, besides model and method."""
        draw = self.draw
        facts = {
            "attention": draw.choice(("eager", "sdpa", "flash_attention_2")), "packing": draw.random() < 0.5,
            "parameters_trainable": draw.choice((0, 1_000, 10**6, draw.randint(1, 10**10))),
            "lora": draw.choice(({"r": 2}, {"r": 3, "target_modules": ["q_proj", "v_proj"]}, {"r": 1, "target_modules": ["all-linear"]})),
            "not_counted": draw.choice(({"generate": ["by vLLM"]}, {"train": ["a judge"]})),
            "role": draw.choice(("reference", "critic")),
        }  # fmt: skip
        often = {"not_counted": 0.05, "role": 0.08}
        return {name: value for name, value in facts.items() if draw.random() < often.get(name, 0.3)}

    def _counters(self) -> dict[str, int]:
        """The counters of one phase; some contradict each other."""
        draw = self.draw
        tokens = draw.randint(0, 10**6)
        some = {
            "sequences": draw.randint(1, 9), "square_pairs": draw.choice((tokens**2, tokens**2 // 2)),
            "padding_tokens": draw.randint(0, 999), "headless_tokens": draw.randint(0, 999),
            "unlabelled_tokens": draw.randint(0, 999), "fused_head_tokens": draw.randint(0, 999),
            "framework_flop": draw.randint(0, 10**15), "forward_passes": 1, "steps": 1,
        }  # fmt: skip
        return {"tokens": tokens, **{name: value for name, value in some.items() if draw.random() < 0.4}}

    def _work(self, device: Device) -> Callable[[Second], Work | None]:
        draw = self.draw
        if draw.random() < 0.15:
            return gap(draw.choice(OF_SOURCES))
        if device.vendor == "aws":
            amount = draw.choice((0, 1, 60_000_000_000_001))
            return lambda _: Counted(amount)
        if device is CYCLES_H100:
            lost = tuple(draw.sample(VECTOR, draw.choice((0, 0, 0, 0, 1))))
            return lambda _: Growth(lost)
        sms, mhz = device.sm_count or 1, device.sm_clock_max_mhz or 1000
        if device.evidence is Evidence.UTILIZATION or draw.random() < 0.1:
            most = sms * mhz * 1_000_000
            busy = draw.randint(0, most)
            return lambda _: Busy(busy)
        tensor = draw.sample(TENSOR, draw.randint(0, 3))
        shares = {
            pipe: draw.choice((0, 1, 5_000, draw.randint(0, 250_000))) for pipe in (*tensor, *draw.sample(VECTOR, 1))
        }
        unread = tuple(pipe for pipe in VECTOR if pipe not in shares and draw.random() < 0.2)
        doubt, swing = draw.choice((0, 0, 3, 21_001)), draw.choice((0, 0, 70_003))
        return active(sms, draw.randint(1, mhz), shares, doubt, unread, swing)
