"""NVIDIA's driver library and its counters, piece by piece; `flopsd.sources.nvml` puts them together."""
