"""Vectors of times: the edges of the calendar and of the clock, in `sealedAt`, from which nothing else follows."""

from tests.make_vectors import runs
from tests.make_vectors.files import Files, edited, signed, statement_of, vector
from tests.support.story import tell

# Name, description, whether such a time exists, and the time.
CASES: list[tuple[str, str, bool, str]] = [
    ("hour-23", "The last second of a year, with nine digits of a fraction.", True, "2026-12-31T23:59:59.999999999Z"),
    ("hour-24", "The hour 24.", False, "2026-09-21T24:00:00Z"),
    ("minute-60", "The minute 60.", False, "2026-09-21T14:60:00Z"),
    ("month-0", "The month 0.", False, "2026-00-21T15:00:00Z"),
    ("day-0", "The day 0.", False, "2026-09-00T15:00:00Z"),
    ("day-31-of-30", "The 31st of a month of 30 days.", False, "2026-04-31T15:00:00Z"),
    ("leap-day", "A leap day.", True, "2028-02-29T00:00:00.5Z"),
    ("leap-day-of-no-leap-year", "A 29 February of a year that has none.", False, "2026-02-29T15:00:00Z"),
    ("leap-day-of-2000", "A leap day of a year that 400 divides.", True, "2000-02-29T15:00:00Z"),
    ("leap-day-of-2100", "A 29 February of a year that 100 divides and 400 does not.", False, "2100-02-29T15:00:00Z"),
    ("fraction-of-10-digits", "A fraction of ten digits.", False, "2026-09-21T15:00:00.0000000001Z"),
    ("fraction-of-no-digit", "A fraction without a digit.", False, "2026-09-21T15:00:00.Z"),
    ("year-0", "The year 0, which the calendar has not.", False, "0000-01-01T15:00:00Z"),
    ("year-1", "The first year.", True, "0001-01-01T00:00:00Z"),
]


def times_vectors() -> Files:
    files: Files = {}
    journal = tell(runs.small)
    said = statement_of(journal)
    for name, what, is_time, text in CASES:
        payload = edited(said, lambda one, text=text: one["predicate"]["method"].update(sealedAt=text))  # type: ignore[misc]
        full = f"{'valid' if is_time else 'invalid'}/sealed-at-{name}"
        code, clause = (None, None) if is_time else ("statement_malformed", "NODE-50")
        files |= vector(full, what, signed(payload), journal, code, clause, schema=None)
    return files
