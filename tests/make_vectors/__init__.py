"""The test vectors of the ledger's format; `python -m tests.make_vectors` rewrites them."""
