"""The running process: read the sources, count, journal, recover after a crash, seal at the end.

`run` is the story of a run. What it uses, in that order:

- the run to continue: `recovery` (the journal in the state folder, or one saved before a Spot stop)
- threads: `loop` (a reader for each source, and the writer's thread), `open_sources`, `stop_requests`
- totals: `writer`, which owns `device_accounts` (of `tracked_device`, `mig_handover`, `earlier_starts`),
  `source_tracker`, `session_tracker` (with `agreed_phase`) and `write_queue`
- training processes: `session_server` on `session_socket`
- beside the metering: `background`, `rolling_seal`
- the end: `sealing`

`launcher` is another process, `flopsd exec`, which starts a daemon beside the job.
"""
