"""Merging node ledgers: the content of the sum, and that nothing is counted twice, missing or accepted without
reason."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flopsd.attestation.merge.merge import missing_text
from flopsd.attestation.seal import seal_journal
from flopsd.attestation.signing.dsse import sign
from flopsd.attestation.signing.keys import ensure_key, load_signer
from flopsd.attestation.signing.public_key import load_public
from flopsd.core.envelope import encode_envelope, parse_envelope
from flopsd.core.ledger.merged_completeness import MAX_LISTED
from flopsd.core.ledger.statement import PAYLOAD_TYPE, encode
from flopsd.core.model import GapReason
from flopsd.core.notes import note
from flopsd.errors import LedgerError, NotVerifiedError
from flopsd.report.ledger_text import merged_text
from flopsd.settings.data_files import load_policies
from flopsd.settings.platform import Context
from flopsd.settings.words import say, say_all
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.second_implementation.arithmetic import payload_of
from tests.support.jobs import Nodes, gpus, plain, sagemaker, slurm
from tests.support.process import in_process
from tests.support.runs import Run, finished

THREE = ("algo-1", "algo-2", "algo-3")


def predicate(ledger: Path) -> dict[str, Any]:
    found: dict[str, Any] = payload_of(ledger)["predicate"]
    return found


def test_a_job_with_time_between_daemon_starts_says_so(nodes: Nodes) -> None:
    def node(rank: int, end: Callable[[Run], object], step_s: int = 0, seconds: int = 2) -> Path:
        context = sagemaker(rank, THREE)
        run = Run(nodes.folder / context.node, devices=gpus(context.node), context=context, run_id="train-7")
        run.meter(3)
        end(run)
        run.clock.advance(7 * NS_PER_S)
        run.clock.step_wall(step_s * NS_PER_S)
        run.start()
        run.clock.advance(1_000_000)  # a segment must last some time
        run.meter(seconds)
        assert run.writer.rotate()
        run.meter(3)
        run.finish()
        segments = [*run.state.segments.iterdir(), run.state.journal]
        for number, journal in enumerate(segments):
            seal_journal(journal, nodes.key, nodes.folder / "ledgers" / f"{rank}-{number}.json", run.clock)
        return nodes.folder / "ledgers"

    node(0, Run.kill), node(1, Run.finish, step_s=-90), node(2, Run.finish, seconds=0)
    merged = nodes.merge(nodes.folder / "ledgers")
    words = "STOPPED: no daemon ran for 14 s between its starts on algo-2, algo-3: what the devices did then is in no"
    assert merged.completeness.complete
    assert words in " ".join(merged_text(merged).split())
    given = (str(merged.ledger), "--key", str(merged.public_key))
    assert words in " ".join(in_process("verify", *given, code=0).stdout.split())
    assert words.partition(" ")[2] in " ".join(in_process("report", *given, code=0).stdout.split())


def test_a_policy_of_the_children_not_applied_to_the_sum_is_named(nodes: Nodes) -> None:
    one = nodes.ledger(sagemaker(0, ("algo-1",)), policies=load_policies(["eu-ai-act", "us-ca-sb-53"]))
    job = nodes.merge(one).ledger
    assert "some ledgers were also judged by the policy us-ca-sb-53, the sum was not" in "".join(nodes.notes)
    nodes.merge(job, kind="lineage", lineage="m", ledger=nodes.folder / "m.json", policy_files=["kr-ai-basic-act"])
    assert "also judged by the policy eu-ai-act" in "".join(nodes.notes)
    nodes.merge(one, policy_files=["us-ca-sb-53", "eu-ai-act"])
    assert nodes.notes == []
    (other := nodes.folder / "other.yaml").write_text("#")
    nodes.merge(one, policy_files=["us-ca-sb-53", "eu-ai-act"], peaks_files=[str(other)])
    assert nodes.notes == [f"{other} was not used: no ledger was rated by it"]


def test_a_quiet_merge_prints_nothing(nodes: Nodes) -> None:
    one, job = nodes.ledger(sagemaker(0, ("algo-1",))), nodes.folder / "job.json"
    command = ("merge", str(one), "--trust", str(nodes.public), "--key", nodes.key, "--ledger", str(job))
    done = in_process(*command, "--quiet", code=0)
    assert (done.stdout, done.stderr) == ("", "")
    assert job.exists()


def test_a_job_is_the_exact_sum_of_its_nodes(nodes: Nodes) -> None:
    one, two = nodes.ledger(sagemaker(0), seconds=7), nodes.ledger(sagemaker(1), seconds=5, devices=gpus("algo-2", 3))
    job = predicate(nodes.merge(one, two).ledger)
    children = [predicate(ledger) for ledger in (one, two)]
    for figure in ("low", "measured", "high"):
        assert job["totals"]["executed"][figure] == str(sum(int(c["totals"]["executed"][figure]) for c in children))
    assert job["kind"] == "job"
    assert (job["run"]["id"], job["jobNodes"]) == ("train-7", ["algo-1", "algo-2"])
    assert job["deviceSeconds"] == "29.000000000"
    assert job["nodeSeconds"] == "12.000000000"
    assert job["energyJoules"] == f"{sum(float(c['energyJoules']) for c in children):.3f}"
    assert job["coverage"]["coveragePpm"] == "1000000"
    assert job["completeness"]["complete"] is True
    assert [(n["name"], n["rank"], n["devices"], n["ledgers"]) for n in job["nodes"]] == [
        ("algo-1", 0, "2", "1"),
        ("algo-2", 1, "3", "1"),
    ]
    assert job["method"]["peakTableSha256"] == [children[0]["method"]["peakTableSha256"]]


@pytest.mark.parametrize("count", [MAX_LISTED - 1, MAX_LISTED, MAX_LISTED + 2])
def test_a_message_names_the_first_missing_ledgers_and_counts_the_rest(count: int) -> None:
    missing = [note("no_ledger", node=f"node-{number}", rank=str(number)) for number in range(count)]
    said = missing_text(missing)
    assert [f"node-{number}" in said for number in range(count)] == [number < MAX_LISTED for number in range(count)]
    assert said.endswith("; and 2 more") == (count > MAX_LISTED)
    assert (" more" in said) == (count > MAX_LISTED)


def test_a_countersignature_on_a_child_does_not_change_the_merged_ledger(nodes: Nodes) -> None:
    one, two = nodes.ledger(sagemaker(0)), nodes.ledger(sagemaker(1))
    before = nodes.merge(one, two).ledger.read_bytes()
    envelope = parse_envelope(one.read_bytes())
    other, _ = ensure_key(None, nodes.folder / "state")
    more = parse_envelope(sign(envelope.payload, load_signer(other))).signatures
    one.write_bytes(encode_envelope(envelope.payload, PAYLOAD_TYPE, [*more, *envelope.signatures]))
    after = nodes.merge(one, two).ledger
    assert after.read_bytes() == before
    assert payload_of(after)["subject"][0]["digest"]["sha256"] == hashlib.sha256(envelope.payload).hexdigest()


def test_a_merged_ledger_has_the_usual_envelope_and_names_only_trusted_keys(nodes: Nodes) -> None:
    ledger = nodes.merge(nodes.ledger(sagemaker(0, ("algo-1",)))).ledger
    envelope = parse_envelope(ledger.read_bytes())
    assert ledger.read_bytes() == encode_envelope(envelope.payload, PAYLOAD_TYPE, list(envelope.signatures))
    json.loads(envelope.payload, parse_float=lambda text: pytest.fail(f"float {text}"))
    assert predicate(ledger)["children"][0]["keyids"] == [load_public(str(nodes.public)).keyid]


# Inputs that must be refused, each with its reason.


Given = Sequence[tuple[Context, dict[str, Any]]]


def one(context: Context, **how: Any) -> tuple[Context, dict[str, Any]]:
    """How one node's ledger is made."""
    return context, how


