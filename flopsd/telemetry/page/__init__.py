"""The page at `/`: the status of a run for people."""
