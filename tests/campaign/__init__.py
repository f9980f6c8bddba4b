"""Simulated machines of every kind of load and fault, metered and sealed; each ledger alone is held against the truth.

`make campaign`, or `python -m tests.campaign --help`. `make test` runs a slice of it: tests/contract/test_campaign.py.
"""
