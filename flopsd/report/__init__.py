"""Ledgers for people: `contents` turns a statement into pure data, which `report_text` and `html` show; `ledger_text`
has what `seal`, `merge` and `verify` print, and `estimate` plans a training.

Nothing in a ledger is trusted here: it may not have been verified. `ledger_json` reads its fields by type, and every
text in it passes through `one_line`.
"""
