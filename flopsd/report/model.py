"""What a report holds: pure data, ready to be shown. Texts from the ledger in it are single printable lines."""

from __future__ import annotations

from enum import Enum

from flopsd.core.dataclass import dataclass
from flopsd.report.charts import Axis, GrowthChart, RuleChart, Strip
from flopsd.report.numbers import Amount, Distance, Interval, OnlyIf

REPLAY = "REPLAY"  # the flag of a ledger that was read from a recording


class ReportState(str, Enum):
    """What a rule comes to. INDETERMINATE hangs on the figures, or on whether the rule applies."""

    ABOVE = "above"
    INDETERMINATE = "indeterminate"
    BELOW = "below"
    NOT_APPLICABLE = "not applicable"
    NONE = "none"  # no policy was applied


class VerificationState(str, Enum):
    """Whether this report's maker verified the ledger."""

    VERIFIED = "verified"
    REFUSED = "refused"
    NOT_VERIFIED = "not verified"


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a list of facts. `by` is who declared it, if it is a declaration; `exact` the value in full."""

    name: str
    value: str
    by: str = ""
    exact: str = ""


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """The result of verifying. It names keys, not people: a ledger does not know who holds a key."""

    state: VerificationState
    text: str
    hint: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Flag:
    """What must be known before any figure: a word in capitals, and a sentence."""

    word: str
    text: str


@dataclass(frozen=True, slots=True)
class ReportRule:
    """One rule of a policy, and what it comes to."""

    title: str
    policy: str
    name: str  # with the policy's
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
    other_conditions: tuple[str, ...]  # what is not decided here
    chart: RuleChart | None
    distance: Distance | None  # None: no upper bound is known, or none of the threshold but 0
    only_if: OnlyIf | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The whole in one headline, which is the same wherever it is shown, what it is open for, and more sentences."""

    state: ReportState
    headline: str
    only_if: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Basis:
    """One basis of counting. `value` is None where the ledger does not have it; `absent` then gives the reason."""

    name: str
    meaning: str
    middle: str = "measured"  # what its middle figure is called: measured, computed
    value: Interval | None = None
    absent: str = ""
    no_middle: str = "no single figure"  # text in place of a missing middle figure
    facts: tuple[Fact, ...] = ()
    further: tuple[tuple[str, Interval], ...] = ()
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two bases held against each other."""

    name: str
    between: str  # what is divided by what
    ratio: str
    margin: str
    word: str
    warning: str
    text: str


@dataclass(frozen=True, slots=True)
class Share:
    """What an evidence or a phase has of the executed compute."""

    name: str
    meaning: str
    value: Interval


@dataclass(frozen=True, slots=True)
class GapTime:
    """How long devices were not observed for one reason."""

    reason: str
    meaning: str
    time: Amount


@dataclass(frozen=True, slots=True)
class ReportGap:
    """One stretch of time of a device of which nothing is known."""

    device: str
    reason: str
    begin: str
    length: Amount
    ceiling: Amount | None


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the devices' time was observed."""

    observed: str
    text: str
    facts: tuple[Fact, ...]
    reasons: tuple[GapTime, ...]
    gaps: tuple[ReportGap, ...]
    gaps_left_out: int
    strips: tuple[Strip, ...]
    span: str  # from when to when the strips go


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
    """One node of a job, or one ledger that a merged one is made of."""

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
    """Whether all ledgers of a merged one are there. `complete` is None where it is not known."""

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
    """What sampled windows saw of a class of kernels."""

    name: str
    share: str  # of the time of all kernels in windows
    time: str
    launches: str


@dataclass(frozen=True, slots=True)
class ReportKernels:
    """Kernels in sampled windows: how much was sampled, whose word it is, and the classes."""

    sampled: str
    whose: str
    classes: tuple[KernelClass, ...]


@dataclass(frozen=True, slots=True)
class ReportDeclarations:
    """What the operator and the training processes declared."""

    job: tuple[Fact, ...]
    processes: tuple[Fact, ...]
    work: tuple[Fact, ...]
    sessions: int
    kernels: ReportKernels | None


@dataclass(frozen=True, slots=True)
class FormLine:
    """One field: what goes to the AI Office, what to national authorities on their request, and what to know of it."""

    field: str
    ai_office: str
    national: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Form:
    """The Form's lines that a ledger can fill, and the lines of a notification, which only systemic risk asks for."""

    lines: tuple[FormLine, ...]
    notification: tuple[str, ...]  # none where no notification is due
    policy: str


@dataclass(frozen=True, slots=True)
class Proof:
    """What identifies the ledger, and how to check it."""

    facts: tuple[Fact, ...]
    commands: tuple[tuple[str, str], ...]  # what it does, the command


@dataclass(frozen=True, slots=True)
class ReportMethod:
    """How the figures were made."""

    text: str
    facts: tuple[Fact, ...]
    assumptions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Content:
    """All that rests on the ledger being genuine. A refused ledger has none."""

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
    advice: str  # what a verdict is not; empty where there is none


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
        """The label of every verdict that is not one of hardware and of a verified ledger; else empty."""
        of = "of a recording" if any(flag.word == REPLAY for flag in self.flags) else ""
        if self.check.state is VerificationState.VERIFIED:
            return of
        return f"{of or 'of a ledger'} that was {self.check.state.value}"
