"""Evidence that a ledger carries besides its figures, to make false figures harder, and the checks of it."""
