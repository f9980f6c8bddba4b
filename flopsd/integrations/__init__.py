"""flopsd inside training frameworks. Each module here imports its framework; nothing else in flopsd imports it."""
