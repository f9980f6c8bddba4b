"""A journal becomes a ledger: seal, rotate, copy and deliver it, with the key and the disk checked meanwhile."""
