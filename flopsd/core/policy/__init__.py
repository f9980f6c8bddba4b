"""Which rules apply to a run, what they count, and how the run compares with them."""
