"""Coverage-guided fuzzing of every parser of foreign bytes, and a campaign of mutants of ledgers."""
