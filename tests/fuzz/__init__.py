"""Coverage-guided fuzzing of everything that reads bytes of others, and a campaign of mutants of ledgers."""
