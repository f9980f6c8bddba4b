"""True against metered FLOP on a real NVIDIA machine: `make hardware`, or `python -m tests.hardware --out DIR`.

Needs PyTorch and flopsd's own dependencies, no pytest. Nothing here is imported by pytest unless a test asks,
and PyTorch is imported only when a load runs.
"""
