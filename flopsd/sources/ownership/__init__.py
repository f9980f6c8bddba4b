"""Which of the machine's devices belong to the metered job."""