MISSING = (one(sagemaker(0, THREE)), one(sagemaker(2, THREE)))


def made(nodes: Nodes, given: Given) -> list[Path]:
    return [nodes.ledger(context, **how) for context, how in given]


def same_file(nodes: Nodes) -> list[Path]:
    ledger = nodes.ledger(sagemaker(0))
    return [ledger, nodes.ledger(sagemaker(1)), ledger]


def copied(nodes: Nodes) -> list[Path]:
    ledger = nodes.ledger(sagemaker(0))
    shutil.copytree(ledger.parent, nodes.folder / "copy")
    return [ledger, nodes.ledger(sagemaker(1)), nodes.folder / "copy" / "ledger.json"]


def earlier_state(nodes: Nodes) -> list[Path]:
    run = Run(nodes.folder / "s", devices=gpus("algo-1"), context=sagemaker(0, ("algo-1",)), run_id="train-7")
    run.meter(20)
    early = run.seal(nodes.folder / "early" / "ledger.json", nodes.key).ledger
    run.meter(20)
    run.finish()
    return [early, run.seal(nodes.folder / "late" / "ledger.json", nodes.key).ledger]


def job_as_node(nodes: Nodes) -> list[Path]:
    return [nodes.merge(nodes.ledger(sagemaker(0)), nodes.ledger(sagemaker(1)), ledger=nodes.folder / "j.json").ledger]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (MISSING, r"the job is incomplete: rank 1 \(algo-2\): no ledger"),
        (same_file, "the same ledger is given twice: .*algo-1/ledger.json and .*algo-1/ledger.json"),
        (copied, "the same ledger is given twice: .*copy/ledger.json and .*algo-1/ledger.json"),
        ([one(sagemaker(0)), one(sagemaker(0, boot="b"), name="again", devices=gpus("other"), later=2), one(sagemaker(1))],
         "node 'algo-1' is given twice for the same time: .*ledger.json and .*ledger.json"),
        (earlier_state, "node 'algo-1' is given twice for the same time: .*early/ledger.json"),
        ([one(slurm(0)), one(replace(slurm(0), node="node-7", boot_id="x"))],
         "rank 0 is given twice for the same time: .*node-0/ledger.json and .*node-7/ledger.json"),
        ([one(sagemaker(0), devices=gpus("x")), one(sagemaker(1), devices=gpus("x"), later=3)],
         "device GPU-x-0 is counted twice at the same time: by .*algo-1/.* and .*algo-2/"),
        ([one(sagemaker(0)), one(sagemaker(1, job="train-8"))],
         "/ledger.json belongs to another job than .*: run.id is 'train-[78]', not 'train-[87]'"),
        ([one(sagemaker(0)), one(sagemaker(2, THREE))],
         "/ledger.json lists other nodes than .*: [23] nodes .*algo-2.*, not [23] nodes"),
        ([one(sagemaker(0)), one(replace(sagemaker(1), node="algo-9", rank=None))],
         "of node 'algo-9' with no rank, which is not among the job's nodes"),
        ([one(sagemaker(0)), one(replace(sagemaker(1), rank=5))],
         "gives node 'algo-2' rank 5; by the job's node list it has 1"),
        ([one(slurm(0)), one(slurm(2))], "the job is incomplete: rank 1: no ledger"),
        ([one(slurm(0)), one(slurm(0, attempt="1"), name="again", later=100), one(slurm(1))],
         r"rank 1 \(node-1\): no ledger of attempt '1'"),
        ([one(slurm(0, attempt="2")), one(slurm(1, attempt="2"))], r"rank 0 \(node-0\): no ledger of attempt '0'"),
        ([one(slurm(0)), one(slurm(0, attempt="2"), name="again", later=100)], r"rank 0 \(node-0\): no ledger of attempt '1'"),
        ([one(sagemaker(0)), one(sagemaker(0, boot="b"), name="again", later=100), one(sagemaker(1))],
         r"rank 1 \(algo-2\): attempts with a ledger: 1; of other nodes: 2"),
        (job_as_node, "j.json: this is a ledger of kind 'job', which cannot be part of a job"),
    ],
)  # fmt: skip
def test_ledgers_that_do_not_fit_together_are_refused(
    nodes: Nodes, given: Given | Callable[[Nodes], list[Path]], reason: str
) -> None:
    ledgers = given(nodes) if callable(given) else made(nodes, given)
    for order in (ledgers, ledgers[::-1]):
        with pytest.raises(LedgerError, match=reason) as caught:
            nodes.merge(*order)
        assert caught.value.hint
        if given is earlier_state:
            assert caught.value.hint == "they are of the same journal at two times: give the later one only"
        if "counted twice at the same time" in reason:
            assert "leave none out, and state the two separately" in str(caught.value.hint)
    assert not (nodes.folder / "out" / "job.json").exists()


