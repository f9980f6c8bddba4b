"""The edges of the operating system: time, whole-file writes, standard streams, signals, process groups, sd_notify."""
