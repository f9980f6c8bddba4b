"""What a dcgm-exporter shows, piece by piece; `source` puts it together."""

DEFAULT_INTERVAL_SECONDS = 30.0  # DCGM_EXPORTER_INTERVAL where nobody changed it
