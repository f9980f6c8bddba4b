"""Evidence that a ledger carries besides its figures to make false ones harder, and its checks."""
