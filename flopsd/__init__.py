"""flopsd: measured, provable training compute."""

__version__ = "0.1.0"
