"""Scripts in processes that have already loaded PyTorch and related packages: loading takes longer than the scripts."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Finished(NamedTuple):
    """The exit code of one process of a script, and its whole output."""

    code: int
    output: str


class Preloaded:
    """A process that has loaded all packages, and is forked for each script."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, script: Path, environments: Sequence[Mapping[str, str]], folder: Path) -> list[Finished]:
        """Run `script` once with each of these environments, side by side, and return how each ended. Outputs are
        files in `folder`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        outputs = [folder / f"output-{at}" for at in range(len(environments))]
        asked = {"script": str(script), "processes": list(zip(map(dict, environments), map(str, outputs), strict=True))}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        codes = json.loads(self._process.stdout.readline())
        return [Finished(code, output.read_text()) for code, output in zip(codes, outputs, strict=True)]


@contextmanager
def preloaded() -> Iterator[Preloaded]:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        try:
            yield Preloaded(process)
        finally:
            process.kill()


def load_less() -> None:
    """Block imports of peft and transformers that, with PyTorch's compiler, take a third of their time."""
    sys.modules.update(dict.fromkeys(("bitsandbytes", "datasets")))  # type: ignore[arg-type]


def serve() -> None:
    load_less()
    import accelerate  # noqa: F401
    import lightning  # noqa: F401
    from transformers import LlamaForCausalLM, Trainer  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        children = []
        for environment, output in asked["processes"]:
            child = os.fork()
            if child == 0:
                become(asked["script"], environment, output)
                return
            children.append(child)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)


def become(script: str, environment: Mapping[str, str], output: str) -> None:
    """Run `script` as `python script` does."""
    os.environ.update(environment)
    opened = os.open(output, os.O_WRONLY | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(opened, descriptor)
    sys.argv[:], sys.path[0] = [script], str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    serve()