def test_no_hint_suggests_leaving_out_a_ledger_of_other_devices(nodes: Nodes) -> None:
    """Two daemons share the devices of a node: without one of the two ledgers the job would be called complete."""
    half, other = (
        nodes.ledger(slurm(0), name=name, devices=gpus(name), later=later) for name, later in (("a", 0), ("b", 1))
    )
    with pytest.raises(LedgerError, match="node 'node-0' is given twice for the same time") as caught:
        nodes.merge(half, other, nodes=1)
    assert "if both metered the same devices" in caught.value.hint
    assert "--run-id" in caught.value.hint


def test_more_nodes_than_declared_are_refused(nodes: Nodes) -> None:
    ledgers = [nodes.ledger(plain(name), run_id="r") for name in ("a", "b")]
    with pytest.raises(LedgerError, match="ledgers of 2 nodes, of 1 that were declared"):
        nodes.merge(*ledgers, nodes=1)
    with pytest.raises(LedgerError, match="has rank 1: the job had more than 1 nodes"):
        nodes.merge(nodes.ledger(slurm(1)), nodes=1)
    with pytest.raises(LedgerError, match="name 2 nodes of the job, --nodes declares 3"):
        nodes.merge(nodes.ledger(sagemaker(0)), nodes=3)


def untrusted(nodes: Nodes, ledger: Path) -> None:
    key, _ = ensure_key(None, nodes.folder / "state")
    ledger.write_bytes(sign(parse_envelope(ledger.read_bytes()).payload, load_signer(key)))


