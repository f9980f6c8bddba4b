"""What a dcgm-exporter shows, piece by piece; `flopsd.sources.dcgm` puts it together."""
