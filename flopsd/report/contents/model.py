"""The contents of a report: pure data, ready to be shown. Texts from the ledger are single printable lines."""

from __future__ import annotations

from enum import Enum

from flopsd.core.dataclass import dataclass
from flopsd.report.contents.charts import Axis, GrowthChart, RuleChart, Strip
from flopsd.report.numbers import Amount, Distance, Interval, OnlyIf

REPLAY = "REPLAY"  # the flag of a ledger that was read from a recording
NO_FIELD = "nothing"  # of a field that the Form does not ask for


class ReportState(str, Enum):
    """The result of a rule. INDETERMINATE: it depends on the figures, or on whether the rule applies."""

    ABOVE = "above"
    INDETERMINATE = "indeterminate"
    BELOW = "below"
    NOT_APPLICABLE = "not applicable"
    NONE = "none"  # no policy was applied


class VerificationState(str, Enum):
    """Whether the ledger was verified when this report was made."""

    VERIFIED = "verified"
    REFUSED = "refused"
    NOT_VERIFIED = "not verified"


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a list of facts. `by`: who declared it, if it is a declaration. `exact`: the value in full."""

    name: str
    value: str
    by: str = ""
    exact: str = ""


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """The result of verification. It names keys, not people: a ledger does not show who holds a key."""

    state: VerificationState
    text: str
    hint: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Flag:
    """A warning that comes before any figure: a word in capitals, and a sentence."""

    word: str
    text: str


@dataclass(frozen=True, slots=True)
class ReportRule:
    """One rule of a policy, and its result."""

    title: str
    policy: str
    name: str  # policy/rule
    state: ReportState
    applies: bool | None  # None: not known
    word: str
    text: str
    why: str
    quantity: str
    value: Interval
    threshold: Amount | None
    share: str
    citation: str
    consequence: str
    since: str
    assumes: str
    status: str  # text, interpretation or secondary: see `rule_words`
    other_conditions: tuple[str, ...]  # conditions that are not decided here
    chart: RuleChart | None
    distance: Distance | None  # None: no upper bound is known, or no lower end of the threshold but 0
    only_if: OnlyIf | None


@dataclass(frozen=True, slots=True)
class Answer:
    """One headline, which is the same in every output, the conditions under which the run is above, and details."""

    state: ReportState
    headline: str
    only_if: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Basis:
    """One basis of counting. `value`: None if the ledger does not have it; then `absent` gives the reason."""

    name: str
    meaning: str
    middle: str = "measured"  # the name of its middle figure: measured or computed
    value: Interval | None = None
    absent: str = ""
    no_middle: str = "no single figure"  # text in place of a missing middle figure
    facts: tuple[Fact, ...] = ()
    further: tuple[tuple[str, Interval], ...] = ()
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of two bases, or of energy and FLOP."""

    name: str
    between: str  # what is divided by what
    ratio: str
    margin: str
    word: str
    warning: str
    text: str


@dataclass(frozen=True, slots=True)
class Share:
    """The part of the executed compute with one kind of evidence, or in one phase."""

    name: str
    meaning: str
    value: Interval


@dataclass(frozen=True, slots=True)
class GapTime:
    """The device time that was not observed for one reason."""

    reason: str
    meaning: str
    time: Amount


@dataclass(frozen=True, slots=True)
class ReportGap:
    """One gap in the readings of a device."""

    device: str
    reason: str
    begin: str
    length: Amount
    ceiling: Amount | None


@dataclass(frozen=True, slots=True)
class Coverage:
    """The share of the devices' time that was observed, and the gaps."""

    observed: str
    text: str
    facts: tuple[Fact, ...]
    reasons: tuple[GapTime, ...]
    gaps: tuple[ReportGap, ...]
    gaps_left_out: int
    strips: tuple[Strip, ...]
    span: str  # start and end of the strips


