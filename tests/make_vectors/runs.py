"""The journals of the test vectors, told as stories of the runs."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flopsd.core.declarations import Base, Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.ledger.isolation import Isolation
from flopsd.core.model import Busy, Counted, GapReason, Growth, Pipe, Precision
from flopsd.core.session_protocol import FactsDeclared, PhaseChanged, SessionClosed, SessionOpened, WorkCounted
from flopsd.system.clock import NS_PER_S
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
    active,
    gap,
    policy,
)

TINY = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 176,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
    "tie_word_embeddings": False,
}  # fmt: skip
Process = tuple[dict[str, Any], dict[str, dict[str, int]]]  # facts, and work by phase
SECRETS = {start: hashlib.sha256(b"flopsd test vector, a secret: %d" % start).digest() for start in (1, 2)}
BF16 = Precision((("bf16", 1_000_000),), "config")
MIX = Precision((("bf16", 900_001), ("fp8", 99_999)), "config")
TRAINING = active(132, 1755, {Pipe.TENSOR_HMMA: 481_113, Pipe.TENSOR_IMMA: 20_000, Pipe.FP32: 99_999, Pipe.FP64: 7})
PLAIN = active(132, 1755, {Pipe.TENSOR_HMMA: 481_113, Pipe.FP32: 99_999})
BUSY = lambda _: Busy(113_000_000_007)  # noqa: E731  (a plan's entry, like the others)


def trained(
    processes: Sequence[Process], seconds: int = 1, session_of: Callable[[int], str] = "{:032x}".format, **how: Any
) -> Callable[[Path], bytes]:
    """Some seconds of training, in which all processes train."""

    def story(folder: Path) -> bytes:
        run = Story(folder, (H100,), **how)
        for number, (facts, work) in enumerate(processes):
            session = session_of(number)
            run.says(SessionOpened(session, 1 + number, 2, "0.1.0"), FactsDeclared(session, facts))
            run.says(PhaseChanged(session, "train"), *([WorkCounted(session, work)] if work else []))
        run.during(seconds, {H100: TRAINING})
        return run.finish()

    return story


def activity(folder: Path) -> bytes:
    """Two GPUs, one with only an upper bound; a fault, a kill, and a second daemon start."""
    story = Story(folder, (H100, A100))
    story.during(7, {H100: TRAINING, A100: BUSY})
    story.during(2, {H100: gap(GapReason.DRIVER_TIMEOUT), A100: BUSY})
    story.during(3, {H100: TRAINING, A100: BUSY})
    story.kill(for_seconds=4)
    story.start()
    story.during(3, {H100: TRAINING, A100: BUSY})
    return story.finish()


def coded(folder: Path) -> bytes:
    """One GPU; a kill between two checkpoints, and a second daemon start with a secret of its own."""
    story = Story(folder, (H100,), secrets=SECRETS)
    story.during(7, {H100: TRAINING})
    story.kill(for_seconds=4)
    story.start()
    story.during(3, {H100: TRAINING})
    return story.finish()


def cycles(folder: Path) -> bytes:
    """Running counters: killed for five seconds, of which nothing is lost; then a driver error of one second."""
    story = Story(folder, (CYCLES_H100,), precision=BF16)
    story.during(6, {CYCLES_H100: lambda _: Growth()})
    story.kill(for_seconds=5)
    story.start()
    story.during(2, {CYCLES_H100: lambda _: Growth((Pipe.FP16,))})
    story.during(1, {CYCLES_H100: gap(GapReason.DRIVER_ERROR)})
    story.during(2, {CYCLES_H100: lambda _: Growth()})
    return story.finish()


def declared(folder: Path) -> bytes:
    """A declared mix of formats, a declaration for one device, an uncertain clock, unread pipes, and disputed and
    unknown rates."""
    story = Story(folder, (H100, A10G, HALF_KNOWN), precision=MIX, device_precision={"2": BF16})
    shares = {Pipe.TENSOR: 30_001, Pipe.TENSOR_HMMA: 400_000, Pipe.TENSOR_DFMA: 999, Pipe.FP16: 12_345}
    story.during(
        5,
        {
            H100: active(132, 1411, shares, doubt=21_001, unread=(Pipe.FP64, Pipe.FP32), swing=70_003),
            A10G: active(80, 1233, {Pipe.TENSOR_HMMA: 250_000, Pipe.TENSOR_IMMA: 1}, doubt=3),
            HALF_KNOWN: active(7, 907, {Pipe.TENSOR_IMMA: 5000, Pipe.FP64: 333, Pipe.FP32: 1}, unread=(Pipe.FP16,)),
        },
    )
    return story.finish()


def declared_by_phase(folder: Path) -> bytes:
    """A declared mix of formats of which one phase executes all integers, and the time outside of phases none."""
    story = Story(folder, (A10G,), precision=MIX)
    session = "f1" * 16
    story.says(SessionOpened(session, 4711, 1000, "0.1.0"), PhaseChanged(session, "train"))
    story.during(3, {A10G: active(80, 1233, {Pipe.TENSOR: 150_000, Pipe.TENSOR_IMMA: 600_000})})
    story.says(PhaseChanged(session, "none"), SessionClosed(session, clean=True))
    story.during(3, {A10G: active(80, 1233, {Pipe.TENSOR: 400_000})})
    return story.finish()


def phases(folder: Path) -> bytes:
    """Two processes of one fine-tune, which train, evaluate and generate, once late; a kill in between, after which
    both come back."""
    base = Base("a base model", "known", 7 * 10**13, None, False)
    story = Story(folder, (H100, A100), declared=OperatorDeclarations(base=base), policies=(policy(),))
    first, second = "f1" * 16, "5e" * 16
    facts = {
        "model_config": TINY, "method": "lora", "lora": {"r": 4, "target_modules": ["q_proj", "v_proj"]},
        "recomputation": "full", "precision": "bf16", "attention": "eager", "world_size": 2,
    }  # fmt: skip
    for session in (first, second):
        story.says(SessionOpened(session, 4711, 1000, "0.1.0"), FactsDeclared(session, facts))
    story.during(2, {H100: TRAINING, A100: BUSY})
    story.says(PhaseChanged(first, "train"))
    story.during(1, {H100: TRAINING, A100: BUSY})
    story.says(
        PhaseChanged(second, "train")
    )  # a second in which only one of them trained counts as train, since only one declares a phase
    story.during(5, {H100: TRAINING, A100: BUSY})
    for session, tokens in ((first, 8192), (second, 4096)):
        story.says(WorkCounted(session, {"train": work(tokens, steps=4)}))
    story.kill(for_seconds=2)
    story.start()
    for session in (first, second):
        story.says(SessionOpened(session, 4711, 1000, "0.1.0"), PhaseChanged(session, "train"))
    story.during(3, {H100: TRAINING, A100: BUSY})
    story.says(PhaseChanged(first, "evaluate"))
    story.during(1, {H100: TRAINING, A100: BUSY})  # they differ: no phase
    story.says(PhaseChanged(second, "evaluate"))
    story.during(2, {H100: TRAINING, A100: BUSY})
    for session in (first, second):
        story.says(PhaseChanged(session, "generate"))
    story.during(2, {H100: TRAINING, A100: BUSY})
    for session, tokens in ((first, 16384), (second, 12288)):
        story.says(WorkCounted(session, {"train": work(tokens, steps=8), "evaluate": work(2048)}))
        story.says(SessionClosed(session, clean=True))
    return story.finish()


def clocked(folder: Path) -> bytes:
    """An upper bound by the clock: a GPU that is busy at seven tenths of its maximum clock, then idle, then in a
    phase."""
    story, process = Story(folder, (A100,)), "33" * 16
    elapsed = 108 * 1410 * 10**6

    def busy(second: Second) -> Busy:
        seconds = (second.end_ns - second.begin_ns) // NS_PER_S
        return Busy(elapsed * seconds, elapsed * 7 // 10 * seconds + 13, seconds * 18 * (108 * 10**6) ** 2)

    story.clock.advance(1000 * NS_PER_S)
    story.during(2, {A100: busy})
    story.during(2, {A100: lambda _: Busy(elapsed // 3)})
    story.says(SessionOpened(process, 4711, 1000, "0.1.0"), PhaseChanged(process, "evaluate"))
    story.during(1, {A100: busy})
    story.clock.advance(100 * NS_PER_S)
    story.during(1, {A100: busy})
    return story.finish()


def plausible(folder: Path) -> bytes:
    """Three GPUs at 700 W each: one works as published runs did, one is lost for half of the time, and one has only
    an upper bound."""
    lost = replace(H100, uid=f"{H100.uid[:-1]}6", index=5)
    story = Story(folder, (H100, lost, A100), power=1000)
    for _ in range(2):  # the first reading has no energy, so the second one is long
        story.during(1, {H100: PLAIN, lost: PLAIN, A100: BUSY})
        story.clock.advance(200 * NS_PER_S)
    story.during(1, {H100: PLAIN, lost: gap(GapReason.DRIVER_TIMEOUT), A100: BUSY})
    return story.finish()


def frugal(folder: Path) -> bytes:
    """A GPU that does more work than its energy allows, in two daemon starts, with a hundredth of its tensor work in
    integers."""
    story = Story(folder, (H100,), precision=BF16, power=1000)
    work = {H100: active(132, 1980, {Pipe.TENSOR_HMMA: 970_000, Pipe.TENSOR_IMMA: 9_000}, doubt=101)}
    for start in range(2):
        if start:
            story.kill(for_seconds=2)
            story.start()
        story.during(1, work)
        story.clock.advance(400 * NS_PER_S)
        story.during(1, work)
    return story.finish()


def lying(folder: Path) -> bytes:
    """A full training, according to its operator, by a process that claims to evaluate in TF32 for most of the time."""
    base = Base("a base model", "known", 10**23 - 4 * 10**15, None, False)
    said = OperatorDeclarations(Phase.TRAIN, Method.FULL, None, base)
    story, process = Story(folder, (H100,), declared=said, policies=(policy(),)), "11" * 16
    facts = {"method": "lora", "recomputation": "none", "precision": "tf32"}
    story.says(SessionOpened(process, 4711, 1000, "0.1.0"), FactsDeclared(process, facts))
    story.says(PhaseChanged(process, "train"))
    story.during(2, {H100: TRAINING})
    story.says(PhaseChanged(process, "evaluate"))
    story.during(8, {H100: TRAINING})
    story.during(1, {H100: gap(GapReason.DRIVER_TIMEOUT)})
    story.says(SessionClosed(process, clean=True))
    return story.finish()


def operators(folder: Path) -> bytes:
    """A training on two GPUs, one of which has only an upper bound: its processes count their operators, and three
    make errors."""
    base = Base("a base model", "known", 10**23 - 2 * 10**15, None, False)
    said = OperatorDeclarations(Phase.TRAIN, Method.FULL, None, base)
    story = Story(folder, (H100, A100), declared=said, policies=(policy(),))
    on_a100, on_h100, liar, mover, stranger = (digit * 32 for digit in "abcde")
    devices = {on_a100: A100.uid, on_h100: H100.uid, liar: A100.uid, mover: H100.uid, stranger: "GPU-of-another-run"}
    for session, device in devices.items():
        facts = {"precision": "bf16", "device": device}
        story.says(SessionOpened(session, 4711, 1000, "0.1.0"), FactsDeclared(session, facts))
    story.says(FactsDeclared(on_h100, {"not_counted": {"evaluate": ["a server"]}}), PhaseChanged(on_a100, "train"))
    story.during(4, {H100: TRAINING, A100: BUSY})
    for session in (on_a100, on_h100, mover, stranger):
        counted = {"operator_flop": 4 * 10**13 + 1, "recomputed_operator_flop": 10**13}
        story.says(WorkCounted(session, {"train": counted, "evaluate": {"operator_flop": 10**12}}))
    story.says(WorkCounted(liar, {"train": {"operator_flop": 10**17, "steps": 1}}))
    story.says(FactsDeclared(mover, {"device": A100.uid}))
    story.during(2, {H100: gap(GapReason.DRIVER_TIMEOUT), A100: BUSY})
    story.kill(for_seconds=2)
    story.start()
    for session, flop in ((on_a100, 10**14), (on_h100, 4 * 10**15), (liar, 10**14)):
        story.says(SessionOpened(session, 4711, 1000, "0.1.0"), PhaseChanged(session, "train"))
        grown = {"operator_flop": flop, "recomputed_operator_flop": 2 * 10**13}
        story.says(WorkCounted(session, {"train": grown, "evaluate": {"operator_flop": 4 * 10**12}}))
    story.during(3, {H100: TRAINING, A100: BUSY})
    return story.finish()


def windows(folder: Path) -> bytes:
    """A training that observed its kernels in sampled windows, on two devices, across a restart; one message is
    impossible."""
    story = Story(folder, (H100, A100), declared=OperatorDeclarations(Phase.TRAIN), policies=(policy(),))
    trainer, beside = "ab" * 16, "cd" * 16
    for session, device in ((trainer, H100.uid), (beside, A100.uid)):
        story.says(SessionOpened(session, 4711, 1000, "0.1.0"), FactsDeclared(session, {"device": device}))
    story.says(FactsDeclared(trainer, {"model_config": TINY, "method": "full"}), PhaseChanged(trainer, "train"))
    story.during(3, {H100: TRAINING, A100: BUSY})
    story.says(WorkCounted(trainer, {"train": {**work(8192, 4), **seen(1)}}), WorkCounted(beside, {"train": seen(1)}))
    story.says(WorkCounted(beside, {"train": seen(2, matrix_fp8=10**12)}))
    story.during(3, {H100: TRAINING, A100: BUSY})
    story.kill(for_seconds=1)
    story.start()
    story.says(SessionOpened(trainer, 4711, 1000, "0.1.0"), PhaseChanged(trainer, "train"))
    story.says(WorkCounted(trainer, {"train": {**work(16384, 8), **seen(3), "kernel_windows_skipped": 2}}))
    story.during(2, {H100: TRAINING, A100: BUSY})
    return story.finish()


def seen(times: int, **more_ns: int) -> dict[str, int]:
    """Windows of 40 ms."""
    kernels = {"matrix_bf16": 24_000_001, "attention": 3_000_000, "vector": 9_000_000, "other": 0, **more_ns}
    return {
        "kernel_windows": times, "kernel_window_ns": times * 40_000_000, "kernel_window_cost_ns": times * 2_000_000,
        **{f"kernel_ns_{name}": times * ns for name, ns in kernels.items()},
        **{f"kernel_launches_{name}": times * 7 for name in kernels},
    }  # fmt: skip


def exceeding(folder: Path) -> bytes:
    """A count that the daemon's tolerance lets pass exceeds all that the device can have executed: no figure
    includes it. And the recomputed part exceeds any recomputation."""
    story, process = Story(folder, (A100,), declared=OperatorDeclarations(Phase.TRAIN)), "ab" * 16
    story.says(SessionOpened(process, 4711, 1000, "0.1.0"), FactsDeclared(process, {"device": A100.uid}))
    story.during(3, {A100: BUSY})
    counted = {"operator_flop": 2 * 10**15, "recomputed_operator_flop": 10**15}
    story.says(WorkCounted(process, {"train": counted}))
    story.during(2, {A100: BUSY})
    return story.finish()


def counted_as_claimed(folder: Path) -> bytes:
    """A process declares its phases and BF16, and counts operators: its count exceeds the measurement under its
    claim by less than the measurement without it."""
    story, process = Story(folder, (H100,)), "ab" * 16
    facts = {"precision": "bf16", "device": H100.uid}
    story.says(
        SessionOpened(process, 4711, 1000, "0.1.0"), FactsDeclared(process, facts), PhaseChanged(process, "train")
    )
    story.during(4, {H100: PLAIN})
    story.says(PhaseChanged(process, "generate"))
    story.during(3, {H100: gap(GapReason.DRIVER_TIMEOUT)})
    counted = {"train": 175 * 10**13, "generate": 30 * 10**13}
    story.says(WorkCounted(process, {phase: {"operator_flop": flop} for phase, flop in counted.items()}))
    return story.finish()


def counted_in_evaluation(folder: Path) -> bytes:
    """The settings declare evaluation, and a process counts operators of training. Its GPU has only an upper bound."""
    story, process = Story(folder, (A100,), declared=OperatorDeclarations(Phase.EVALUATE)), "ab" * 16
    story.says(SessionOpened(process, 4711, 1000, "0.1.0"), FactsDeclared(process, {"device": A100.uid}))
    story.says(WorkCounted(process, {"train": {"operator_flop": 4 * 10**14}, "evaluate": {"operator_flop": 10**13}}))
    story.during(3, {A100: BUSY})
    return story.finish()


def unused(folder: Path) -> bytes:
    """Processes whose counts are in no figure, one of each kind; the journal does not have them in the order of
    their ids."""
    story = Story(folder, (A100, H100), declared=OperatorDeclarations(Phase.TRAIN, Method.FULL))
    mover, exceeding, unnamed, elsewhere, liar = (digit * 32 for digit in "fbdca")
    devices = {mover: H100.uid, exceeding: A100.uid, unnamed: None, elsewhere: "GPU-of-another-run", liar: H100.uid}
    for session, device in devices.items():
        facts = {"method": "lora" if session < unnamed else "partial", **({} if device is None else {"device": device})}
        story.says(SessionOpened(session, 4711, 1000, "0.1.0"), FactsDeclared(session, facts))
    story.during(3, {H100: TRAINING, A100: BUSY})
    for session in devices:
        story.says(WorkCounted(session, {"train": {"operator_flop": 10**30 if session == liar else 2 * 10**15}}))
    story.says(FactsDeclared(mover, {"device": A100.uid}))
    story.during(2, {H100: TRAINING, A100: BUSY})
    return story.finish()


def work(tokens: int, steps: int = 0) -> dict[str, int]:
    """Sequences of 64 tokens."""
    return {
        "steps": steps, "forward_passes": tokens // 256, "sequences": tokens // 64, "tokens": tokens,
        "square_pairs": tokens * 64,
    }  # fmt: skip


def settings(folder: Path) -> bytes:
    found = OperatorDeclarations(Phase.TRAIN, Method.FULL, Recomputation.FULL, Base(None, "unknown", None, None, True))
    story = Story(folder, (H100,), declared=found, policies=(policy(),))
    story.during(5, {H100: TRAINING})
    return story.finish()


def neuron(folder: Path) -> bytes:
    story = Story(folder, (TRAINIUM,))
    story.during(4, {TRAINIUM: lambda _: Counted(60_000_000_000_001)})
    story.during(1, {TRAINIUM: gap(GapReason.STALE)})
    return story.finish()


def stranger(folder: Path) -> bytes:
    story = Story(folder, (H100, STRANGER))
    story.during(3, {H100: TRAINING, STRANGER: TRAINING})
    return story.finish()


def nothing(folder: Path) -> bytes:
    story = Story(folder, ())
    story.during(2, {})
    return story.finish()


def replayed(folder: Path) -> bytes:
    story = Story(folder, (H100,), replay=True)
    story.during(3, {H100: TRAINING})
    return story.finish()


def rebooted(folder: Path, *, clock_back: bool = False) -> bytes:
    """Killed, and the machine rebooted: on the new boot's clock the gap between begins below zero."""
    story = Story(folder, (H100,))
    story.during(3, {H100: TRAINING})
    story.kill(for_seconds=0 if clock_back else 95)
    if clock_back:
        story.clock.step_wall(-3600 * NS_PER_S)
    story.reboot(replace(CONTEXT, boot_id="00000000-0000-4000-8000-00000000b002", attempt="1"))
    story.start()
    story.during(3, {H100: TRAINING})
    return story.finish()


