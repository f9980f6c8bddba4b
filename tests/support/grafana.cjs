// What Grafana shows: @grafana/data applied to panels and the answers to their queries, both from stdin as JSON
// ([{panel, answers: [{refId, table, series: [{metric, legend, values}]}]}]). Prints for each panel the list of its
// values: {name, text, color}, the color as its name where the theme has one. GRAFANA_DATA names the node_modules.
"use strict";
globalThis.navigator ??= { language: "en-US", languages: ["en-US"] };
const path = require("node:path");
const data = require(path.join(process.env.GRAFANA_DATA, "@grafana/data"));
const { firstValueFrom } = require(path.join(process.env.GRAFANA_DATA, "rxjs"));

globalThis.window ??= globalThis; // after the packages, which would take it for a browser's
const theme = data.createTheme();
const COLORS = ["green", "orange", "red", "blue", "purple"];
const NAMES = new Map(COLORS.map((name) => [theme.visualization.getColorByName(name), name]));
// Grafana's own defaults, which hold where a panel sets nothing.
const STEPS = [{ value: null, color: "green" }, { value: 80, color: "red" }];
const DEFAULTS = { thresholds: { mode: "absolute", steps: STEPS } };
const PALETTE = { timeseries: "palette-classic" };

const { string: TEXT, number: NUMBER, time: TIME } = data.FieldType;
const PROPERTIES = {
  unit: data.unitOverrideProcessor,
  min: data.numberOverrideProcessor,
  max: data.numberOverrideProcessor,
  decimals: data.numberOverrideProcessor,
  displayName: data.displayNameOverrideProcessor,
  noValue: data.stringOverrideProcessor,
  color: data.identityOverrideProcessor,
  thresholds: data.thresholdsOverrideProcessor,
  mappings: data.valueMappingsOverrideProcessor,
  links: data.dataLinksOverrideProcessor,
};
const CUSTOM = ["custom.cellOptions", "custom.lineStyle"];
const always = { shouldApply: () => true };
const registry = new data.FieldConfigOptionsRegistry(() => [
  ...Object.entries(PROPERTIES).map(([id, process]) => ({ id, path: id, name: id, process, ...always })),
  ...CUSTOM.map((id) => ({ id, path: id.slice(7), name: id, isCustom: true, process: (value) => value, ...always })),
]);
const TRANSFORMERS = ["mergeTransformer", "organizeFieldsTransformer", "renameByRegexTransformer"];
data.standardTransformersRegistry.setInit(() =>
  TRANSFORMERS.map((name) => data.standardTransformers[name]).map((found) => ({
    id: found.id, name: found.name, transformation: async () => found, aliasIds: [], editor: () => null,
  })),
);

const numeric = (text) => Number(text.replace("Inf", "Infinity"));

function frames({ refId, table, series }, several) {
  if (!table) {
    return series.map(({ metric, legend, values }) => {
      const time = { name: "Time", type: TIME, config: {}, values: values.map(([seconds]) => seconds * 1000) };
      const config = { displayNameFromDS: legend };
      const value = { name: "Value", type: NUMBER, config, labels: metric, values: values.map(([, text]) => numeric(text)) };
      return data.toDataFrame({ refId, fields: [time, value] });
    });
  }
  if (!series.length) return [];
  const field = (name, type, value) => ({ name, type, config: {}, values: series.map(value) });
  const labels = [...new Set(series.flatMap(({ metric }) => Object.keys(metric)))];
  const fields = [
    field("Time", TIME, ({ values }) => values.at(-1)[0] * 1000),
    ...labels.map((name) => field(name, TEXT, ({ metric }) => metric[name] ?? "")),
    field(several ? `Value #${refId}` : "Value", NUMBER, ({ values }) => numeric(values.at(-1)[1])),
  ];
  return [data.toDataFrame({ refId, fields })];
}

function shown(name, display) {
  const color = NAMES.get(display.color) ?? display.color ?? "";
  return { name: name ?? "", text: data.formattedValueToString(display), color };
}

async function show({ panel, answers }) {
  const defaults = { ...DEFAULTS, color: { mode: PALETTE[panel.type] ?? "thresholds" }, ...panel.fieldConfig.defaults };
  const fieldConfig = { defaults, overrides: panel.fieldConfig.overrides ?? [] };
  const raw = answers.flatMap((answer) => frames(answer, answers.length > 1));
  const replaceVariables = (text) => text;
  const context = { interpolate: replaceVariables };
  const transformed = await firstValueFrom(data.transformDataFrame(panel.transformations ?? [], raw, context));
  const common = { fieldConfig, replaceVariables, theme };
  const series = data.applyFieldOverrides({ ...common, data: transformed, fieldConfigRegistry: registry });
  if (panel.type === "stat" || panel.type === "bargauge") {
    const reduceOptions = { values: false, calcs: ["lastNotNull"], ...panel.options?.reduceOptions };
    const found = data.getFieldDisplayValues({ ...common, data: series, reduceOptions });
    return found.map((one) => shown(one.display.title, one.display));
  }
  if (!series.some((frame) => frame.length)) return [{ name: "", text: defaults.noValue ?? "No data", color: "" }];
  return series.flatMap((frame) =>
    frame.fields
      .filter((field) => field.type !== TIME)
      .flatMap((field) => {
        const values = panel.type === "table" ? field.values : [field.values.at(-1)];
        return values.map((value) => shown(data.getFieldDisplayName(field, frame, series), field.display(value)));
      }),
  );
}

async function main() {
  let text = "";
  for await (const chunk of process.stdin) text += chunk;
  const answers = [];
  for (const one of JSON.parse(text)) answers.push(await show(one));
  process.stdout.write(JSON.stringify(answers));
}

main();
