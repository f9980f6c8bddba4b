"""Recover the journal of a run, on this machine or from a copy of it, and the secrets of its codes."""
