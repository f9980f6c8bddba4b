"""How much the test vectors decide: faults planted in the second and third implementation, one at a time."""
