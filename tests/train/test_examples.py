"""The examples as their readers run them, and the messages that the daemon receives from each."""

from pathlib import Path

import pytest

from tests.support.session_servers import EventServer
from tests.train.preloaded import Preloaded
from tests.train.trainers import Declared

EXAMPLES = Path(__file__).parents[2] / "examples" / "training"
WORK = {
    "plain_pytorch.py": {
        "train": {"steps": 20, "forward_passes": 20, "sequences": 80, "tokens": 80 * 32},
        "evaluate": {"forward_passes": 2, "sequences": 8, "tokens": 8 * 32},
    },
    "accelerate_loop.py": {
        "train": {"steps": 8, "forward_passes": 16, "sequences": 64, "tokens": 64 * 32, "square_pairs": 64 * 32**2},
        "evaluate": {"forward_passes": 1, "sequences": 4, "tokens": 4 * 32, "square_pairs": 4 * 32**2},
    },
    "lightning_module.py": {
        "train": {"steps": 8, "forward_passes": 8, "sequences": 32, "tokens": 32 * 32, "square_pairs": 32 * 32**2},
        # Lightning tries two batches before it begins.
        "evaluate": {"forward_passes": 10, "sequences": 40, "tokens": 40 * 32, "square_pairs": 40 * 32**2},
    },
    "trainer.py": {
        "train": {"steps": 8, "forward_passes": 8, "sequences": 32, "tokens": 32 * 32, "square_pairs": 32 * 32**2},
        "evaluate": {"forward_passes": 4, "sequences": 32, "tokens": 32 * 32, "square_pairs": 32 * 32**2},
    },
}  # fmt: skip


@pytest.mark.training("accelerate", "lightning")
@pytest.mark.parametrize("name", WORK)
def test_each_example_declares_its_work(tmp_path: Path, scripts: Preloaded, name: str) -> None:
    server = EventServer(tmp_path / "client.sock")
    (finished,) = scripts.run(EXAMPLES / name, [{"FLOPSD_SOCKET": str(server.listener.path)}], tmp_path)
    assert finished.code == 0, finished.output
    events = server.all()
    found = Declared(events, events[0].session)
    work = found.work
    work["train"].pop("framework_flop", None)
    assert work == WORK[name]
    assert found.facts["method"] == "pretraining"
    assert {"train", "evaluate"} <= set(found.phases)


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == WORK.keys()
