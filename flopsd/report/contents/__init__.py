"""The contents of a report as pure data, ready to be shown."""
