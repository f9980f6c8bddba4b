"""The kinds of panel used by both dashboards.

Each takes a title, a description, the text to show while its queries return no series, and queries with their legends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statushistory,
    table,
    timeseries,
)
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BarGaugeValueMode,
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphGradientMode,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    StackingMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    ValueMap,
)

from scripts.dashboards.meanings import (
    COUNT,
    NO_UPPER_END,
    PLAIN,
    SHARE,
    UNKNOWN,
    Scale,
    by_thresholds,
    shades_of,
    thresholds,
)

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
CARRIED = "${datasource:queryparam}&${__url_time_range}"  # of every link: the data source and the time range
Query = tuple[str, str]


def _put(panel: Any, title: str, about: str, empty: str, size: tuple[int, int], queries: Sequence[Query]) -> Any:
    """Fill a panel. Width is of 24 columns. Stats, bar gauges and tables query the newest value, the others the
    range."""
    panel = panel.title(title).description(about).no_value(empty).span(size[0]).height(size[1]).datasource(SOURCE)
    for number, (expression, legend) in enumerate(queries):
        target = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + number))
        if isinstance(panel, table.Panel):
            target = target.instant().format("table")
        elif isinstance(panel, stat.Panel | bargauge.Panel):
            target = target.instant().format("time_series")
        else:
            target = target.range()
        panel = panel.with_target(target)
    return panel


def number(title: str, about: str, empty: str, unit: str, expression: str, *, scale: Scale = PLAIN) -> Any:
    found = numbers(title, about, empty, (expression, title), unit=unit, scale=scale, width=3)
    return found.text_mode(BigValueTextMode.VALUE).mappings([NO_UPPER_END, UNKNOWN])


def numbers(title: str, about: str, empty: str, *queries: Query, unit: str, scale: Scale, width: int) -> Any:
    """Figures side by side, each named by its legend."""
    panel = _put(stat.Panel(), title, about, empty, (width, 4), queries).unit(unit).thresholds(thresholds(scale))
    panel = panel.color_scheme(by_thresholds()).color_mode(BigValueColorMode.VALUE).graph_mode(BigValueGraphMode.NONE)
    panel = panel.text_mode(BigValueTextMode.VALUE_AND_NAME).orientation(VizOrientation.VERTICAL)
    panel = panel.mappings([UNKNOWN])
    return panel.min(0).max(1) if unit == SHARE else panel


def banner(title: str, about: str, empty: str, expression: str, mapped: ValueMap) -> Any:
    """A full-width line whose text and colour depend on the value."""
    panel = _put(stat.Panel(), title, about, empty, (24, 3), [(expression, title)]).unit(COUNT)
    panel = panel.mappings([mapped, UNKNOWN]).thresholds(thresholds(PLAIN)).color_scheme(by_thresholds())
    panel = panel.color_mode(BigValueColorMode.BACKGROUND_SOLID).graph_mode(BigValueGraphMode.NONE)
    return panel.text_mode(BigValueTextMode.VALUE)


def lines(
    title: str,
    about: str,
    empty: str,
    unit: str,
    *queries: Query,
    scale: Scale = PLAIN,
    width: int = 12,
    log: bool = False,
    stacked: bool = False,
) -> Any:
    """Lines over time in shades of the scale's first colour; a scale of several colours adds dashes at its values."""
    panel = _put(timeseries.Panel(), title, about, empty, (width, 8), queries).unit(unit).line_width(2).fill_opacity(8)
    panel = panel.thresholds(thresholds(scale)).show_points(VisibilityMode.NEVER).gradient_mode(GraphGradientMode.NONE)
    several = len(scale) > 1
    panel = panel.color_scheme(shades_of(PLAIN[0][1] if several else scale[0][1]))
    style = GraphTresholdsStyleMode.DASHED if several else GraphTresholdsStyleMode.OFF
    panel = panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    panel = panel.legend(legend.show_legend(True))
    if log:
        scaled = common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10)
        panel = panel.scale_distribution(scaled).fill_opacity(0)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(40)
    return panel.min(0).max(1) if unit == SHARE else panel if log else panel.min(0)


