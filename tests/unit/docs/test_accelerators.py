"""The table of docs/accelerators.md states what the peak table and the sources state."""

from __future__ import annotations

import pytest

from flopsd.core.model import Evidence
from tests.support.paths import ROOT
from tests.support.strategies import table

PAGE = (ROOT / "docs" / "accelerators.md").read_text()
ROWS = {
    "H100 (SXM5, PCIe, NVL)": ("h100-sxm5-80gb", "h100-pcie", "h100-nvl"),
    "H200 (SXM, NVL)": ("h200-sxm", "h200-nvl"),
    "GH200": ("gh200",),
    "B200": ("b200",),
    "GB200": ("gb200",),
    "B300": ("b300",),
    "GB300": ("gb300",),
    "RTX PRO 6000 Blackwell Server": ("rtx-pro-6000-blackwell-server",),
    "RTX PRO 4500 Blackwell Server": ("rtx-pro-4500-blackwell-server",),
    "A100 (SXM4, PCIe)": ("a100-sxm4-40gb", "a100-sxm4-80gb", "a100-pcie"),
    "A10G": ("a10g",),
    "L40S": ("l40s",),
    "L4": ("l4",),
    "T4": ("t4",),
    "V100 SXM2": ("v100-sxm2",),
    "Trainium1": ("trainium1",),
    "Inferentia2": ("inferentia2",),
    "Trainium2": ("trainium2",),
    "Trainium3": ("trainium3",),
}


def test_every_part_of_the_table_has_a_row() -> None:
    assert sorted(part for parts in ROWS.values() for part in parts) == sorted(table().parts)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_evidence_and_margin_as_they_are(name: str) -> None:
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {name} |")]
    _, _, evidence, how, margin, why, _ = (cell.strip() for cell in line.split("|"))
    for part_id in ROWS[name]:
        part = table().parts[part_id]
        if part.vendor == "aws":
            assert evidence == "`count`"
            kinds = [Evidence.COUNT]
        elif part.gpm is False:
            assert evidence == "`activity`, else `utilization`"
            kinds = [Evidence.ACTIVITY]
        else:
            assert evidence == "`cycles`, else `activity`"
            kinds = [Evidence.CYCLES, Evidence.ACTIVITY]
        assert margin == " / ".join(dict.fromkeys(f"{table().margin_ppm(kind) / 10_000:g} %" for kind in kinds))
        if part.status == "unverified":
            assert "unverified" in why or "no source" in why
    assert how
    assert "no run" in why or "not calibrated" in why or "as H100" in why
