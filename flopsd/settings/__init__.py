"""Typed settings from flags, environment and YAML; the packaged data files; the platform of the process."""
