"""A second implementation of docs/ledger-format.md, written from that page and its neighbours, without a line of
flopsd.

Tests compare it with flopsd's seals and refusals.
"""
