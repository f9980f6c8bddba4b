"""A user's training script: the sagemaker-training toolkit runs it as its entry point, with hyperparameters as
arguments."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--mode", required=True)
parser.add_argument("--patience", type=float, default=0)
arguments = parser.parse_args()
mode = arguments.mode

output = Path(os.environ["SM_OUTPUT_DATA_DIR"])
output.mkdir(parents=True, exist_ok=True)
(output / "metrics.json").write_text('{"loss": 1}')


def save(*_: object) -> None:
    time.sleep(arguments.patience)
    (Path(os.environ["SM_MODEL_DIR"]) / f"{os.environ['SM_CURRENT_HOST']}.bin").write_text("saved in time")
    sys.exit(0)


def metered() -> bool:
    """Whether a meter beside this process has measured something; without a meter there is nothing to wait for."""
    state = Path("/var/lib/flopsd")
    pending = state / "pending.jsonl"
    return "FLOPSD_SOCKET" not in os.environ or (pending.exists() and b"activity" in pending.read_bytes())


if mode == "stop":
    signal.signal(signal.SIGTERM, save)
elif mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("training", flush=True)
while mode in ("stop", "deaf") or not metered():
    time.sleep(0.02)
if mode == "exit":
    sys.exit(37)
if mode == "crash":
    raise RuntimeError("CUDA out of memory, or so")
if mode == "segfault":
    os.kill(os.getpid(), signal.SIGSEGV)
(Path(os.environ["SM_MODEL_DIR"]) / "model.bin").write_text("trained")