def lie(nodes: Nodes, ledger: Path) -> None:
    document = payload_of(ledger)
    document["predicate"]["totals"]["executed"]["low"] = "1"
    ledger.write_bytes(sign(encode(document), load_signer(nodes.key)))


def lie_in_a_list(nodes: Nodes, ledger: Path) -> None:
    document = payload_of(ledger)
    document["predicate"]["incarnations"][0]["number"] = 7
    ledger.write_bytes(sign(encode(document), load_signer(nodes.key)))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (untrusted, "algo-2/ledger.json: signed by a different key"),
        (lie, "algo-2/ledger.json: the ledger does not match the journal: .*executed.low is \"1\", recomputed is"),
        (lie_in_a_list, r"incarnations\[0\].number is 7, recomputed is 1"),
        (lambda _, ledger: ledger.with_name("ledger.journal.jsonl").unlink(), "algo-2/ledger.json: .*no total can be"),
        (lambda _, ledger: ledger.write_bytes(ledger.read_bytes()[:-9]), "algo-2/ledger.json: the ledger is not JSON"),
    ],
    ids=["untrusted", "lie", "lie in a list", "no journal", "cut"],
)  # fmt: skip
def test_an_untrusted_child_is_named(nodes: Nodes, spoil: Callable[[Nodes, Path], None], reason: str) -> None:
    one, two = nodes.ledger(sagemaker(0)), nodes.ledger(sagemaker(1))
    spoil(nodes, two)
    for arguments in ((one, two), (nodes.folder / "ledgers",)):
        with pytest.raises(NotVerifiedError, match=reason):
            nodes.merge(*arguments)