@dataclass(frozen=True, slots=True)
class ReportDevice:
    """One accelerator."""

    index: int
    model: str
    uuid: str
    serial: str
    evidence: str
    note: str
    value: Interval
    observed: str
    energy: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One node of a job, or one of the ledgers that a merged ledger is made of."""

    name: str
    where: str
    span: str
    devices: str
    value: Interval
    observed: str
    energy: str
    digest: str
    note: str


@dataclass(frozen=True, slots=True)
class ReportCompleteness:
    """Whether a merged ledger contains all its ledgers. `complete`: None if not known."""

    complete: bool | None
    text: str
    missing: tuple[str, ...]
    missing_left_out: int
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class EvidenceLine:
    """A piece of attached evidence."""

    name: str
    state: str
    text: str
    proves: str
    limits: str


@dataclass(frozen=True, slots=True)
class KernelClass:
    """The kernels of one class in sampled windows."""

    name: str
    share: str  # of the time of all kernels in windows
    time: str
    launches: str


@dataclass(frozen=True, slots=True)
class ReportKernels:
    """Kernels in sampled windows: how much was sampled, who states it, and the classes."""

    sampled: str
    whose: str
    classes: tuple[KernelClass, ...]


@dataclass(frozen=True, slots=True)
class ReportDeclarations:
    """The declarations of the operator and of the training processes."""

    job: tuple[Fact, ...]
    processes: tuple[Fact, ...]
    work: tuple[Fact, ...]
    no_process: str  # why no process is listed; empty if one is
    kernels: ReportKernels | None


@dataclass(frozen=True, slots=True)
class FormLine:
    """One field of the Form: the text for the AI Office, the text for national authorities on request (empty: the Form
    has none for them), and a note."""

    field: str
    ai_office: str
    national: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Form:
    """The Form's lines that a ledger can fill, and the lines of a notification, which only systemic risk requires."""

    lines: tuple[FormLine, ...]
    notification: tuple[str, ...]  # none if no notification is due
    policy: str


@dataclass(frozen=True, slots=True)
class Proof:
    """The facts that identify the ledger, and the commands that check it."""

    facts: tuple[Fact, ...]
    commands: tuple[tuple[str, str], ...]  # purpose and command


@dataclass(frozen=True, slots=True)
class ReportMethod:
    """The method by which the figures were made."""

    text: str
    facts: tuple[Fact, ...]
    assumptions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Content:
    """Everything that relies on a genuine ledger. A report on a refused ledger has no content."""

    facts: tuple[Fact, ...]
    answer: Answer
    rules: tuple[ReportRule, ...]
    other_rules: tuple[ReportRule, ...]
    axis: Axis | None
    bases: tuple[Basis, ...]
    comparisons: tuple[Comparison, ...]
    evidence: tuple[Share, ...]
    phases: tuple[Share, ...]
    course: GrowthChart | None
    coverage: Coverage
    completeness: ReportCompleteness | None
    nodes: tuple[Member, ...]
    children: tuple[Member, ...]
    members_left_out: int
    devices: tuple[ReportDevice, ...]
    devices_left_out: int
    energy: tuple[Fact, ...]
    declared: ReportDeclarations
    form: Form | None
    method: ReportMethod
    items: tuple[EvidenceLine, ...]
    claims: str
    does_not_claim: str
    isolation: str  # what the job could have done; empty for a merged ledger
    advice: str  # the limits of a verdict; empty without verdicts


@dataclass(frozen=True, slots=True)
class Report:
    """A report on one ledger."""

    kind: str
    title: str
    subject: str  # the run, or the lineage
    digest: str  # SHA-256 of the payload
    made: str
    flags: tuple[Flag, ...]
    check: VerificationResult
    proof: Proof
    content: Content | None

    @property
    def caveat(self) -> str:
        """The label of every verdict if the ledger is of a recording or was not verified; else empty."""
        of = ""
        if any(flag.word == REPLAY for flag in self.flags):
            of = "of a recording" if self.kind == "node" else "of a ledger with recordings"
        if self.check.state is VerificationState.VERIFIED:
            return of
        return f"{of or 'of a ledger'} that was {self.check.state.value}"
