"""The running process: read the sources, count, journal, recover after a crash, seal at the end.

`run` carries a run from its settings to its sealed ledger. It uses, in this order:

- the run to continue: `recovery` (the journal in the state folder, or one saved before a Spot stop)
- threads: `loop` (a reader for each source, and the writer's thread), `open_sources`, `stop_requests`
- totals: `writer`, which owns `device_accounts` (of `tracked_device`, `mig_handover`, `earlier_starts`),
  `source_tracker`, `session_tracker` (with `agreed_phase`) and `write_queue`
- training processes: `session_server` on `session_socket`
- alongside the metering: `background`, `rolling_seal`
- the end: `sealing`

`launcher` runs in another process, `flopsd exec`, which starts the job and a daemon.
"""
