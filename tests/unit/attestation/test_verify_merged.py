"""Merged ledgers as a verifier sees them: added up again, and compared with the available children; and the maximum
size of each part of a ledger."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from flopsd.attestation.merge import large_statement, streamed_envelope
from flopsd.attestation.merge.large_statement import ChildLines, parse_statement
from flopsd.attestation.merge.ledger_folders import most_bytes
from flopsd.attestation.merge.read_child import claimed_again
from flopsd.attestation.merge.streamed_envelope import sign_statement
from flopsd.attestation.merge.verify_merged import ChildrenChecked, VerifiedMerge, verify_merged
from flopsd.attestation.signed_statement import open_ledger
from flopsd.attestation.signing.dsse import sign, verify_signatures
from flopsd.attestation.signing.keys import ensure_key, load_signer
from flopsd.attestation.signing.public_key import load_public
from flopsd.attestation.verify import verify_ledger
from flopsd.core.envelope import encode_envelope, parse_envelope
from flopsd.core.ledger.statement import encode
from flopsd.errors import LedgerError, NotVerifiedError
from flopsd.report.ledger_text import merged_text, verified_merge_text, verified_text
from tests.second_implementation.arithmetic import payload_of
from tests.support.jobs import Nodes, gpus, plain, sagemaker, slurm
from tests.support.process import in_process
from tests.support.runs import Run


def verify(nodes: Nodes, ledger: Path, *children: Path, **how: Any) -> VerifiedMerge:
    opened = open_ledger(ledger, [load_public(str(nodes.public))])
    return verify_merged(opened, children=[str(child) for child in children], **how)


def held(nodes: Nodes, ledger: Path, *children: Path) -> ChildrenChecked:
    found = verify(nodes, ledger, *children).children
    assert found is not None
    return found


def two(nodes: Nodes, **how: Any) -> Path:
    return nodes.merge(nodes.ledger(sagemaker(0)), nodes.ledger(sagemaker(1)), **how).ledger


@pytest.mark.parametrize(("children", "again"), [("ab", []), ("aa", [0, 1]), ("aba", [0, 2]), ("abba", [0, 1, 2, 3])])
def test_children_claimed_more_than_once_are_detected(children: str, again: list[int]) -> None:
    entries = [{"sha256": name, "name": name, "periods": [], "deviceTimes": []} for name in children]
    assert [claimed.child for claimed in claimed_again(entries)] == again


def test_a_large_job_is_verified_and_merged_in_parts(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    job = two(nodes)

    def lineage(name: str) -> Any:
        path = nodes.merge(job, kind="lineage", lineage="l", ledger=nodes.folder / name).ledger
        predicate = payload_of(path)["predicate"]
        return {**predicate, "method": {**predicate["method"], "sealedAt": ""}}

    at_once = lineage("one.json")
    monkeypatch.setattr(large_statement, "MANY_BYTES", 0)
    assert lineage("other.json") == at_once
    in_process("verify", str(job), "--key", str(nodes.public), "--json", code=0)
    opened = open_ledger(job, [load_public(str(nodes.public))], parse=parse_statement)
    assert isinstance(opened.statement["predicate"]["children"], ChildLines)
    found = verify_merged(opened, children=[str(nodes.folder / "ledgers")])
    assert found.children is not None
    assert (found.children.given, found.children.recomputed) == (2, 2)


def test_a_job_ledger_verifies_alone_and_with_any_available_children(nodes: Nodes) -> None:
    ledger, ledgers = two(nodes), nodes.folder / "ledgers"
    alone = verify(nodes, ledger)
    assert alone.children is None
    assert "of were not checked" in verified_merge_text(alone)
    seen = held(nodes, ledger, ledgers)
    assert (seen.given, seen.recomputed, seen.missing, seen.others) == (2, 2, (), ())
    reported = list[tuple[str, int, int]]()
    verify(nodes, ledger, ledgers, progress=lambda *words: reported.append(words))
    assert reported == [("adding up", 0, 0), ("checking its children", 1, 2), ("checking its children", 2, 2)]
    part = verify(nodes, ledger, ledgers / "algo-1")
    (missing,) = held(nodes, ledger, ledgers / "algo-1").missing
    assert missing.startswith("algo-2/")
    assert f"  not given   {missing}" in verified_merge_text(part)
    nodes.ledger(sagemaker(0, job="other"), "other")
    assert [Path(label).parent.name for label in held(nodes, ledger, ledgers).others] == ["other"]
    assert "  no part" in verified_merge_text(verify(nodes, ledger, ledgers))
    (ledgers / "algo-1" / "ledger.journal.jsonl").unlink()
    seen = held(nodes, ledger, ledgers)
    assert (seen.given, seen.recomputed) == (2, 1), "a child without its journal is known by its digest only"
    shutil.copytree(ledgers / "algo-2", ledgers / "copy")
    seen = held(nodes, ledger, ledgers)
    assert (seen.given, seen.recomputed) == (2, 1), "a child that is given twice is one child"


def test_a_child_that_changed_after_the_merge_is_found(nodes: Nodes) -> None:
    ledger, ledgers = two(nodes), nodes.folder / "ledgers"
    child, journal = (ledgers / "algo-2" / name for name in ("ledger.json", "ledger.journal.jsonl"))
    whole = journal.read_bytes()
    journal.write_bytes(whole.replace(b"algo-2", b"algo-3"))
    with pytest.raises(NotVerifiedError, match=r"algo-2/ledger.json: journal line 1: its hash does not continue"):
        verify(nodes, ledger, ledgers)
    journal.write_bytes(whole)
    child.write_bytes(child.read_bytes()[:-10])
    with pytest.raises(NotVerifiedError, match=r"algo-2/ledger.json: .*not JSON"):
        verify(nodes, ledger, ledgers)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: p["children"][0].pop("totals"), "fields that `flopsd merge` does not write: 'totals' is missing or not known"),
        (lambda p: p["children"][0]["deviceTimes"][0].update(endNs="0"), "ends before it begins"),
        (lambda p: p["children"][1].update(completeness={"complete": True, "missing": []}), "a child of a job must not"),
    ],
)  # fmt: skip
def test_a_lying_merger_is_found_by_adding_up(
    nodes: Nodes, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    """Lies that no published vector has: the others are in tests/vectors/merged."""
    ledger = two(nodes)
    document = payload_of(ledger)
    change(document["predicate"])
    ledger.write_bytes(sign(encode(document), load_signer(nodes.key)))
    with pytest.raises(NotVerifiedError, match=reason):
        verify(nodes, ledger)


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b'{"predicate": []}',
        b'{"predicate": {"kind": "other"}}',
        b'{"predicate": {"kind": "node", "run": {}, "node": {"name": "n", "jobNodes": 7}}}',
    ],
)
@pytest.mark.parametrize("kind", ["node", "job"])
def test_an_entry_for_a_file_that_is_no_ledger_of_its_kind_is_refused(nodes: Nodes, payload: bytes, kind: str) -> None:
    ledger = two(nodes) if kind == "node" else lineage(nodes, "a")
    document, digest, key = payload_of(ledger), sha256(payload).hexdigest(), load_signer(nodes.key)
    entry, subject = document["predicate"]["children"][0], document["subject"][0]
    entry["name"] = subject["name"] = entry["name"].replace(entry["sha256"][:16], digest[:16])
    entry["sha256"] = subject["digest"]["sha256"] = digest
    ledger.write_bytes(sign(encode(document), key))
    child = nodes.folder / "child.json"
    child.write_bytes(sign(payload, key))
    with pytest.raises(NotVerifiedError, match=r"child\.json"):
        verify(nodes, ledger, child)


def test_a_ledger_is_not_accepted_as_one_of_another_kind(nodes: Nodes) -> None:
    with pytest.raises(NotVerifiedError, match="ledger of kind 'job'; only the ledger of a node has a journal"):
        verify_ledger(open_ledger(two(nodes), [load_public(str(nodes.public))]))
    with pytest.raises(NotVerifiedError, match="kind 'node', not a merged one"):
        verify(nodes, nodes.folder / "ledgers" / "algo-1" / "ledger.json")
    above = lineage(nodes, "a", ledger=nodes.folder / "lineage.json")
    with pytest.raises(LedgerError, match="kind 'lineage', which cannot be part of a lineage"):
        nodes.merge(above, kind="lineage", lineage="m", ledger=nodes.folder / "m.json")


def test_a_daemon_that_was_killed_at_once_has_a_period_without_length(nodes: Nodes) -> None:
    run = Run(nodes.folder / "state" / "algo-1", devices=gpus("algo-1"), context=sagemaker(0), run_id="train-7")
    run.restart(1)
    run.meter(5)
    run.finish()
    restarted = run.seal(nodes.folder / "ledgers" / "algo-1" / "ledger.json", nodes.key).ledger
    ledger = nodes.merge(restarted, nodes.ledger(sagemaker(1))).ledger
    killed, _ = payload_of(ledger)["predicate"]["children"][0]["periods"]
    assert killed["beginNs"] == killed["endNs"]
    assert held(nodes, ledger, nodes.folder / "ledgers").recomputed == 2


def test_a_merge_of_replays_is_no_evidence(nodes: Nodes) -> None:
    one = nodes.ledger(sagemaker(0, ("algo-1",)), replay=True)
    merged = nodes.merge(one, allow_replay=True)
    replayed = "1 of its 1 ledgers has figures of recordings, for which no hardware was metered"
    assert f"REPLAY: {replayed}" in " ".join(merged_text(merged).split())
    assert "--allow-replay" in merged_text(merged)
    own = merged.ledger.with_name("my own.policy-0.yaml")
    renamed = replace(merged, ledger=merged.ledger.with_name("my own.json"), companions=[own])
    assert f"--policy '{own}'" in merged_text(renamed)
    with pytest.raises(NotVerifiedError, match=replayed):
        verify(nodes, merged.ledger)
    assert verify(nodes, merged.ledger, allow_replay=True).replay


def test_a_replay_beside_a_ledger_of_hardware_is_in_the_sums_and_named(nodes: Nodes) -> None:
    ledgers = [nodes.ledger(sagemaker(rank), replay=rank == 1) for rank in (0, 1)]
    merged = nodes.merge(*ledgers, allow_replay=True)
    figures = [payload_of(one)["predicate"]["totals"]["executed"] for one in (merged.ledger, *ledgers)]
    for bound in ("low", "measured", "high"):
        whole, *parts = (int(one[bound]) for one in figures)
        assert whole == sum(parts)
    replayed = (
        "1 of its 2 ledgers has figures of recordings, for which no hardware was metered: the sums are not evidence"
    )
    command = [str(merged.ledger), "--key", str(merged.public_key), "--allow-replay"]
    for verb in ("verify", "report"):
        assert f"REPLAY: {replayed}." in " ".join(in_process(verb, *command, code=0).stdout.split())
    form = in_process("report", *command, "--format", "form", code=0).stdout
    assert "Figures of a ledger with recordings: not fit for filing." in form


def lineage(nodes: Nodes, *names: str, **how: Any) -> Path:
    jobs = []
    for at, name in enumerate(names):
        node = nodes.ledger(
            sagemaker(0, ("algo-1",), job=name, boot=f"boot-{name}"), f"n-{name}", devices=gpus(name), later=100 * at
        )
        jobs.append(nodes.merge(node, ledger=nodes.folder / f"{name}.json").ledger)
    return nodes.merge(*jobs, kind="lineage", lineage="model-1", **how).ledger


def test_a_lineage_is_the_sum_of_its_jobs(nodes: Nodes) -> None:
    ledger = lineage(nodes, "pretrain", "tune")
    found, seen = verify(nodes, ledger, nodes.folder), held(nodes, ledger, nodes.folder)
    predicate = found.statement["predicate"]
    assert (seen.given, seen.recomputed, seen.added_up, seen.missing) == (2, 0, 2, ())
    assert predicate["lineage"] == {"name": "model-1", "runs": ["pretrain", "tune"]}
    jobs = [payload_of(nodes.folder / f"{name}.json")["predicate"] for name in ("pretrain", "tune")]
    for figure in ("low", "measured", "high"):
        assert predicate["totals"]["executed"][figure] == str(sum(int(j["totals"]["executed"][figure]) for j in jobs))
    assert predicate["completeness"]["complete"] is True
    text = " ".join(verified_merge_text(found).split())
    assert "lineage model-1: 2 jobs" in text
    assert "no ledger shows whether there are others" in text
    assert "0 of them recomputed. Of 2 jobs only the entries in the job's own ledger were added up again" in text
    assert "stated in its own ledger, by its nodes or by whoever merged them" in text


def test_a_lineage_of_incomplete_jobs_is_incomplete(nodes: Nodes) -> None:
    job = nodes.merge(nodes.ledger(sagemaker(0)), allow_incomplete=True, ledger=nodes.folder / "j.json").ledger
    with pytest.raises(LedgerError, match=r"the lineage is incomplete: job train-7: rank 1 \(algo-2\): no ledger"):
        nodes.merge(job, kind="lineage", lineage="m")
    merged = nodes.merge(job, kind="lineage", lineage="m", allow_incomplete=True)
    assert merged.completeness.complete is False
    assert merged.predicate["totals"]["executed"]["high"] is None
    assert "INCOMPLETE" in merged_text(merged)
    assert "missing     job train-7: rank 1 (algo-2): no ledger" in merged_text(merged)
    verify(nodes, merged.ledger)
    unknown = nodes.merge(nodes.ledger(plain("h"), run_id="r"), ledger=nodes.folder / "u.json").ledger
    assert nodes.merge(unknown, kind="lineage", lineage="m").completeness.complete is None


def test_a_single_node_is_a_whole_job_and_a_part_of_a_job_is_not(nodes: Nodes) -> None:
    whole = nodes.ledger(sagemaker(0, ("algo-1",), job="small"), "small", devices=gpus("small"))
    merged = nodes.merge(whole, kind="lineage", lineage="m")
    assert merged.completeness.complete is True
    assert held(nodes, merged.ledger, whole.parent).recomputed == 1
    with pytest.raises(LedgerError, match="one node of job 'train-7', which has 2 nodes") as caught:
        nodes.merge(nodes.ledger(sagemaker(0)), kind="lineage", lineage="m")
    assert "merge the job first" in caught.value.hint
    with pytest.raises(LedgerError, match="which has an unknown number of nodes") as caught:
        nodes.merge(nodes.ledger(plain("h"), run_id="r"), kind="lineage", lineage="m")
    assert "--nodes N" in caught.value.hint


def test_a_job_is_in_a_lineage_only_once(nodes: Nodes) -> None:
    lineage(nodes, "a", "b")
    again = shutil.copy(nodes.folder / "a.json", nodes.folder / "copy.json")
    with pytest.raises(LedgerError, match="the same ledger is given twice"):
        nodes.merge(nodes.folder / "a.json", again, kind="lineage", lineage="m")
    more = [nodes.folder / "ledgers" / "n-a" / "ledger.json"]
    more.append(nodes.ledger(sagemaker(0, ("algo-1",), job="a", boot="b2"), "second", devices=gpus("z"), later=50))
    both = nodes.merge(*more, ledger=nodes.folder / "both.json").ledger
    for given in ([nodes.folder / "a.json", both], [both, nodes.folder / "a.json"]):
        with pytest.raises(LedgerError, match="the same ledger is given twice: .*/(a|both).json and .*/(a|both).json"):
            nodes.merge(*given, kind="lineage", lineage="m")
    overlapping = nodes.ledger(sagemaker(0, ("algo-1",), job="a", boot="b3"), "third", devices=gpus("y"), later=2)
    with pytest.raises(LedgerError, match="job 'a' is given twice for the same time"):
        nodes.merge(nodes.folder / "a.json", overlapping, kind="lineage", lineage="m")


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("node-0.json", 67_108_864),
        ("node-0.rolling.json", 67_108_864),
        ("node-0.journal.jsonl", 2_147_483_648),
        ("node-0.peaks-0123456789abcdef.yaml", 1_048_576),
        ("node-0.policy-0123456789abcdef.yaml", 1_048_576),
        ("node-0.policy-0123456789abcde.yaml", None),
        ("policy-0123456789abcdef.yaml", None),
        ("node-0.pub", None),
        (".node-0.json", None),
        ("node-0.yaml", None),
    ],
)
def test_each_part_of_a_ledger_has_a_size_limit(name: str, most: int | None) -> None:
    assert most_bytes(name) == most


def test_a_merged_ledger_never_exceeds_the_size_a_verifier_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 100_000
    monkeypatch.setattr(streamed_envelope, "MAX_ENVELOPE_BYTES", limit)
    made, _ = ensure_key(None, tmp_path)
    key = load_signer(made)
    ledger = tmp_path / "merged.json"

    def written(size: int) -> bool:
        try:
            sign_statement({"text": "x" * size}, key, ledger, tmp_path)
        except LedgerError as fault:
            assert "at most 100000 are allowed" in str(fault)
            return False
        assert ledger.stat().st_size <= limit
        verify_signatures(parse_envelope(ledger.read_bytes()), [key.public], 1)
        return True

    accepted, refused = 0, limit
    while refused - accepted > 1:
        middle = (accepted + refused) // 2
        accepted, refused = (middle, refused) if written(middle) else (accepted, middle)
    assert accepted > (limit - 4096) * 3 // 4 - 100
    assert written(accepted)
    ledger.unlink()
    assert not written(refused)
    assert not ledger.exists(), "what is refused is not written"


def test_a_child_with_another_payload_type_is_refused(nodes: Nodes) -> None:
    merged, child = two(nodes), nodes.folder / "ledgers" / "algo-1" / "ledger.json"
    envelope = parse_envelope(child.read_bytes())
    child.write_bytes(encode_envelope(envelope.payload, "application/json", list(envelope.signatures)))
    with pytest.raises(NotVerifiedError, match="the payload has type 'application/json'") as caught:
        verify(nodes, merged, nodes.folder / "ledgers")
    assert caught.value.code == "payload_type"


def test_a_node_that_does_not_list_the_jobs_nodes_says_so(nodes: Nodes) -> None:
    for rank, others in ((0, "other nodes, if it has any,"), (1, "the other nodes")):
        ledger = nodes.ledger(slurm(rank))
        said = f"its answer is of this node, and nothing that {others} did is in it"
        found = verify_ledger(open_ledger(ledger, [load_public(str(nodes.public))]))
        for text in (verified_text(found), in_process("report", str(ledger)).stdout):
            assert f"NODE: this is rank {rank} of its job: {said}" in " ".join(text.split())
