"""The running process: read the sources, count, journal, recover after a crash, seal at the end.

`run` carries a run from its settings to its sealed ledger; `loop` has its threads. They use, in this order:

- `continued_run`: the run to continue; `recovery` reads its journal here, or restores one saved before a Spot stop
- `open_sources`, `stop_requests`
- `writing`: the one writer, its journal and snapshots; it owns the totals in `accounts` and what `sessions` declared
- `background` and `outputs`: the tasks alongside the metering
- `ledgers`: seal, rotate, copy and deliver

`launcher` runs in another process, `flopsd exec`, which starts the job and a daemon.
"""