def history(title: str, about: str, empty: str, query: Query, *, scale: Scale) -> Any:
    """A row of cells per series, coloured by the scale."""
    panel = _put(statushistory.Panel(), title, about, empty, (24, 7), [query]).unit(SHARE).min(0).max(1)
    panel = panel.thresholds(thresholds(scale)).color_scheme(by_thresholds())
    return panel.show_value(VisibilityMode.NEVER).max_data_points(120)


def shares(title: str, about: str, empty: str, *queries: Query, scale: Scale, height: int = 8) -> Any:
    """Bars from 0 to 100 %; a larger value fills the bar and is written out."""
    panel = _put(bargauge.Panel(), title, about, empty, (12, height), queries).unit(SHARE).min(0).max(1)
    panel = panel.thresholds(thresholds(scale)).color_scheme(by_thresholds()).mappings([NO_UPPER_END, UNKNOWN])
    panel = panel.orientation(VizOrientation.HORIZONTAL).decimals(4).value_mode(BarGaugeValueMode.TEXT)
    return panel.display_mode(BarGaugeDisplayMode.BASIC)


def rows(title: str, about: str, empty: str, *queries: Query, order: Sequence[str], size: tuple[int, int]) -> Any:
    """A table with one line per set of labels. A query's legend is the heading of its column; without a legend there is
    no column. `order` lists labels and legends from left to right."""
    panel = _put(table.Panel(), title, about, empty, size, queries).unit(COUNT).thresholds(thresholds(PLAIN))
    panel = panel.color_scheme(by_thresholds()).with_transformation(DataTransformerConfig("merge", options={}))
    panel = panel.override_by_field_type("string", [DynamicConfigValue("noValue", "-")])
    headings = {_column(at, len(queries)): legend for at, (_, legend) in enumerate(queries)}
    names = {legend: name for name, legend in headings.items()}
    options = {
        "excludeByName": dict.fromkeys(["Time", *(name for name, legend in headings.items() if not legend)], True),
        "indexByName": {names.get(one, one): at for at, one in enumerate(order)},
        "renameByName": {name: legend for name, legend in headings.items() if legend},
    }
    return panel.with_transformation(DataTransformerConfig("organize", options=options))


def _column(query: int, queries: int) -> str:
    """Grafana's name for the values of a query."""
    return "Value" if queries == 1 else f"Value #{chr(ord('A') + query)}"


def column(panel: Any, name: str, unit: str, scale: Scale | None = None) -> Any:
    """Set the unit of a table's column, and colour its text by a scale."""
    found = [DynamicConfigValue("unit", unit), DynamicConfigValue("noValue", "not known")]
    if scale is not None:
        found += [_thresholds(scale), DynamicConfigValue("custom.cellOptions", {"type": "color-text"})]
    return panel.override_by_name(name, found)


def or_none(expression: str, label: str, scraped: str) -> str:
    """The expression's series; if it has none and `scraped` has any, zero under the name "none"."""
    return f'{expression} or on () label_replace(0 * {scraped}, "{label}", "none", "", "")'


def in_words(panel: Any) -> Any:
    """Replace the label `bound` at the end of legends by the words of flopsd's other outputs."""
    for bound, words in (("low", "at least"), ("high", "at most")):
        options = {"regex": f"/: {bound}$/", "renamePattern": f": {words}"}
        panel = panel.with_transformation(DataTransformerConfig("renameByRegex", options=options))
    return panel


def scaled(panel: Any, regexp: str, scale: Scale) -> Any:
    """Colour values with matching names by a separate scale."""
    return panel.override_by_regexp(regexp, [_thresholds(scale)])


def _thresholds(scale: Scale) -> DynamicConfigValue:
    steps = [{"value": value, "color": colour} for value, colour in scale]
    return DynamicConfigValue("thresholds", {"mode": "absolute", "steps": steps})


def linked_column(panel: Any, name: str, title: str, url: str) -> Any:
    return panel.override_by_name(name, [DynamicConfigValue("links", [{"title": title, "url": url}])])


def coloured(panel: Any, regexp: str, colour: str, *, dashed: bool = False) -> Any:
    """Give series with matching legends a separate colour."""
    found = [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})]
    if dashed:
        found.append(DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}))
    return panel.override_by_regexp(regexp, found)


def linked(panel: Any, title: str, url: str) -> Any:
    """Add a link to each of the panel's values."""
    return panel.data_links([dashboard.DashboardLink(title).type(DashboardLinkType.LINK).url(url)])
