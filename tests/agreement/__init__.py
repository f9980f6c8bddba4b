"""Agreement between the implementations of the ledger's format: random ledgers and mutants through all of them."""
