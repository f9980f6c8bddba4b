"""The page at `/`: the facts of a run for people."""
