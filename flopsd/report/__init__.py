"""A ledger for people: `build` makes pure data of a statement, `text` and `html` show it.

Nothing in a ledger is trusted here: it may not have been verified. `reading` takes it apart by type, and every text
of it passes through `one_line`.
"""
