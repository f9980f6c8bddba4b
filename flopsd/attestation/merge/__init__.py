"""Merge node ledgers into a job ledger, job ledgers into a lineage. Needs the extra `seal`, and `s3` for s3:// URLs."""
