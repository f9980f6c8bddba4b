"""Copies of a sealed ledger elsewhere. Loaded only by a process that seals."""
