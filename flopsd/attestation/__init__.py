"""Signed ledgers: sign, attach evidence, write, copy, verify, countersign, merge."""
