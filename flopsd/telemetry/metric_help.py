"""The HELP text of each metric family, by its name without `_total`."""

from __future__ import annotations

HELP = {
    # Devices
    "flopsd_flop": "Floating-point operations executed, as measured; a count, not a rate. Gaps and intervals that were "
    "only bounded are not in it: see flopsd_flop_ceiling_total. Some operations of pipe fp32, of pipe tensor (work "
    "that no counter of one kind of operation covers) and of pipe all without a declared format may be integer "
    "operations. Evidence operator_count is software's count by the training process, which nobody checked.",
    "flopsd_integer_operations": "Integer operations of the tensor cores, as measured; they are not in "
    "flopsd_flop_total. Absent for a device whose counters do not distinguish integers.",
    "flopsd_flop_ceiling": "The most FLOP possible in intervals that were not measured as they passed (gaps, evidence "
    "utilization); a ceiling, not an estimate. Work recovered for a gap is in flopsd_flop_total and stays in this "
    "counter too, which cannot fall. Absent for a device whose peak is unknown, or with a gap of unknown length.",
    "flopsd_energy_joules": "Energy by the device's own counter.",
    "flopsd_observed_seconds": "Device time that was observed, by evidence: cycles, activity and count measure, "
    "utilization only bounds.",
    "flopsd_gap_seconds": "Device time that was not observed or does not count for this job, by reason.",
    "flopsd_recovered_seconds": "Gap time whose work was recovered afterwards from running counters: it is in "
    "flopsd_flop_total.",
    "flopsd_pipe_activity_ratio": "Share of the last interval's cycles in which the pipe was active; for pipe tensor, "
    "only what no counter of one kind of operation covers.",
    "flopsd_utilization_ratio": "Share of time in which any kernel ran, according to the driver; not a measure of how "
    "much was computed.",
    "flopsd_sm_clock_hertz": "SM clock at the last reading.",
    "flopsd_device_up": "1 if the device's last reading counted, 0 if it was a gap. Absent before the first reading, "
    "at the end, and while the device is another job's, or others count in its place.",
    "flopsd_peak_flop_per_second": "Dense datasheet peak by pipe and format, of BF16 and of the formats that work is "
    "counted in: the denominator of HFU and MFU.",
    "flopsd_device_info": 'The device; always 1. shared="true": it is known to be shared, so not all of its FLOP are '
    "of this job. A MIG slice has gpu_instance_id, profile and its GPU's UUID as parent, which dcgm-exporter names "
    "GPU_I_ID, GPU_I_PROFILE and UUID.",
    # Run, sources, journal, seals
    "flopsd_run_flop": "Whole run, earlier daemon starts included. low, measured and high are bounds of ONE figure: "
    "never sum them. measured is absent while nothing was measured, high is +Inf while no ceiling is known. "
    "guidelines: what contributes to parameter updates; guidelines_cumulative: generated data too; architecture: "
    "counted from model and tokens, absent while no process declares them.",
    "flopsd_threshold_flop": "Threshold of a policy's rule that applies to this run or may; low and high differ where "
    "the base model's compute is an estimate or not declared.",
    "flopsd_verdict": "1 for the state of a rule: below and above are certain, except where above rests on evidence "
    "operator_count in low; indeterminate: not known. Rules that do not apply are absent. Indicative, not legal "
    "advice.",
    "flopsd_threshold_ratio": "The run's FLOP as a ratio of a threshold: low is certain, high a ceiling and not an "
    "estimate, measured is absent where the FLOP or the threshold is only bounded. Never sum bounds. quantity: base+ "
    "includes the base model's compute.",
    "flopsd_rule_info": "A policy's rule that applies to this run or may; always 1. consequence: what follows from "
    "being above, from when, what it assumes and what no meter decides.",
    "flopsd_operator_counts_unused": "Training processes whose count of operators is in no figure, by reason; absent "
    "if there is none. count_exceeds_ceiling: the count is more than their device can have executed.",
    "flopsd_run_info": 'The run; always 1. replay="true": read from a recording, no hardware was metered.',
    "flopsd_build_info": "This flopsd; always 1.",
    "flopsd_daemon_starts": "How often the daemon was started for this run.",
    "target_info": "The OpenTelemetry resource.",
    "flopsd_source_up": "1 while the source answers.",
    "flopsd_source_errors": "Readings that became gaps, by reason.",
    "flopsd_source_read_duration_seconds": "Time that the last read took.",
    "flopsd_last_reading_timestamp_seconds": "When the source last gave a reading that was not a gap, "
    "by the wall clock of the scrape.",
    "flopsd_source_child_starts": "How often flopsd started the program through which it reads the source, such as "
    "dcgm-exporter.",
    "flopsd_source_child_cpu_seconds": "CPU time of the program that flopsd starts, over all its starts.",
    "flopsd_source_child_memory_bytes": "Resident memory of the program that flopsd starts.",
    "flopsd_journal_records": "Records in the journal.",
    "flopsd_journal_last_append_timestamp_seconds": "When a record was last made durable, by the wall clock of the "
    "scrape.",
    "flopsd_journal_writable": "0 while the journal cannot be written and totals are only in memory.",
    "flopsd_journal_put_back": "How often this daemon put the journal back that another process had removed, replaced "
    "or changed.",
    "flopsd_run_ended": "1 once the run has ended properly, until the daemon exits: its series may disappear after "
    "that.",
    "flopsd_time_seconds": "The host's wall clock at the scrape.",
    "flopsd_signing_key_usable": "1 if the signing key could sign when it was last tried, 0 if not; absent before it "
    "was tried.",
    "flopsd_signing_key_fault_info": "Why the signing key cannot sign; always 1, absent while it can. pin_refused: the "
    "token refused the PIN, which is not tried again until it changes.",
    "flopsd_ledger_deliveries_pending": "Sealed ledgers in the state folder, including those of earlier runs, that a "
    "destination still lacks; absent while that is not known.",
    "flopsd_journal_size_bytes": "Size of the current journal and of closed segments that still wait, without the "
    "copies next to ledgers.",
    "flopsd_state_free_bytes": "Free space on the file system of the state folder; absent where that is not known.",
    "flopsd_closed_segments_waiting": "Closed segments that are not sealed yet, or not yet at every destination; "
    "absent without rotation.",
    "flopsd_ledger_seal_interval_seconds": "Time between rolling seals; absent without rolling seals.",
    "flopsd_ledger_last_seal_timestamp_seconds": "When this daemon last sealed the ledger on this machine; absent "
    "before the first time.",
    "flopsd_ledger_seal_failures": "Rolling seals that failed.",
    "flopsd_ledger_last_copy_timestamp_seconds": "When this daemon last copied a rolling seal to every destination; "
    "absent before the first time.",
    "flopsd_ledger_copy_failures": "Rolling seals that could not be copied to every destination; absent without "
    "destinations.",
    # The daemon process
    "process_virtual_memory_bytes": "Virtual memory size in bytes.",
    "process_resident_memory_bytes": "Resident memory size in bytes.",
    "process_start_time_seconds": "Start time of the process since unix epoch in seconds.",
    "process_cpu_seconds": "Total user and system CPU time spent in seconds.",
    "process_open_fds": "Number of open file descriptors.",
    "process_max_fds": "Maximum number of open file descriptors.",
    # Pushing
    "flopsd_push_successes": "Requests that the receiver accepted.",
    "flopsd_push_failures": "Requests that failed, by reason; most are tried again.",
    "flopsd_push_dropped_snapshots": "Pages that were given up: refused for good, or the oldest in a full queue. "
    "Totals lose nothing by it.",
    "flopsd_push_queued_snapshots": "Pages that are still to be pushed.",
    "flopsd_push_last_success_timestamp_seconds": "When the receiver last accepted a page.",
}
