"""The totals of devices: which are tracked, which source reads each, what is a gap."""
