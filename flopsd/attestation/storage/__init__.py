"""Copies of a sealed ledger in other folders and in S3. Imported only by a process that seals."""
