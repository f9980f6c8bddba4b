"""The exceptions that flopsd raises, each with a hint on what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

# Why a key cannot sign; a label value of metrics.
KeyFault = Literal[
    "denied", "disabled", "no_answer", "no_credentials", "no_token", "not_found", "not_installed", "other",
    "pin_refused", "public_key", "secret", "wrong_kind",
]  # fmt: skip


class FlopsdError(Exception):
    """Base of all errors that flopsd raises on purpose. `hint` says what to do next. For a refused ledger, `code` is
    the reason from refusals-v1.json and `path` its place in the ledger; otherwise both are empty."""

    def __init__(self, message: str, *, hint: str = "", code: str = "", path: str = "") -> None:
        super().__init__(message)
        self.hint, self.code, self.path = hint, code, path

    @property
    def lines(self) -> tuple[str, ...]:
        """The message as printed. Only an error that lists several items has several lines: text that an error quotes
        must not begin a line."""
        return (str(self),)

    @property
    def with_hint(self) -> str:
        """The message and its hint on one line, for a log."""
        return f"{self}; {self.hint}" if self.hint else str(self)


class ConfigError(FlopsdError):
    """One or more settings are invalid; `problems` lists every one."""

    def __init__(self, problems: Sequence[str], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems), hint=hint)

    @property
    def lines(self) -> tuple[str, ...]:
        return self.problems


class PeakTableError(FlopsdError):
    """The peak table is malformed or contradicts itself."""

    HINT = "docs/own-tables.md shows how to write a table; `flopsd config check --peaks FILE` checks one"

    def __init__(self, message: str, *, hint: str = HINT, code: str = "peak_table_unknown") -> None:
        super().__init__(message, hint=hint, code=code)


class UnknownDeviceError(PeakTableError):
    """No row of the peak table matches a device, and no peak is guessed for it."""


class PolicyError(FlopsdError):
    """A policy file is malformed or contradicts itself; `problems` lists every problem."""

    def __init__(self, problems: Sequence[str], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems), hint=hint, code="policy_unknown")


class SourceError(FlopsdError):
    """A source of readings failed. `reason` is a more specific gap reason, if any, for metrics and gaps."""

    def __init__(self, message: str, *, hint: str = "", reason: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class SourceUnavailableError(SourceError):
    """A source cannot be opened on this machine. `absent`: it has no device here, which is a failure only if the source
    was `named`, not merely probed for."""

    def __init__(self, message: str, *, hint: str = "", absent: bool = False, reason: str = "") -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.absent, self.named = absent, False

    @property
    def is_failure(self) -> bool:
        return self.named or not self.absent


class OwnershipError(FlopsdError):
    """The service that assigns devices to jobs does not answer, or gives an unusable answer."""


class JournalError(FlopsdError):
    """The journal cannot be written or read."""


class JournalReplacedError(JournalError):
    """The journal is not the one that this run wrote."""


class JournalDamagedError(JournalError):
    """A record of the journal differs from the one that was written."""


class UnreadableRecordError(JournalError):
    """A record that every journal reader would refuse. It is not written, since everything after it would be lost."""


class StateDirBusyError(JournalError):
    """Another daemon holds the lock on the state folder."""


class SigningKeyError(FlopsdError):
    """A key cannot be read, parsed or created, or cannot sign. `reason` is a label value."""

    def __init__(self, message: str, *, hint: str = "", reason: KeyFault = "other", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.reason = reason


class EvidenceError(FlopsdError):
    """A piece of evidence cannot be collected or is invalid. `code` and its parameters say why it is absent, in terms
    of the table of words (`evidence.reason`); if empty, only the message does."""

    def __init__(self, message: str, *, hint: str = "", code: str = "", **parameters: str) -> None:
        super().__init__(message, hint=hint, code=code)
        self.parameters = parameters


class LedgerError(FlopsdError):
    """A ledger cannot be built."""


class OtherFileThereError(LedgerError):
    """A different file is at the destination of a copy and must not be replaced; retrying changes nothing."""


class NodeGivenTwiceError(LedgerError):
    """Two ledgers of one node begin at the same time: of one journal, or of two that diverge. `labels` names them."""

    labels: tuple[str, str] = ("", "")


class FileChangedError(FlopsdError):
    """A file does not have the bytes that were recorded for it."""

    def __init__(self, path: object) -> None:
        super().__init__(
            f"{path} is not the file that was sealed: it was changed",
            hint="nothing was copied; put the sealed file back",
        )


class ArchitectureError(FlopsdError):
    """A model, or the work on it, is not described well enough to compute its FLOP. Has a code of the table of words
    (`architectureAbsentReasons`) and its parameters, as in ledgers; the code that shows it adds the words."""

    def __init__(self, code: str, *, hint: str = "", **parameters: str | int | tuple[str, ...]) -> None:
        self.parameters = tuple(
            (name, value if isinstance(value, tuple) else str(value)) for name, value in parameters.items()
        )
        shown = [f"{name}={value}" for name, value in self.parameters]
        super().__init__(" ".join([code, *shown]), hint=hint, code=code)


class UnknownFieldsError(ArchitectureError):
    """A model's configuration has fields that flopsd does not know; `fields` lists them all."""

    fields: tuple[str, ...] = ()


class StorageError(FlopsdError):
    """A sealed ledger could not be copied to other locations; `messages` has one per location."""

    def __init__(self, *messages: str, hint: str = "") -> None:
        self.messages = messages
        super().__init__("\n".join(messages), hint=hint)

    @property
    def lines(self) -> tuple[str, ...]:
        return self.messages


class PushError(FlopsdError):
    """A receiver rejected metrics. `reason` is a label value; `final`: it would reject the same request again."""

    def __init__(self, message: str, *, reason: str, final: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason, self.final = reason, final


class ListenError(FlopsdError):
    """The daemon cannot listen for training processes."""


class NotVerifiedError(FlopsdError):
    """A ledger failed verification; the message describes the first failure."""


class MissingExtraError(FlopsdError):
    """A feature needs the packages of an extra that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} need the packages of the extra '{extra}'", hint=f"pip install 'flopsd[{extra}]'")
