"""The Grafana dashboards as code; `python -m scripts.dashboards` writes config/grafana/*.json."""
