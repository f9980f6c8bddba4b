"""The append-only, hash-chained file and the state folder that it lies in."""
