"""The published page suffices: an implementation written from it computes the same figures as flopsd."""

import ast
import contextlib
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.judge import PARTLY, PASSED, is_below, judge
from conformance.run import predicate_of
from conformance.vectors import Vector
from flopsd.core.declarations import Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.model import UNBOUNDED, Active, Busy, Device, Evidence, Gap, GapReason, Pipe, Precision
from flopsd.core.session_protocol import FactsDeclared, PhaseChanged, SessionOpened
from tests.make_vectors.files import statement_of
from tests.make_vectors.runs import trained
from tests.second_implementation import arithmetic, ledger, shapes, verify
from tests.second_implementation.laws import Refused
from tests.second_implementation.ledger import recompute, stated
from tests.support.extent import Extent, examples, sampled
from tests.support.story import A10G, A100, H100, HALF_KNOWN, PEAKS, POLICY, VECTORS, Second, Story, tell
from tests.support.vector_arguments import NOT_ON_THE_PAGE, arguments_of, published

pytestmark = pytest.mark.maintainer
ALL = published()
LEFT_OUT = {
    f"statement.predicate.{name}"
    for name in (
        "reconciliation", "totals.architecture", "totals.architectureAbsentReasons", "totals.guidelines",
        "totals.integerOperations.guidelines",
    )
}  # fmt: skip
MODULES = sorted(Path(str(arithmetic.__file__)).parent.glob("*.py"))


