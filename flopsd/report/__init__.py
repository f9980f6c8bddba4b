"""Ledgers for people: `build` turns a statement into pure data, which `report_text` and `html` show.

Nothing in a ledger is trusted here: it may not have been verified. `ledger_json` reads its fields by type, and every
text in it passes through `one_line`.
"""
