"""AMD Instinct GPUs as a source for flopsd. The source is in `flopsd_amd.source`."""
