"""config/parsed.json, which stands for the packaged YAML files while metering starts."""

import json

from flopsd.settings.data_files import packaged_files
from flopsd.settings.strict_yaml import read_yaml
from flopsd.system.sha256 import hex_sha256
from scripts import parsed_yaml


def test_it_has_what_the_files_contain_and_nothing_else() -> None:
    files = [path.read_bytes() for path in packaged_files()]
    parsed = json.loads(parsed_yaml.FILE.read_bytes())
    assert parsed == {hex_sha256(data): read_yaml(data, "")[0] for data in files}, "run `make docs`"
