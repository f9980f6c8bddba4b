"""The places that can be named for a ledger, and those that are refused before a run of weeks begins."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.daemon.ledger_places import copy_destinations, local_ledger
from flopsd.errors import ConfigError
from flopsd.settings.locations import S3Location, named, parse_location
from flopsd.settings.schema import Settings
from tests.support.settings import load_settings


def test_the_options_of_a_location_are_in_its_query() -> None:
    assert parse_location("/var/lib/x.json") == Path("/var/lib/x.json")
    assert parse_location("s3://my.bucket/a/b.json") == S3Location("my.bucket", "a/b.json")
    full = parse_location("s3://my-bucket/b.json?lock=compliance&days=3650&overwrite=never&rolling=off")
    assert full == S3Location("my-bucket", "b.json", "compliance", 3650, overwrite=False, rolling=False)
    assert isinstance(full, S3Location)
    assert str(full) == "s3://my-bucket/b.json"
    assert full.beside("b.pub") == S3Location("my-bucket", "b.pub", "compliance", 3650, overwrite=False, rolling=False)
    # A rolling ledger is replaced every quarter of an hour: it is neither locked nor protected from overwriting.
    assert full.for_rolling() == S3Location("my-bucket", "b.rolling.json", rolling=False)
    for days in (1, 36_500):
        kept = parse_location(f"s3://bucket/a.json?lock=governance&days={days}")
        assert kept == S3Location("bucket", "a.json", "governance", days)
    longest = parse_location(f"s3://bucket/{'a' * 895}.json")
    assert isinstance(longest, S3Location)
    nested = parse_location("s3://bucket/a/run.ledger.json")
    assert isinstance(nested, S3Location)
    assert nested.for_rolling().key == "a/run.ledger.rolling.json"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("gs://bucket/key.json", "gs:// is not known"),
        ("s3://", "'' is not a bucket name"),
        ("s3://Bucket/key.json", "'Bucket' is not a bucket name"),
        ("s3://user:secret@bucket/key.json", "is not a bucket name"),
        ("s3://bucket", "with the key of a file"),
        ("s3://bucket/folder/", "with the key of a file"),
        ("s3://bucket/folder.json/", "with the key of a file"),
        ("s3://bucket/folder//a.json", "with the key of a file"),
        ("s3://bucket/./folder/a.json", "with the key of a file"),
        (f"s3://bucket/{'a' * 896}.json", "with the key of a file"),
        ("s3://bucket/folder/ledger", "with the key of a file"),
        ("s3://bucket/a.json?lock=forever&days=1", "lock=forever is not known"),
        ("s3://bucket/a.json?lock=governance", "lock and days must be given together"),
        ("s3://bucket/a.json?days=3", "lock and days must be given together"),
        ("s3://bucket/a.json?lock=governance&days=0", "days=0: expected a whole number from 1 to 36500"),
        ("s3://bucket/a.json?lock=governance&days=-1", "days=-1: expected"),
        ("s3://bucket/a.json?lock=governance&days=36501", "days=36501: expected"),
        ("s3://bucket/a.json?lock=governance&days=99999999999999999999", "expected a whole number"),
        ("s3://bucket/a.json?lock=governance&lock=governance&days=1", "lock is given twice"),
        ("s3://bucket/a.json?overwrite=yes", "overwrite=yes is not known"),
        ("s3://bucket/a.json?rolling=on", "rolling=on is not known"),
        ("s3://bucket/a.json?acl=public", "'acl' is not an option"),
        ("s3://bucket/{host}.json", "{host} is not known; known"),
        ("/tmp/{job}.json", "{job} is not known; known"),
        ("/state/journal.jsonl", "flopsd uses the name journal.jsonl"),
        ("/state/flopsd-key.pem", "flopsd uses the name flopsd-key.pem"),
        ("/state/deliveries.json", "flopsd uses the name deliveries.json"),
        ("s3://bucket/a/{run}.pub", "flopsd uses the name {run}.pub"),
    ],
)
def test_invalid_locations_are_refused(text: str, reason: str) -> None:
    for flags in ({"ledger": text}, {"ledger_copies": [text]}):
        with pytest.raises(ConfigError) as caught:
            load_settings(flags, {})
        assert reason in str(caught.value)


def test_names_of_run_and_node_keep_many_nodes_apart() -> None:
    settings = Settings(ledger="s3://bucket/{run}/{node}.json", ledger_copies=("/mnt/{run}-{node}.json",))
    assert copy_destinations(settings, "job", "algo-2") == [
        S3Location("bucket", "job/algo-2.json"),
        Path("/mnt/job-algo-2.json"),
    ]
    assert local_ledger(settings, Path("/state"), "job", "algo-2") == Path("/state/job.ledger.json")
    here = Settings(ledger="/out/{node}.json")
    assert local_ledger(here, Path("/state"), "job", "algo-2") == Path("/out/algo-2.json")
    assert copy_destinations(here, "job", "algo-2") == []
    assert local_ledger(Settings(), Path("/state"), "job", "n") == Path("/state/job.ledger.json")


@given(run=st.text(min_size=1), node=st.text(min_size=1))
def test_a_run_name_cannot_leave_the_folder(run: str, node: str) -> None:
    text = named("s3://bucket/x/{run}/y/{node}.json?lock=governance&days=1", run, node)
    address, _, query = text.partition("?")
    assert query == "lock=governance&days=1"
    assert address.count("/") == 6
