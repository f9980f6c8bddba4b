// The codes by which a ledger explains its figures (docs/ledger-codes.md).

const _LIMITS = ["false_driver", "executed_is_not_counted", "no_legal_advice"];
const _OF_NODE = [
  "fma_is_two_and_dense", "measured_is_cycles_times_rate", "undeclared_format", "claims_narrow_nothing",
  "phase_for_whole_reading", "integers_beside_flop", "low_without_bounded", "high_with_margins_and_ceilings",
  "unrated_pipe", "energy_by_counters", "utilization_is_a_ceiling", "cycles_run_on", "clock_of_activity",
  "count_is_the_vendors", "operators_are_the_processes_word",
];
const _OF_SUM = [
  "sums_are_exact", "guidelines_need_all", "missing_has_no_ceiling", "energy_of_counted", "device_names", "times_of_boots",
];
/** In the order in which a ledger has them. */
export const EXECUTED_METHODS = ["cycles", "activity", "count", "operator_count", "none"];
export const ARCHITECTURE_METHODS = ["shape", "weights"];
export const GUIDELINES_METHOD = "annex_a1";

/** @param {string} kind @param {boolean} isSegment */
export function claim(kind, isSegment) {
  const more = [...(isSegment ? ["segment"] : []), ...(kind === "lineage" ? ["lineage_is_declared"] : [])];
  return { states: kind === "node" ? "read_from_the_driver" : "sum_of_ledgers", limits: [..._LIMITS, ...more] };
}

/** @param {string} kind */
export function assumptions(kind) {
  return kind === "node" ? _OF_NODE : _OF_SUM;
}

/** Those that occur, each once, in the order of the set. @param {string[]} set @param {string[]} found */
export function ordered(set, found) {
  return set.filter((one) => found.includes(one));
}

/** The warning of a ratio. @param {string} name @param {string | null} measured @param {boolean | null} within */
export function warning(name, measured, within) {
  if (measured === null) return "NOT_COMPARABLE";
  if (within) return null;
  if (name === "framework/architecture") return "FRAMEWORK_COUNT_DIFFERS";
  const more = BigInt(measured) > 1000000n ? "MORE" : "LESS";
  return name === "executed/operator_count" ? `${more}_MEASURED_THAN_THE_OPERATORS_COUNT`
    : `${more}_EXECUTED_THAN_THE_MODEL_NEEDS`;
}
