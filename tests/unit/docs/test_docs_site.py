"""Links from a page of docs/ to files outside it, as the site shows them."""

from __future__ import annotations

import pytest

from scripts.docs_site import replace_links

SOURCE = "https://example.com/flopsd/blob/main"


@pytest.mark.parametrize(
    ("link", "folder", "without", "with_source"),
    [
        ("[config/peaks.yaml](../config/peaks.yaml)", "docs", "`config/peaks.yaml`", "config/peaks.yaml"),
        ("[`peaks.yaml`](../config/peaks.yaml)", "docs", "`config/peaks.yaml`", "config/peaks.yaml"),
        (
            "[the table](../../config/peaks.yaml#x)",
            "docs/adr",
            "the table (`config/peaks.yaml`)",
            "config/peaks.yaml#x",
        ),
    ],
)
def test_a_link_out_of_the_pages_is_a_path_or_leads_to_the_source(
    link: str, folder: str, without: str, with_source: str
) -> None:
    assert replace_links(f"See {link}.", folder, "") == f"See {without}."
    text = link.split("]")[0]
    assert replace_links(f"See {link}.", folder, SOURCE) == f"See {text}]({SOURCE}/{with_source})."


def test_a_link_between_pages_stays() -> None:
    assert replace_links("[keys](../keys.md#files)", "docs/adr", SOURCE) == "[keys](../keys.md#files)"


def test_a_link_to_no_file_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    replace_links("[x](../config/gone.yaml)", "docs", "")
    assert "config/gone.yaml leads to no file" in caplog.text
