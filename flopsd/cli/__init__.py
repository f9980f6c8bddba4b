"""The command line: one module per verb. The only room that exits the process."""
