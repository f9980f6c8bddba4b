"""The page at `/`: the facts of a run for people. `markup` makes HTML that nothing can break out of."""