def answer_of(vector: Vector) -> tuple[int, dict[str, Any]]:
    """Exit status and output."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = verify.main(arguments_of(vector))
    said: dict[str, Any] = json.loads(out.getvalue())
    return status, said


SESSION = "5e55" * 8
OF_SOURCES = [reason for reason in GapReason if reason not in UNBOUNDED]
SMS = {H100: 132 * 1980, A100: 108 * 1410, A10G: 80 * 1710, HALF_KNOWN: 7 * 1003}


@pytest.mark.long
@sampled(3)
def test_the_second_implementation_judges_every_vector_except_undefined_models(extent: Extent) -> None:
    """By the contract of docs/conformance.md."""
    left_out: set[str] = set()
    in_part: set[str] = set()
    for vector in extent.of(ALL):
        status, said = answer_of(vector)
        outcome = judge(vector, status, json.dumps(said).encode(), predicate_of(vector))
        path = vector.expected["path"]
        in_part |= {vector.name} if outcome.result == PARTLY else set()
        assert outcome.result in (PARTLY, PASSED), f"{vector.name}: {outcome.why}"
        assert path is None or outcome.path is None or is_below(outcome.path, [path]), vector.name
        left_out |= {re.sub(r"\[\d+\]", "[]", one) for one in said.get("notVerified", ())}
    assert left_out <= LEFT_OUT, sorted(left_out - LEFT_OUT)
    assert all(one.startswith(NOT_ON_THE_PAGE) for one in in_part), in_part


def test_the_second_implementation_finds_where_two_journals_diverge() -> None:
    pair = [VECTORS / "invalid" / "fork" / f"{name}.journal.jsonl" for name in ("ledger", "other")]
    assert ledger.fork(*pair) == 3
    assert ledger.fork(pair[0], pair[0]) is None


def test_the_second_implementation_counts_keys_not_files_and_needs_a_signature(tmp_path: Path) -> None:
    folder, again = VECTORS / "valid" / "p256", tmp_path / "again.pub"
    again.write_bytes(b"the same key\n" + (folder / "ledger.pub").read_bytes())
    stranger = VECTORS / "valid" / "activity-and-gaps" / "ledger.pub"
    for keys, threshold in (([folder / "ledger.pub", again], 2), ([stranger], 0)):
        with pytest.raises(Refused, match="too_few_signatures"):
            verify.verify(verify.Asked(folder / "ledger.json", keys, threshold, peaks=(PEAKS,), policies=(POLICY,)))


def test_the_second_implementation_ignores_other_json_below_a_folder(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(VECTORS / "merged" / "job", tmp_path / "job"))
    (folder / "children" / "package.json").write_text("{}")
    asked = verify.Asked(folder / "ledger.json", [folder / "ledger.pub"], peaks=(PEAKS,), policies=(POLICY,))
    verify.verify(replace(asked, children=folder / "children"))


def test_the_second_implementation_imports_nothing_of_flopsd() -> None:
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                assert not any(name.startswith("flopsd") for name in names)


def declarations(phase: st.SearchStrategy[Phase | None]) -> st.SearchStrategy[OperatorDeclarations]:
    methods, recomputations = st.none() | st.sampled_from(Method), st.none() | st.sampled_from(Recomputation)
    return st.builds(OperatorDeclarations, phase, methods, recomputations)


@st.composite
def doings(draw: st.DrawFn) -> list[tuple[int, int, int, int, bool, str | None]]:
    """Some seconds of a device: kind of work, two amounts in ppm, doubt, whether the daemon is killed afterwards,
    and the phase that a process names."""
    ppm = st.integers(0, 900_000)
    phase = st.sampled_from([None, "undeclared", "train", "evaluate", "generate", "other"])
    second = st.tuples(st.integers(0, 3), ppm, ppm, st.integers(0, 1000), st.booleans(), phase)
    return draw(st.lists(second, min_size=1, max_size=8))


@settings(max_examples=examples(40))
@given(
    plan=doings(),
    device=st.sampled_from([H100, A100, A10G, HALF_KNOWN]),
    shares=st.one_of(st.none(), st.integers(1, 999_999)),
    formats=st.sampled_from(
        [
            None,
            "bf16",
            "tf32",
            {"bf16": 900_000, "tf32": 100_000},
            {"bf16": 333_333, "int8": 600_001, "tf32": 66_666},
            "int8",
        ]
    ),
    declared=declarations(st.none() | st.sampled_from(Phase)),
)
def test_the_second_implementation_computes_the_figures_of_any_run(
    plan: list[tuple[int, int, int, int, bool, str | None]], device: Device, shares: int | None, formats: object,
    declared: OperatorDeclarations, tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    cycles = SMS[device] * 10**6
    precision = None if shares is None else Precision((("bf16", shares), ("tf32", 1_000_000 - shares)), "config")

    def story(folder: Path) -> bytes:
        run = Story(folder, (device,), precision=precision, declared=declared)
        for kind, one, other, doubt, killed, phase in plan:
            if phase is not None:
                run.says(SessionOpened(SESSION, 1, 2, "0.1.0"))
                run.says(PhaseChanged(SESSION, phase))
                if formats is not None:
                    run.says(FactsDeclared(SESSION, {"precision": formats}))

            def work(
                _: Second, kind: int = kind, one: int = one, other: int = other, doubt: int = doubt
            ) -> Active | Busy | Gap:
                amounts = {
                    Pipe.TENSOR_HMMA: cycles * one // 10**6,
                    Pipe.TENSOR: other,
                    Pipe.FP16: cycles * other // 10**6,
                }
                if kind == 0:
                    return Active(Evidence.ACTIVITY, amounts, {Pipe.FP16: doubt}, (Pipe.FP64,))
                if kind == 1:
                    return Active(Evidence.ACTIVITY, {Pipe.FP32: one, Pipe.TENSOR_IMMA: other, Pipe.TENSOR_DFMA: doubt})
                return Busy(cycles * one // 10**6) if kind == 2 else Gap(OF_SOURCES[doubt % len(OF_SOURCES)])

            run.during(1, {device: work})
            if killed:
                run.kill(for_seconds=1)
                run.start()
        return run.finish()

    journal = tmp_path_factory.mktemp("any") / "journal.jsonl"
    journal.write_bytes(tell(story))
    said = statement_of(journal.read_bytes())
    assert recompute(journal, PEAKS, said["predicate"]["method"]["sealedAt"]) == stated(said)


@st.composite
def counters(draw: st.DrawFn) -> dict[str, int]:
    """The counters of some sequences, each with its own length."""
    lengths = draw(st.lists(st.integers(1, 60), min_size=1, max_size=5))
    squares = sum(length * length for length in lengths)
    work = {"tokens": sum(lengths), "sequences": len(lengths), "square_pairs": squares}
    if draw(st.booleans()):
        first, last = sorted(draw(st.integers(0, sum(lengths))) for _ in range(2))
        work |= {"headless_tokens": first, "unlabelled_tokens": last - first, "fused_head_tokens": sum(lengths) - last}
    return work


LLAMAS = st.fixed_dictionaries(
    {
        "model_type": st.just("llama"),
        "hidden_size": st.sampled_from([8, 16]),
        "intermediate_size": st.integers(1, 40),
        "num_hidden_layers": st.integers(1, 3),
        "num_attention_heads": st.sampled_from([2, 4]),
        "num_key_value_heads": st.sampled_from([1, 2]),
        "vocab_size": st.integers(1, 50),
    }
)
HOW = {
    "recomputation": st.sampled_from(["none", "full", "selective"]),
    "attention": st.sampled_from(["eager", "sdpa", "flash_attention_2"]),
}
LORA = st.fixed_dictionaries(
    {"r": st.integers(1, 4)},
    optional={"target_modules": st.sampled_from([["q_proj", "v_proj"], ["all-linear"], ["o_proj"], ["down_proj", "k_proj"]])},
)  # fmt: skip
FULL_FACTS = st.fixed_dictionaries({}, optional={"method": st.sampled_from(["pretraining", "full", "partial"]), **HOW})
LORA_FACTS = st.fixed_dictionaries({"method": st.sampled_from(["lora", "qlora"])}, optional={"lora": LORA, **HOW})


@st.composite
def trainings(draw: st.DrawFn) -> tuple[dict[str, object], dict[str, dict[str, int]]]:
    """Facts and work of one process: a Llama or a size alone, trained in full, in part, with LoRA, or by an
    undeclared method."""
    facts: dict[str, Any] = draw(st.one_of(FULL_FACTS, LORA_FACTS))
    total = draw(st.integers(1, 10**10))
    if draw(st.booleans()):
        facts["model_config"] = draw(LLAMAS)
        total = shapes.Llama(facts).total
        if draw(st.booleans()):
            facts["parameters_total"] = total + draw(st.sampled_from([0, 0, -1, 7]))
    else:
        facts["parameters_total"] = total
    if "lora" not in facts and draw(st.booleans()):
        facts["parameters_trainable"] = draw(st.one_of(st.just(total), st.integers(1, total)))
    if draw(st.sampled_from([False, False, True])):
        facts["role"] = draw(st.sampled_from(["reference", "critic"]))
    if draw(st.sampled_from([False, False, True])):
        facts["not_counted"] = draw(st.sampled_from([{"generate": ["by vLLM"]}, {"other": ["a judge"]}]))
    phases = st.sampled_from(["train", "evaluate", "generate", "other"])
    return facts, draw(st.dictionaries(phases, counters(), min_size=1, max_size=3))


@given(processes=st.lists(trainings(), min_size=1, max_size=3), same=st.booleans(), declared=declarations(st.none()))
def test_the_second_implementation_computes_the_flop_of_any_declared_training(
    processes: list[tuple[dict[str, Any], dict[str, dict[str, int]]]],
    same: bool,
    declared: OperatorDeclarations,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The architecture basis and the share of the work that counts, for one model or several, of one or many ranks."""

    story = trained([(processes[0][0] if same else facts, work) for facts, work in processes], declared=declared)
    journal = tmp_path_factory.mktemp("any") / "journal.jsonl"
    journal.write_bytes(tell(story))
    statement = statement_of(journal.read_bytes())
    found, said = recompute(journal, PEAKS, statement["predicate"]["method"]["sealedAt"]), stated(statement)
    assert found["architecture"] == said["architecture"]
    assert found["guidelines"] == said["guidelines"]
    assert (found["architecture"] is None) == all("role" in facts for facts, _ in processes[: 1 if same else None])
