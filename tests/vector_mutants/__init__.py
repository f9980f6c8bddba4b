"""How much the test vectors decide: faults planted in the second and third implementations, one at a time."""
