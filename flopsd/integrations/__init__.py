"""flopsd inside training frameworks. Each module here imports its framework; nothing else in flopsd imports it.

Scripts import the modules at this level. Below them, `passes` counts what passes through a model, `operators` what
PyTorch dispatches, and `modules` hooks both to PyTorch modules.
"""