def test_a_replay_is_refused_or_marked(nodes: Nodes) -> None:
    ledgers = [nodes.ledger(sagemaker(0)), nodes.ledger(sagemaker(1), replay=True)]
    with pytest.raises(NotVerifiedError, match="algo-2/ledger.json: this ledger is a replay"):
        nodes.merge(*ledgers)
    merged = nodes.merge(*ledgers, allow_replay=True)
    assert merged.predicate["replay"] == {"children": "1"}


def test_without_a_stated_number_of_nodes_the_maximum_is_unknown(nodes: Nodes) -> None:
    ledgers = [nodes.ledger(plain(name), run_id="r") for name in ("a", "b")]
    reported: list[tuple[str, int, int]] = []
    merged = nodes.merge(*ledgers, progress=lambda *words: reported.append(words))
    assert reported == [("ledgers verified:", 1, 0), ("ledgers verified:", 2, 0), ("adding up ledgers:", 2, 0)]
    advice = "if you know how many nodes the job had, merge again with --nodes N"
    assert advice in merged_text(merged)
    assert merged.completeness.complete is None
    assert merged.predicate["totals"]["executed"]["high"] is None
    shown = nodes.merge(*ledgers, nodes=2)
    assert advice not in merged_text(shown)
    assert "That the job had 2 nodes was declared at the merge: no" in merged_text(shown)
    assert shown.completeness.complete is True
    assert shown.predicate["totals"]["executed"]["high"] is not None
    assert shown.predicate["completeness"]["declaredNodes"] == "2"
    with pytest.raises(LedgerError, match="1 of 3 nodes: no ledger; which ranks they had is not known"):
        nodes.merge(*ledgers, nodes=3)
    ranked = [nodes.ledger(slurm(rank)) for rank in (0, 1)]
    assert nodes.merge(*ranked, ledger=nodes.folder / "ranked.json").completeness.complete is None
    with pytest.raises(LedgerError, match="rank 2: no ledger; rank 3: no ledger"):
        nodes.merge(*ranked, nodes=4, ledger=nodes.folder / "ranked.json")


def killed(nodes: Nodes, rank: int, hosts: tuple[str, ...] = ("algo-1", "algo-2"), **how: object) -> tuple[Run, Path]:
    """A node killed ten seconds after its last rolling ledger, which is all that remains of it."""
    folder = nodes.folder / "state" / f"killed-{rank}"
    run = Run(folder, devices=gpus(hosts[rank]), context=sagemaker(rank, hosts), run_id="train-7", **how)  # type: ignore[arg-type]
    run.meter(10)
    out = nodes.folder / "ledgers" / f"killed-{rank}" / "ledger.json"
    ledger = seal_journal(run.state.journal, nodes.key, out, run.clock, live=True, rolling=True).ledger
    run.meter(10)
    run.kill()
    return run, ledger


def test_a_node_killed_at_an_unknown_time_leaves_no_maximum(nodes: Nodes) -> None:
    ledgers = [nodes.ledger(sagemaker(0)), killed(nodes, 1)[1]]
    merged = nodes.merge(*ledgers)
    assert merged.completeness.complete is None
    (hole,) = merged.completeness.missing
    words = say("completeness.missing", hole)
    assert re.fullmatch(
        r"rank 1 \(algo-2\): no end in ledger algo-2/\w{16}, and what it did after 2\S+ is not known", words
    )
    executed = merged.predicate["totals"]["executed"]
    assert executed["high"] is None
    assert executed["low"] == str(sum(int(predicate(one)["totals"]["executed"]["low"]) for one in ledgers))
    assert "below" not in {finding["state"] for finding in merged.predicate["findings"]}
    assert merged.predicate["completeness"]["summary"] == "no_end"
    lineage = nodes.merge(merged.ledger, kind="lineage", lineage="m", ledger=nodes.folder / "l.json")
    assert (lineage.completeness.complete, lineage.predicate["totals"]["executed"]["high"]) == (None, None)
    assert "--nodes N" not in merged_text(lineage)
    assert say_all("completeness.missing", lineage.completeness.missing) == f"job train-7: {words}"
    assert lineage.predicate["completeness"]["summary"] == "jobs_no_end"


