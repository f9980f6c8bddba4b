"""The interface to the operating system: time, atomic files, standard streams, signals, process groups, sd_notify."""
