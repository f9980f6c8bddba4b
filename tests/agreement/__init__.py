"""Whether the implementations of the ledger's format agree: random ledgers and mutants, through all of them."""
