"""`python -m tests.train.trainer_table [CASE]`: the work of TRL's trainers, and its bounds in a ledger."""

import sys
from collections.abc import Collection, Iterator

from tests.train.trl_cases import CASES, train


def lines(names: Collection[str]) -> Iterator[str]:
    """The table in Markdown: FLOP that PyTorch counted, and `executed` and `required` of the ledger."""
    yield "| training | counted by PyTorch | `executed`: low, computed, high | beside the trained model | inside |"
    yield "|---|---|---|---|---|"
    for name in names:
        one = train(name)
        low, _, high = one.executed
        inside = low <= one.counted and (high is None or one.counted <= high)
        executed = ", ".join("open" if flop is None else f"{flop:,}" for flop in one.executed)
        beside = ", ".join(sorted(one.stated.others)) or "none"
        yield f"| {name} | {one.counted:,} | {executed} | {beside} | {'yes' if inside else '**no**'} |"


if __name__ == "__main__":
    for line in lines(sys.argv[1:] or CASES):
        print(line, flush=True)
