"""Mutation testing: plants deliberate faults in a copy of the tree, one at a time, and runs the tests that reach them.

`make mutants`, or `python -m tests.mutants --help`. Not part of CI: a campaign of 300 faults takes about twenty
minutes.
"""
