"""flopsd in training frameworks. Each module here imports its framework; nothing else of flopsd imports them."""