def rebooted_with_the_clock_back(folder: Path) -> bytes:
    """As `rebooted`, but the clock is then an hour before the last record: the length of the gap is unknown."""
    return rebooted(folder, clock_back=True)


def killed_early(folder: Path) -> bytes:
    """Two daemon starts were killed before they journalled any device: their time, and the time between, is in the
    gap of the device that the third one meters."""
    story = Story(folder, ())
    for seconds in (2, 9):
        story.clock.advance(NS_PER_S)
        story.kill(for_seconds=seconds)
        story.start()
    story.devices = (H100,)
    story.during(3, {H100: TRAINING})
    return story.finish()


def elsewhere(folder: Path) -> bytes:
    """Time that belonged to another job, and time that slices account for: no upper bound, no loss of coverage."""
    story = Story(folder, (H100, A100))
    story.during(2, {H100: gap(GapReason.OTHER_JOB), A100: BUSY})
    story.during(2, {H100: TRAINING, A100: gap(GapReason.METERED_AS_MIG)})
    return story.finish()


def named_late(folder: Path) -> bytes:
    """One GPU is listed without its model until another source names it; one is listed by its place until its driver
    answers."""
    nameless = replace(
        A10G, model="unidentified", pci_device_id=None, serial=None, sm_count=None, sm_clock_max_mhz=None
    )
    place = replace(nameless, uid="nvml-index-0", index=0)
    story = Story(folder, (place, nameless))
    story.during(2, {place: gap(GapReason.DRIVER_TIMEOUT), nameless: gap(GapReason.UNKNOWN_DEVICE)})
    story.devices, story.renamed = (H100, A10G), {place.uid: H100}
    story.during(6, {H100: TRAINING, A10G: active(80, 1233, {Pipe.TENSOR_HMMA: 250_000})})
    return story.finish()


