"""From journal records to the history of a run, and from there to the in-toto statement."""
