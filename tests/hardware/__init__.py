"""True against metered FLOP on a real NVIDIA machine: `make hardware`, or `python -m tests.hardware --out DIR`.

Needs PyTorch and flopsd's own dependencies, but no pytest. pytest imports nothing from here unless a test asks for it,
and PyTorch is imported only when a load runs.
"""
