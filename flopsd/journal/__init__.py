"""The append-only, hash-chained journal file, and the state folder that holds it."""
