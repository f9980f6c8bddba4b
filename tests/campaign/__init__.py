"""Simulated machines with every kind of load and fault, metered and sealed; each ledger by itself is compared with the
truth.

`make campaign`, or `python -m tests.campaign --help`. `make test` runs a sample: tests/contract/test_campaign.py.
"""
