"""Merging: node ledgers become a job ledger, jobs a lineage. Needs the extra `seal`, and `s3` for s3:// names."""
