"""Which rules apply to a run, what they count, and where the run stands."""
