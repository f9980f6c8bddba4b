"""Journal records -> history -> one rated view of the run -> in-toto statement; `merged_*`: sums of several ledgers."""