def torn(folder: Path) -> bytes:
    """A power cut left half a line, which the next daemon start cut off and reported; meanwhile a source improved."""
    story = Story(folder, (A100,))
    story.during(6, {A100: BUSY})
    story.kill(for_seconds=2)
    with story.state.journal.open("ab") as file:
        file.write(b'{"h":"00')
    story.state.pending.write_bytes(b"")
    story.start()
    better = replace(A100, evidence=H100.evidence, evidence_reason="", evidence_fix="")
    story.devices = (better,)
    story.during(3, {better: active(108, 1400, {Pipe.TENSOR_HMMA: 300_003})})
    return story.finish()


def apart(folder: Path) -> bytes:
    """The job belongs to another user, and nobody else can write the daemon's files."""
    story = Story(folder, (A100,), isolation=Isolation(0, 1001, False, True, "stdout", "file_owner"))
    story.during(3, {A100: BUSY})
    story.kill(for_seconds=2)
    story.start()
    story.during(3, {A100: BUSY})
    return story.finish()


def lost(folder: Path) -> bytes:
    """Another process overwrote the journal: the run goes on in a new one, and nothing bounds the work before."""
    story = Story(folder, (H100,))
    story.during(6, {H100: TRAINING})
    story.state.journal.write_bytes(bytes(story.state.journal.stat().st_size + 1))
    story.during(9, {H100: TRAINING})
    return story.finish()


def small(folder: Path) -> bytes:
    """The run on which the invalid vectors are based."""
    story = Story(folder, (H100,))
    story.during(6, {H100: TRAINING})
    return story.finish()


def smaller(folder: Path) -> bytes:
    story = Story(folder, (H100,), run="another")
    story.during(6, {H100: active(132, 1000, {Pipe.TENSOR_HMMA: 1000})})
    return story.finish()
