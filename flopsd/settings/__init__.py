"""From flags, environment and YAML to typed values; the packaged data files; where the process runs."""
