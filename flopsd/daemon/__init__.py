"""The running process: sources are read, totals kept, records written, the run ended and sealed."""
