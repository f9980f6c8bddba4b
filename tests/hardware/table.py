"""The results as a table for a terminal of 100 columns."""

from tests.hardware.results import Document

WIDTH = 100
_COLUMNS = f"{'load':<29}{'true':>10}{'metered':>10}{'ratio':>8} {'in':<3} {'pipe':<12}{'alone':>8}{'MHz':>8} evidence"


def header(document: Document) -> list[str]:
    """The subject, machine and versions of the measurement."""
    device, versions = document["device"], document["versions"]
    lines = [
        f"{device['name']}, driver {device['driver']}, torch {versions['torch'] or 'none'}, "
        f"flopsd {versions['flopsd']} at {(document['commit'] or 'unknown commit')[:12]}, {document['date'] or 'no date'}"
    ]
    if document["origin"] != "hardware":
        lines.append(f"{document['origin'].upper()}: no figure here is about hardware")
    return [
        line[:WIDTH]
        for line in (
            *lines,
            "FLOP; ratio: metered of all pipes / true; alone: of the pipe named; in: low <= true <= high",
            _COLUMNS,
        )
    ]


def row(result: Document) -> str:
    """One load on one line."""
    if result["status"] != "done":
        return f"{result['name']:<29}{result['status']}: {result['reason']}"[:WIDTH]
    name, true, metered, ratio, pipe, alone, _, mhz, evidence = cells(result)
    inside = {True: "yes", False: "NO", None: "?"}[result["inside"]]
    return f"{name:<29}{true:>10}{metered:>10}{ratio:>8} {inside:<3} {pipe:<12}{alone:>8}{mhz:>8} {evidence}"[:WIDTH]


def answer(question: Document) -> str:
    """A question's number, its subject, and its answer or the reason that it has none, on one line."""
    said = question["answer"] or f"not answered: {question['not_answered']}"
    return f"{question['number']:>2} {question['subject']}: {said}"[:WIDTH]


def cells(load: Document) -> tuple[str, ...]:
    """Name, true and metered FLOP, ratio, pipe, its ratio alone, whether the truth lies inside, MHz, evidence."""
    main, clock, metered = load["main"], load["clock_mhz"], load["metered"]
    return (
        load["name"],
        scientific(load["true_flop"]),
        scientific(metered["declared"]["measured"]),
        _ratio(load["ratio"]),
        main["pipe"] if main else "none",
        _ratio(main["ratio"] if main else None),
        {True: "yes", False: "**no**", None: "no upper figure"}[load["inside"]],
        "unknown" if clock is None else f"{clock['mean']:.0f}",
        ", ".join([*metered["observed_seconds"], *(["gap"] if metered["gap_seconds"] else [])]),
    )


def scientific(flop: str | None) -> str:
    """Three digits after the point; unknown stays unknown."""
    return "unknown" if flop is None else f"{int(flop):.3e}"


def _ratio(ratio: float | None) -> str:
    return "none" if ratio is None else f"{ratio:.4f}"
