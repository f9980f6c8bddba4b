"""A dashboard without panels: data source, variables, annotations from alerts, links to the other dashboards."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from scripts.dashboards.meanings import BAD, NEUTRAL, WARN
from scripts.dashboards.panels import CARRIED, SOURCE

RUN_UID, FLEET_UID = "flopsd-run", "flopsd-fleet"  # the alerts link to them
TO_RUN = f"/d/{RUN_UID}/?{CARRIED}&var-run="
ABOUT = "Needs the recording rules of flopsd.rules.yml, and flopsd.alerts.yml for its annotations. "
ENDS = "At most is an upper bound, not an estimate; gaps count in it and in no other figure. "
FIRING = 'ALERTS{alertname=~"Flopsd.*", alertstate="firing"'
SEVERITIES = (("critical", BAD), ("warning", WARN), ("info", NEUTRAL))


def new(title: str, uid: str, about: str) -> Any:
    found = dashboard.Dashboard(title).uid(uid).description(about + ENDS + ABOUT).tags(["flopsd"]).readonly()
    found = found.refresh("30s").time("now-1h", "now").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
    return found.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))


def choice(name: str, label: str, values: str) -> Any:
    found = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(values)
    return found.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)


def choices(name: str, label: str, values: str) -> Any:
    """A multi-value variable, by default all values, in numerical order."""
    found = choice(name, label, values).multi(True).include_all(True).all_value(".*")
    every = VariableOption(selected=True, text="All", value="$__all")
    return found.sort(VariableSort.NUMERICAL_ASC).current(every)


def with_alerts(found: Any, *filters: str) -> Any:
    """Add an annotation per severity for alerts that match one of the filters (`, label="value"`, or empty)."""
    for severity, colour in SEVERITIES:
        expression = " or ".join(f'{FIRING}, severity="{severity}"{more}}}' for more in filters)
        alerts = dashboard.AnnotationQuery().name(f"Alerts: {severity}").datasource(SOURCE).enable(True)
        found = found.annotation(alerts.icon_color(colour).expr(expression))
    return found


def link(title: str, uid: str) -> Any:
    found = dashboard.DashboardLink(title).type(DashboardLinkType.LINK).url(f"/d/{uid}/?${{datasource:queryparam}}")
    return found.keep_time(True).icon("dashboard")


def completed(encoded: Any) -> Any:
    """The dashboard's JSON plus the texts of annotations, for which the SDK has no fields."""
    for annotation in encoded["annotations"]["list"]:
        annotation |= {
            "step": "60s",
            "tagKeys": "severity,run_id,node,rule,lineage",
            "textFormat": "{{run_id}} {{node}} {{instance}} {{lineage}} {{rule}}",
            "titleFormat": "{{alertname}}",
        }
    return encoded
