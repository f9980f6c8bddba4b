"""The choice of loads. `quick` is planned for five minutes, `full` for half an hour."""

from collections.abc import Callable, Mapping

from tests.hardware.loads import Shape, Spec

GEMM_FORMATS = ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8")
VARIANTS = ("plain", "ckpt", "lora", "lora+ckpt")
LARGE = 8192
RAGGED = 4112  # a multiple of 16, as FP8 and INT8 demand, that fills no tile of 128
SETTINGS = ("clock:1830", "clock:1980", "power:60")  # D.6, question 4
TRANSFORMER = Shape(layers=4, width=2048, heads=16, sequence=2048, batch=4, hidden=8192, vocabulary=16384, rank=16)
TINY = Shape(layers=2, width=32, heads=2, sequence=8, batch=2, hidden=64, vocabulary=48, rank=4)
SIMULATED_SECONDS = 0.4


def quick() -> tuple[Spec, ...]:
    return (
        Spec("idle", None, 0, 5),
        *_products((512, 2048, LARGE), 2),
        *_products((LARGE,), 10, ("fp64", "fp32", "bf16", "fp8")),
        *_others(5, 10),
    )


def full() -> tuple[Spec, ...]:
    return (
        Spec("idle", None, 0, 60),
        *(spec for seconds in (2, 10) for spec in _products((512, 2048, RAGGED, LARGE), seconds)),
        *_products((LARGE,), 60),
        *_others(10, 60),
    )


def simulated() -> tuple[Spec, ...]:
    """One load for each pipe of the stand-in, and idle."""
    formats = ("fp64", "fp32", "bf16", "fp16", "int8")
    return (
        Spec("idle", None, 0, SIMULATED_SECONDS),
        *(Spec("gemm", name, 2048, SIMULATED_SECONDS) for name in formats),
        Spec("gemm", "bf16", 2048, 2 * SIMULATED_SECONDS),
    )


def _products(sizes: tuple[int, ...], seconds: float, formats: tuple[str, ...] = GEMM_FORMATS) -> tuple[Spec, ...]:
    dense = tuple(Spec("gemm", name, size, seconds) for name in formats for size in sizes)
    return dense + tuple(Spec("sparse", "bf16", size, seconds) for size in sizes if "int8" in formats)


def _others(memory_seconds: float, training_seconds: float) -> tuple[Spec, ...]:
    return (
        Spec("copy", None, 1024, memory_seconds),
        Spec("add", "fp32", 1024, memory_seconds),
        *(Spec("training", "bf16", TRANSFORMER.layers, training_seconds, variant) for variant in VARIANTS),
        *(Spec("gemm", "bf16", LARGE, 10, setting=setting) for setting in SETTINGS),
    )


PLANS: Mapping[str, Callable[[], tuple[Spec, ...]]] = {"quick": quick, "full": full, "simulated": simulated}
