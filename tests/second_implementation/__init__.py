"""A second implementation of docs/ledger-format.md, written from that page and its neighbours, without a line of flopsd.

Tests hold it against what flopsd seals and refuses.
"""
