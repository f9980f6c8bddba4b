"""The one writer, its journal with the queue of records, and the snapshots that it publishes."""
