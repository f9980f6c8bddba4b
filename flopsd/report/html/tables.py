"""The tables behind a report's answer in HTML: ledgers, devices, declarations, the form, the method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from flopsd.report.contents.device_groups import DeviceGroup, alike, equal, shared_facts, shortened
from flopsd.report.contents.model import (
    NO_FIELD,
    Content,
    Form,
    FormLine,
    Member,
    ReportCompleteness,
    ReportDeclarations,
    ReportDevice,
    ReportKernels,
    ReportMethod,
)
from flopsd.report.html.coverage import more
from flopsd.report.html.kit import Html, h, text
from flopsd.report.html.parts import FIGURE_HEADS, Heads, entry, facts, figure_cells, row, section, table
from flopsd.report.numbers import NOTHING_MEASURED
from flopsd.report.terminal import sentence

_LONG = 120  # a longer field of the form takes both columns
_KEPT = (("Observed", "n"), ("Energy", "n"))
_DEVICE_HEADS = (("Device", None), ("Model", None), *FIGURE_HEADS, *_KEPT)


def members_section(content: Content, whole: ReportCompleteness) -> Html:
    word = {True: "Complete", False: "Incomplete", None: "Completeness unknown"}[whole.complete]
    missing = [h("li", words) for words in whole.missing]
    if whole.missing_left_out:
        missing.append(h("li", f"and {whole.missing_left_out} more"))
    left_out = content.members_left_out
    nodes = text(_members(content.nodes, "Nodes of the job", "Device time"), more(left_out))
    return section(
        "members",
        "The ledgers it is made of",
        h("p", h("strong", f"{word}."), " ", whole.text, cls="figure"),
        h("ul", *missing, cls="missing") if whole.missing else None,
        facts(whole.facts) if whole.facts else None,
        nodes if content.nodes else None,
        _members(content.children, "Ledgers, by the SHA-256 of their payload", "When, UTC"),
        more(left_out),
    )


def _members(rows: Iterable[Member], title: str, last: str) -> Html:
    heads = (("Name", None), ("Where", None), *FIGURE_HEADS, *_KEPT, (last, None))
    return table(title, f"{title}; executed compute in FLOP", heads, (_member(heads, one) for one in rows))


def _member(heads: Heads, one: Member) -> Html:
    digest = _sub(one.digest, mono=True) if one.digest else None
    name = text(one.name, _sub(one.note) if one.note else None, digest)
    where = text(one.where, _sub(f"{one.devices} devices") if one.devices else None)
    return row(heads, name, where, *figure_cells(one.value, "not measured"), one.observed, one.energy, one.span)


def devices_section(content: Content) -> Html:
    devices = content.devices
    return section(
        "devices",
        "Devices",
        table(
            "Table of devices",
            "Each accelerator; executed compute in FLOP",
            _DEVICE_HEADS,
            map(_device, equal(devices)),
        ),
        more(content.devices_left_out),
        h("dl", *map(_known_by, alike(devices)), cls="known"),
        h("details", h("summary", "Identity of each device"), *_identities(devices)),
    )


def _device(group: DeviceGroup) -> Html:
    one, count = group.first, len(group.devices)
    who = h("span", shortened(one.uuid), cls="short mono", title=one.uuid)
    if count > 1:
        who = h("span", f"{count} devices, figures of each", cls="short")
    cells = (h("span", one.model, cls="num"), *figure_cells(one.value, NOTHING_MEASURED), one.observed, one.energy)
    return row(_DEVICE_HEADS, text(group.indices, " ", who), *cells, cls="num")


def _known_by(group: DeviceGroup) -> Html:
    one = group.first
    words = text("known by ", one.evidence, _sub(one.note) if one.note else None)
    return entry(f"{'Devices' if len(group.devices) > 1 else 'Device'} {group.indices}", words)


def _identities(devices: Sequence[ReportDevice]) -> Iterator[Html]:
    """The full identifiers of each device; and once the facts that all share."""
    shared = shared_facts(devices)
    names = tuple(dict.fromkeys(fact.name for one in devices for fact in one.facts if fact not in shared))
    rows = []
    for one in devices:
        own = {fact.name: fact.value for fact in one.facts}
        cells = (h("td", one.uuid, cls="whole"), h("td", one.serial), *(h("td", own.get(name, "")) for name in names))
        rows.append(h("tr", h("th", str(one.index), scope="row"), *cells))
    heads = (("Device", None), ("UUID", None), ("Serial", None), *((name, None) for name in names))
    caption = f"{', '.join(name for name, _ in heads[1:])} of each device"
    yield table("Identity of each device", caption, heads, rows, cls="identity")
    if shared:
        yield h("p", "The same for all:", cls="cmd")
        yield facts(shared, "facts run-in")


def declared_section(declared: ReportDeclarations) -> Html:
    processes = h("p", declared.no_process) if declared.no_process else None
    if declared.processes:
        processes = text(h("h3", "By the training processes"), facts(declared.processes))
    return section(
        "declared",
        "Declared, and by whom",
        h("p", "Declarations, not measurements: no counter confirms them. Each names who made it.", cls="intro"),
        facts(declared.job),
        processes,
        text(h("h3", "Work that they counted"), facts(declared.work)) if declared.work else None,
        _kernels(declared.kernels) if declared.kernels else None,
    )


def _kernels(seen: ReportKernels) -> Html:
    heads = (("Kernels", None), ("Share of their time", "n"), ("Time", "n"), ("Launches", "n"))
    rows = (row(heads, one.name, one.share, one.time, one.launches) for one in seen.classes)
    return text(
        h("h3", "Kernels that they saw, sampled"),
        h("p", seen.sampled, " ", seen.whose),
        table("Kernels by class", "Kernels in sampled windows, by class", heads, rows) if seen.classes else None,
    )


def form_section(form: Form, caveat: str) -> Html:
    intro = "In the terms and roundings of the Transparency chapter's form. Figures only: check them before filing."
    label = h("p", f"Figures {caveat}: not fit for filing.", cls="caveat") if caveat else None
    heads = (("Field", None), ("To the AI Office", None), ("To national authorities", None))
    text_of_it = (h("p", words) for words in form.notification)
    return section(
        "form",
        "Figures for the Model Documentation Form",
        label,
        h("p", intro, cls="intro"),
        table("Fields of the form", form.policy, heads, map(_field, form.lines), cls="form"),
        text(h("h3", "Text for a notification"), h("blockquote", *text_of_it)) if form.notification else None,
    )


def _field(line: FormLine) -> Html:
    national = line.national or NO_FIELD
    cells = text(h("td", line.ai_office), h("td", national))
    if len(line.ai_office) > _LONG:
        cells = h("td", line.ai_office, _sub(f"To national authorities: {national}"), colspan=2)
    return h("tr", h("th", line.field, _sub(line.note) if line.note else None, scope="row"), cells)


def method_section(method: ReportMethod) -> Html:
    return section(
        "method",
        "Method and assumptions",
        h("p", sentence(method.text)),
        facts(method.facts),
        h("ul", *(h("li", words) for words in method.assumptions), cls="assumptions"),
    )


def _sub(words: str, *, mono: bool = False) -> Html:
    return h("span", words, cls="sub mono" if mono else "sub")
