"""Forward and backward passes of a model: their tokens, rows and pairs, and whether they have a backward pass."""
