"""The constants that docs/limits.md states, by section, in the order of the tables' values: a module, then its
names."""

CONSTANTS = {
    "Reading devices": """
        flopsd.daemon.accounts.source_tracker: OPENING_NS
        flopsd.daemon.loop: REOPEN_SECONDS, REOPEN_SECONDS_MAX, FIRST_READ_SECONDS, FINAL_READ_SECONDS
        flopsd.sources.nvml.gpu_threads: PATIENCE_SECONDS, GRACE_SECONDS
        flopsd.sources.nvml.source: _OPEN_SECONDS
        flopsd.sources.nvml.gpu_threads: SAMPLING_MAX_NS
        flopsd.sources.nvml.polled_clock: LATE_NS
        flopsd.sources.nvml.gpu_reader: LOOK_AGAIN_NS
        flopsd.sources.nvml.utilization_meter: _STANDSTILL_NS
        flopsd.sources.nvml.counter_check: _STALL_NS, _STRIKES
        flopsd.sources.nvml.counter_calibration: CHECK_NS
        flopsd.sources.nvml.plausibility: READS_OF_ZERO
        flopsd.sources.validate: AHEAD_NS, MOST, MOST_OF_A_DEVICE, MOST_CHARACTERS, MOST_FACTS_BYTES
        flopsd.sources.validate: MOST_DEVICES
        flopsd.core.meter: CLOCK_TOLERANCE_PPM
        flopsd.core.running_counters: SUB_PIPES_TOLERANCE_PPM
        flopsd.core.meter: LONGEST_EXECUTION_NS
        flopsd.sources.ownership.filtered_source: OPEN_SECONDS, ASK_AGAIN_NS, ASK_SECOND_NS, UNASKED_NS, GRACE_SECONDS
        flopsd.daemon.accounts.tracked_device: HOLD_NS
        flopsd.sources.ownership.podresources: DEADLINE_SECONDS, MOST_BYTES
        flopsd.sources.ownership.dcgm_job_mapping: _FILE_BYTES
        flopsd.daemon.device_log: PATIENCE_SECONDS
        flopsd.system.log_rest: REST_SECONDS
        flopsd.sources.probe: ANSWER_SECONDS, CLOSE_SECONDS, _PAUSES_SECONDS
    """,
    "DCGM page": """
        flopsd.sources.dcgm: _SECONDS, _INTERVAL_SECONDS
        flopsd.sources.dcgm.own: _INTERVAL_SECONDS
        flopsd.sources.dcgm.source: _TIMEOUT_SECONDS, _PAGE_BYTES_MAX, _FORGIVEN_NS
        flopsd.sources.dcgm.work: RATIO_MAX, _IN_USE_PERCENT
        flopsd.sources.dcgm.coverage: _JITTER, _RECENT
        flopsd.sources.dcgm.work: _UTILIZATION_STANDS_FOR_NS
        flopsd.sources.dcgm.gpu: _SAMPLE_SLACK_NS
        flopsd.sources.dcgm.own_source: SILENT_START_NS, STARTUP_NS, SILENT_NS
        flopsd.sources.dcgm.own_source: LOOK_NS, LOOK_FOR_PROFILERS_NS, _BACKOFF_NS
        flopsd.sources.dcgm.own_exporter: _LINES, _LINE_BYTES, _TEXT_MAX, GIVE_BACK_SECONDS, END_SECONDS
    """,
    "Neuron monitor": """
        flopsd.sources.neuron.flop_per_chip: PERIOD_SECONDS
        flopsd.sources.neuron.source: FIRST_DOCUMENT_SECONDS, FIRST_DOCUMENTS, STARTUP_NS, SILENT_NS, _JITTER
        flopsd.sources.neuron.counted_periods: _AHEAD_NS
        flopsd.sources.neuron.held_readings: HELD_NS
        flopsd.sources.neuron.counted_periods: _KEPT_NS, _MOST_KEPT
        flopsd.sources.neuron.source: _KEPT_REPORTS, _BACKOFF_NS, _BACKOFF_MAX_NS
        flopsd.sources.neuron.monitor_process: LINE_MAX_BYTES, _BUFFERED, _BUFFERED_BYTES, _SAID_BYTES
        flopsd.sources.neuron.document: SAID_CHARACTERS
        flopsd.sources.neuron.monitor_process: END_SECONDS
        flopsd.sources.neuron.document: _LONGEST_NUMBER, _MOST_PARTS
        flopsd.sources.neuron.flop_per_chip: BUSY_PERCENT
    """,
    "Local API and client": """
        flopsd.settings.client_socket: LONGEST_PATH_BYTES
        flopsd.daemon.sessions.server: MAX_SESSIONS, KEPT_OUT_NS, KEPT_OUT_NS, CONNECTS_A_SECOND
        flopsd.daemon.sessions.peer: HELLO_SECONDS
        flopsd.daemon.sessions.server: SILENT_NS
        flopsd.core.session_protocol: MAX_LINE_BYTES
        flopsd.daemon.sessions.peer: MESSAGES_A_SECOND, BYTES_A_SECOND, LAST_SECONDS
        flopsd.client.connection: ANSWER_SECONDS
        flopsd.client.client: BACKOFF_SECONDS, BACKOFF_SECONDS_MAX, REFUSED_SECONDS, SEND_SECONDS, WORK_SECONDS
        flopsd.client.client: MAX_TRANSITIONS
    """,
    "Sessions and declarations": """
        flopsd.daemon.sessions.tracker: MAX_SESSIONS, MAX_FACTS_BYTES, MAX_COUNTERS
        flopsd.daemon.sessions.declared_models: MAX_LAYERS
        flopsd.daemon.sessions.unwritten_work: BYTES_A_MINUTE, RECORD_BYTES, LATE_NS
        flopsd.daemon.sessions.agreed_phase: MAX_BUCKETS
        flopsd.core.session_protocol: QUEUED_NS
        flopsd.core.declarations: MAX_TEXT, MAX_COUNT
        flopsd.core.declared_facts: MAX_CONFIG_ENTRIES, MAX_CONFIG_DEPTH, MAX_MODULES, MAX_LEFT_OUT
    """,
    "Push": """
        flopsd.telemetry.push.queue: REQUEST_SECONDS, FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, KEPT_PAGES
        flopsd.telemetry.push.frames: MAX_PAGE_BYTES
        flopsd.telemetry.push.http: MAX_ANSWER_BYTES
        flopsd.telemetry.push.feed: LAST_PUSH_SECONDS, FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS
    """,
    "Metrics page and web": """
        flopsd.telemetry.http.server: MAX_CONNECTIONS, MAX_AT_WORK, FAIR_NS
        flopsd.telemetry.http.exchange: REQUEST_SECONDS, KEEP_SECONDS
        flopsd.telemetry.http.request: MAX_HEAD_BYTES
        flopsd.telemetry.http.response: _MIN_COMPRESSED_BYTES
        flopsd.telemetry.http.access: _CHECKS_AT_ONCE, _CACHED, _BCRYPT_BYTES
        flopsd.telemetry.http.scrapes: LATE_NS
        flopsd.telemetry.page.banner: REFRESH_SECONDS
        flopsd.telemetry.rate_history: POINTS
        flopsd.daemon.background: REBIND_SECONDS
        flopsd.telemetry.target_file: RETRY_SECONDS, REMOVE_SECONDS
    """,
    "Daemon, journal and state folder": """
        flopsd.journal.framing: MAX_LINE_BYTES
        flopsd.daemon.sessions.unwritten_work: RECORD_BYTES
        flopsd.settings.parsers: LEAST_ROTATION_SECONDS, LEAST_ROTATION_BYTES
        flopsd.daemon.ledgers.rotation: PATIENCE_SECONDS, RETRY_SECONDS
        flopsd.journal.state_dir: LOCK_TRIES, LOCK_TRY_SECONDS
        flopsd.system.streams: WAIT_MS
        flopsd.daemon.ledgers.state_disk: ENOUGH_BYTES, ENOUGH_DAYS, LOOK_SECONDS
        flopsd.daemon.background: THRESHOLD_SECONDS, STEPS_PPM
        flopsd.system.sd_notify: READY_SECONDS, STATUS_SECONDS, STOP_SECONDS
        flopsd.cli.common: NICENESS
        flopsd.daemon.launcher: FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, SHORTEST_WINDOW_SECONDS
        flopsd.daemon.launcher: RESERVE_SECONDS, KILL_SECONDS
    """,
    "Sealing, ledger and records": """
        flopsd.core.envelope: MAX_ENVELOPE_BYTES, MAX_SIGNATURES
        flopsd.core.untrusted: MAX_DEPTH, MAX_VALUES
        flopsd.core.ledger.devices: MAX_LISTED_GAPS
        flopsd.attestation.evidence.check: MAX_ITEMS
        flopsd.attestation.evidence.nvidia_spdm: MAX_GPUS
        flopsd.core.companions: MAX_COMPANION_BYTES
        flopsd.core.policy.policy_reader: MAX_TEXT, MAX_FLOP
        flopsd.core.ledger.unended: _MAX_CHECKPOINTS
        flopsd.attestation.times: TOLERANCE_NS
        flopsd.core.field_reader: MAX_SHOWN
        flopsd.attestation.signing.public_key: MAX_PEM_BYTES
        flopsd.attestation.signing.secrets: MAX_SECRET_BYTES
        flopsd.daemon.ledgers.child: IDLE_SECONDS, MOST_SECONDS
        flopsd.daemon.ledgers.rolling_seal: HURRY_SECONDS
        flopsd.daemon.ledgers.key_check: RETRY_SECONDS, RECHECK_SECONDS
        flopsd.attestation.signing.aws_kms: TIMEOUT_SECONDS, MAX_ATTEMPTS
        flopsd.attestation.evidence.ec2_identity: _TIMEOUT_SECONDS, _LIMIT_BYTES
        flopsd.attestation.evidence.rfc3161: _TIMEOUT_SECONDS, _LIMIT_BYTES
        flopsd.attestation.evidence.sagemaker_job: _LIMIT_BYTES
        flopsd.attestation.ledger_files: LOCK_SECONDS
    """,
    "Merge and archives": """
        flopsd.core.ledger.merged_completeness: MOST_NODES
        flopsd.core.ledger.merged_types: MAX_SEGMENT
        flopsd.core.ledger.segments: MOST_STARTS
        flopsd.core.ledger.merged_completeness: MAX_LISTED
        flopsd.attestation.merge.readers: MOST_PROCESSES, FEW
        flopsd.attestation.merge.archives: MAX_UNPACKED_BYTES
        flopsd.attestation.merge.ledger_folders: MAX_JOURNAL_BYTES
        flopsd.attestation.merge.archives: MAX_HEADER_BYTES
        flopsd.system.bounded_streams: MOST_TIMES
        flopsd.attestation.merge.archives: FREE_UNPACKED_BYTES
        flopsd.attestation.log_export: FREE_BYTES
    """,
    "S3 storage and copies": """
        flopsd.attestation.storage.s3: CONNECT_SECONDS, READ_SECONDS, CHECKED_BYTES_PER_S, ATTEMPTS
        flopsd.attestation.storage.deliveries: SLOW_SECONDS
        flopsd.cli.copy: HAND_SECONDS, BACKGROUND_SECONDS
        flopsd.daemon.ledgers.late_deliveries: IDLE_SECONDS, FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, LOOK_SECONDS
        flopsd.daemon.ledgers.copying: RESERVE_SECONDS, LEAST_SECONDS
        flopsd.journal.delivery_note: COPIED_BYTES_PER_S
        flopsd.settings.locations: _MAX_DAYS
        flopsd.journal.delivery_note: MAX_NOTE_BYTES
        flopsd.attestation.merge.s3_ledgers: CONNECT_SECONDS, READ_SECONDS, ATTEMPTS
    """,
    "Verify, report and estimate": """
        flopsd.attestation.log_events: MAX_EVENT, LEAST_EVENT, UNJUDGED_EVENTS
        flopsd.attestation.log_export: MAX_CHECKPOINT
        flopsd.attestation.foreign_lines: FURTHER_LINES, FURTHER_LINES_IN_ALL, LATE_MS
        flopsd.attestation.evidence.trust: _LIMIT_BYTES
        flopsd.report.contents.build: MAX_POINTS
        flopsd.report.contents.inventory: MAX_ROWS
        flopsd.report.report_text: MAX_SHOWN
        flopsd.report.contents.coverage: MAX_GAPS, MAX_STRIPS
        flopsd.report.contents.verification: MAX_FOREIGN
        flopsd.report.ledger_json: MAX_TEXT, MAX_MEMBERS
        flopsd.settings.load: _MAX_BYTES
        flopsd.cli.estimate: _MAX_BYTES
        flopsd.core.architecture.config_fields: MAX_SIZE
    """,
}
