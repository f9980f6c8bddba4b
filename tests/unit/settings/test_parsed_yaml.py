"""config/parsed.json, which replaces the packaged YAML files while metering starts."""

import json

from flopsd.settings.data_files import packaged_files
from flopsd.settings.strict_yaml import read_yaml
from flopsd.system.sha256 import hex_sha256
from scripts import parsed_yaml


def test_the_parsed_file_has_exactly_the_content_of_the_yaml_files() -> None:
    files = [path.read_bytes() for path in packaged_files()]
    parsed = json.loads(parsed_yaml.FILE.read_bytes())
    assert parsed == {hex_sha256(data): read_yaml(data, "")[0] for data in files}, "run `make docs`"
