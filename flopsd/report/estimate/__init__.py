"""The FLOP, hours and costs of a planned training, as JSON and text."""
