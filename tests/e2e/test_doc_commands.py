"""The commands of README.md and docs/*.md, run as printed: those of tests/support/doc_commands.py that no other test
runs. Commands that start no process are run in every CI run, all of them in `make test-all`."""

import glob
import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flopsd.attestation.seal import seal_journal
from flopsd.attestation.signing.keys import ensure_key
from flopsd.settings.data_files import config_dir, load_peaks, load_policies
from flopsd.settings.load import PASSPHRASE
from tests.support.architectures import LLAMA_8B
from tests.support.doc_commands import COMMANDS, PAGES, Run, commands, outputs
from tests.support.foreign import shell
from tests.support.jobs import Nodes, sagemaker, slurm
from tests.support.process import as_expected, environment, flopsd, in_process
from tests.support.receivers import Receiver
from tests.support.runs import finished, sealed_run

TRAIN = "print('the job ran')\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages' commands name."""
    base = tmp_path_factory.mktemp("files")
    made, folder = base / "made", base / "page"
    folder.mkdir()
    sealed = sealed_run(made)
    for ending, path in ((".json", sealed.ledger), (".journal.jsonl", sealed.journal)):
        shutil.copy(path, folder / f"ledger{ending}")
    for name in ("ledger", "signer", "first"):
        shutil.copy(sealed.public_key, folder / f"{name}.pub")
    for name in ("key", "team", "second"):
        in_process("key", "new", str(folder / f"{name}.pem"), code=0)
        shutil.copy(folder / f"{name}.pem.pub", folder / f"{name}.pub")
    nodes = Nodes(base / "nodes")
    for rank in range(2):
        of_slurm = nodes.ledger(slurm(rank, job="slurm-4711"), key=str(folder / "team.pem"))
        shutil.copytree(of_slurm.parent, folder / "fsx" / "slurm-4711" / str(rank))
        host = nodes.ledger(sagemaker(rank), key=str(folder / "key.pem"))
        shutil.copytree(host.parent, base / "output" / f"algo-{rank + 1}")
    with tarfile.open(folder / "output.tar.gz", "w:gz") as archive:
        archive.add(base / "output", "flopsd")
    rated(folder, base)
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    (folder / "train.py").write_text(TRAIN)
    (folder / "prom").write_text("Bearer x\n")
    (folder / "bin").mkdir()
    return folder


def rated(folder: Path, base: Path) -> None:
    """The table and the policy that the pages show, and a ledger that uses them."""
    (row,) = re.findall(r"```yaml\n(  - id: example-x1\n.*?)```", PAGES["own-tables.md"], re.DOTALL)
    (policy,) = re.findall(r"```yaml\n(id: our-regime\n.*?)```", PAGES["thresholds.md"], re.DOTALL)
    peaks, regime = folder / "peaks-2026-11.yaml", folder / "our-regime.yaml"
    peaks.write_text(
        (config_dir() / "peaks.yaml").read_text().replace("\naccelerators:\n", f"\naccelerators:\n{row}", 1)
    )
    regime.write_text(policy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.support.runs.table", lambda: load_peaks(str(peaks)))
        run = finished(base / "rated", 3, policies=load_policies(["eu-ai-act", str(regime)]))
    uri, _ = ensure_key(None, run.state.path)
    seal_journal(run.state.journal, uri, folder / "rated.json", run.clock, [str(peaks)], policy_files=[str(regime)])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.stop()


def matches(shown: str, said: str) -> bool:
    """Whether the output begins with the page's text, where `…` stands for anything."""
    wanted = re.escape(" ".join(shown.split())).replace("…", ".*")
    return re.match(wanted, said, re.DOTALL) is not None


def run(command: str, how: Run, env: dict[str, str], shown: str | None = None) -> None:
    """Run a verb of flopsd that starts no process in this process, any other command in a shell."""
    for old, new in how.instead.items():
        assert old in command
        command = command.replace(old, new)
    if not how.long:
        words = [name for word in shlex.split(command)[1:] for name in (sorted(glob.glob(word)) or [word])]
        # A command that loads the driver gets its own process: this one would find the machine's driver, if it has
        # one.
        done = (flopsd if words[0] == "doctor" else in_process)(*words, env=env, code=how.code)
    else:
        lines = "".join(
            f"export {name}={shlex.quote(value)}\n"
            for name, value in env.items()
            if name.startswith("FLOPSD_") or name == "RECEIVER"
        )
        done = as_expected(shell(f"{lines}{command}\n", how.at or Path.cwd()), how.code, ())
    said = " ".join((done.stdout + done.stderr).split())
    assert how.says in said, f"{command}\nsays\n{said}"
    assert shown is None or matches(shown, said), f"{command}\nshows\n{shown}\nand says\n{said}"
    assert Path(how.writes).exists()


def of(page: str, *, long: bool) -> list[tuple[str, Run]]:
    """The commands of a page in order: those of every CI run, or those that only `make test-all` runs."""
    table = COMMANDS[page]
    found = [(command, table[command]) for command in commands(PAGES[page])]
    return [(command, how) for command, how in found if isinstance(how, Run) and how.long is long]


@pytest.mark.parametrize("page", [page for page in COMMANDS if of(page, long=False)])
def test_the_commands_of_a_page_do_what_it_shows(
    page: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(files, tmp_path / "page")
    monkeypatch.chdir(tmp_path / "page")
    for command, how in of(page, long=False):
        run(command, how, environment(None, None, **{PASSPHRASE: "correct horse"}), outputs(PAGES[page]).get(command))


@pytest.mark.exhaustive
@pytest.mark.parametrize("page", [page for page in COMMANDS if of(page, long=True)])
def test_programs_that_a_page_starts_and_installs_work(
    page: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    """On the bundled recording, for a second."""
    shutil.copytree(files, tmp_path / "page")
    monkeypatch.chdir(tmp_path / "page")
    env = environment(None, None, RECEIVER=receiver.url, **{PASSPHRASE: "correct horse"}, FLOPSD_STATE_DIR="state",
                      FLOPSD_SOURCE="replay", FLOPSD_DURATION="1", FLOPSD_LISTEN="off", FLOPSD_EVIDENCE="off")  # fmt: skip
    for command, how in of(page, long=True):
        run(command, how, env)
        if " exec " in command or " run " in command:
            assert len(list(Path("state").glob("*.ledger.json"))) == 1, command
            shutil.rmtree("state")
    sent = [path for _, path, _, _ in receiver.requests]
    for command in commands(PAGES[page]):
        for address in re.findall(r"://[\w.:]+(/[\w/]+)(?=[# ].* -- )", command):
            assert "aps-" in command or address in sent