def test_an_unended_lone_node_leaves_its_lineage_incomplete(nodes: Nodes) -> None:
    hosts = ("algo-1",)
    _, ledger = killed(nodes, 0, hosts)
    later = nodes.ledger(sagemaker(0, hosts, boot="b"), "again", devices=gpus("b"), later=300)
    lineage = nodes.merge(ledger, kind="lineage", lineage="m", ledger=nodes.folder / "m.json")
    for merged in (lineage, nodes.merge(ledger, later)):
        assert (merged.completeness.complete, merged.predicate["totals"]["executed"]["high"]) == (None, None)


def test_a_killed_attempt_that_a_later_one_continues_has_a_maximum(nodes: Nodes) -> None:
    run, _ = killed(nodes, 1)
    run.context = replace(run.context, boot_id="boot-of-another-machine", attempt="boot-of-another-machine")
    run.clock = FakeClock(20 * 10**9, run.clock.wall_ns() + 300 * 10**9)
    run.start()
    run.meter(5)
    run.finish()
    two = run.seal(nodes.folder / "late" / "ledger.json", nodes.key).ledger
    first = nodes.ledger(sagemaker(0))
    again = nodes.ledger(sagemaker(0, boot="b"), "again", devices=gpus("again"), later=400)
    merged = nodes.merge(first, again, two)
    assert merged.completeness.complete is True
    assert predicate(two)["coverage"]["gapSecondsByReason"] == {"daemon_down": "600.000000000"}
    assert merged.predicate["totals"]["executed"]["high"] is not None


def test_a_restart_on_the_same_devices_is_added_only_if_it_came_later(nodes: Nodes) -> None:
    hosts = ("algo-1",)
    first = nodes.ledger(sagemaker(0, hosts, boot="one"), "a", seconds=10)
    assert nodes.merge(first, nodes.ledger(sagemaker(0, hosts, boot="two"), "b", later=10)).ledgers == 2
    with pytest.raises(LedgerError, match="given twice for the same time"):
        nodes.merge(first, nodes.ledger(sagemaker(0, hosts, boot="two"), "c", later=9))


def test_devices_without_unique_names_are_distinguished_by_node(nodes: Nodes) -> None:
    chips = [(replace(gpus("x", 1)[0], uid="neuron0", serial=None),) for _ in range(2)]
    job = nodes.merge(*(nodes.ledger(sagemaker(rank), devices=chips[rank]) for rank in (0, 1)))
    (times, *_) = predicate(job.ledger)["children"][1]["deviceTimes"]
    assert times["devices"] == ["algo-2/neuron0"]


def test_a_device_that_belonged_to_another_job_meanwhile_is_not_counted_twice(nodes: Nodes) -> None:
    hosts = ("algo-1",)
    shared = gpus("algo-1", 1)
    runs = [Run(nodes.folder / n, devices=shared, context=sagemaker(0, hosts, job=n), run_id=n) for n in ("a", "b")]
    runs[0].meter(5)
    runs[0].meter(5, GapReason.OTHER_JOB)
    runs[1].meter(5, GapReason.OTHER_JOB)
    runs[1].meter(5)
    jobs = []
    for name, run in zip(("a", "b"), runs, strict=True):
        run.finish()
        ledger = run.seal(nodes.folder / "ledgers" / name / "ledger.json", nodes.key).ledger
        jobs.append(nodes.merge(ledger, ledger=nodes.folder / f"{name}.json").ledger)
    lineage = nodes.merge(*jobs, kind="lineage", lineage="m")
    assert lineage.predicate["lineage"]["runs"] == ["a", "b"]


