"""What a ledger carries beside its figures to make lying harder, and how it is checked."""
