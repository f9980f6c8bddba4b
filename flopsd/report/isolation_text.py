"""State what the job could have done to its own meter, in one or two sentences."""

from __future__ import annotations

from flopsd.core.ledger.isolation import WhyJobCould
from flopsd.report.ledger_json import LedgerObject

_WHY: dict[str, str] = {
    WhyJobCould.USER_UNKNOWN: "the user that it ran as is not known",
    WhyJobCould.SAME_USER: "it ran as the daemon's own user",
    WhyJobCould.ROOT: "it ran as root",
    WhyJobCould.OPEN_FILES: "other users can write the daemon's files",
    WhyJobCould.UNCHECKED_START: "the daemon continued with files that anybody may have changed",
}
_KEY: dict[bool | None, str] = {
    True: "It could read the key that signed, too.",
    False: "It could not read the key that signed.",
}
_NO_FILE = {
    "awskms": "The key is in AWS KMS, as the signer states: whoever has this machine's credentials can have anything "
    "signed.",
    "pkcs11": "The key is in a PKCS#11 token, as the signer states: whoever has its PIN can have anything signed.",
}


def isolation_text(predicate: LedgerObject) -> str:
    """The text for a node's ledger; empty for a merged one."""
    found = predicate.maybe_object("isolation")
    if found is None:
        return ""
    if found.flag("jobCouldWriteJournal"):
        why = " and ".join(_WHY.get(reason, reason) for reason in found.texts("reasons"))
        first = f"The job could have written this journal: {why}."
    elif found.flag("jobContainer"):
        first = (
            "The job could not have written this journal: it had a container of its own without the daemon's files, as "
            "the operator states. Whoever controls the host could."
        )
    else:
        users, daemon = ", ".join(found.texts("jobUsers")), ", ".join(found.texts("daemonUsers"))
        first = (
            f"The job could not have written this journal: it ran as user {users}, the daemon as user {daemon}, and no "
            "other user can write its files. Whoever controls the host could."
        )
    key = found.maybe_object("key")
    kind = "" if key is None else key.text("kind")
    return " ".join(filter(None, (first, _NO_FILE.get(kind) or _KEY.get(found.flag("jobCouldReadKey")))))