def test_only_the_output_of_an_earlier_merge_is_overwritten(nodes: Nodes) -> None:
    one, two = nodes.ledger(sagemaker(0)), nodes.ledger(sagemaker(1))
    job = nodes.merge(one, two).ledger
    assert nodes.merge(one, two, ledger=job).ledger == job
    trusted = nodes.folder / "trusted.pub"
    trusted.write_bytes(b"somebody's key")
    (nodes.folder / "own").mkdir()
    os.mkfifo(nodes.folder / "fifo.pub")
    for ledger, why in (
        (nodes.folder / "fifo.json", "is a different public key"),
        (one, "is not a merged ledger"),
        (nodes.folder / "trusted.json", "is a different public key"),
        (nodes.folder / "job.pub", "is also the name of its public key"),
        (nodes.folder / "own", "is a folder"),
    ):
        before = {path: path.read_bytes() for path in nodes.folder.rglob("*") if path.is_file()}
        with pytest.raises(LedgerError, match=why):
            nodes.merge(one, two, ledger=ledger)
        assert {path: path.read_bytes() for path in nodes.folder.rglob("*") if path.is_file()} == before


def test_a_merge_replaces_no_ledger_of_another_job_or_lineage(nodes: Nodes) -> None:
    alone = nodes.ledger(plain("a"), run_id="a")
    jobs = [nodes.merge(alone, nodes=1, ledger=nodes.folder / "a.json").ledger]
    jobs += [nodes.merge(nodes.ledger(plain("b"), run_id="b"), nodes=1, ledger=nodes.folder / "b.json").ledger]
    lineage = nodes.merge(*jobs, kind="lineage", lineage="m", ledger=nodes.folder / "m.json").ledger
    before = [path.read_bytes() for path in (*jobs, lineage)]
    with pytest.raises(LedgerError, match="is the ledger of a job, not of a lineage"):
        nodes.merge(*jobs, kind="lineage", lineage="m", ledger=jobs[0])
    with pytest.raises(LedgerError, match="is the ledger of a lineage, not of a job"):
        nodes.merge(alone, nodes=1, ledger=lineage)
    with pytest.raises(LedgerError, match="is the ledger of the job 'b', not of 'a'"):
        nodes.merge(alone, nodes=1, ledger=jobs[1])
    with pytest.raises(LedgerError, match="is the ledger of the lineage 'm', not of 'n'"):
        nodes.merge(*jobs, kind="lineage", lineage="n", ledger=lineage)
    assert [path.read_bytes() for path in (*jobs, lineage)] == before


def test_a_child_with_fields_that_no_daemon_writes_is_refused_by_name(nodes: Nodes) -> None:
    """A holder of a trusted key can sign any field; it must not end in a traceback, here or in the sum."""
    run = finished(
        nodes.folder / "s", 1, devices=gpus("algo-1"), context=replace(sagemaker(0), rank=2**40), run_id="train-7"
    )
    ledger = run.seal(nodes.folder / "l" / "ledger.json", nodes.key).ledger
    with pytest.raises(LedgerError, match="l/ledger.json: 1099511627776 is not a rank"):
        nodes.merge(ledger)
    job = nodes.merge(nodes.ledger(sagemaker(0, ("algo-1",))), ledger=nodes.folder / "job.json").ledger
    document = payload_of(job)
    document["predicate"]["children"][0]["periods"] = []
    job.write_bytes(sign(encode(document), load_signer(nodes.key)))
    with pytest.raises(NotVerifiedError, match="job.json: this is not what `flopsd merge` writes|job.json: "):
        nodes.merge(job, kind="lineage", lineage="m")
