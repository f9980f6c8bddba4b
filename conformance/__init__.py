"""Conformance of any implementation of the flopsd ledger: standard library only, and nothing of flopsd."""
