// Why a rule applies and what it hangs on, by notes (docs/ledger-codes.md, Findings).
import { parseFraction, text } from "./policy.js";

/** @typedef {import("./basics.js").J} J */
const _KINDS = /** @type {Record<string, string>} */ ({
  known: "base_flop_known", estimated: "base_flop_estimated", unknown: "base_flop_unknown",
});
const _ORDER = ["modification", "method", "base.kind", "base.systemic", "base.flop"];

/** @param {J[]} notes Each once, the first of it. */
export function once(notes) {
  const found = new Map(notes.map((one) => [JSON.stringify(one), one]));
  return [...found.values()];
}

/** The notes of one condition. @param {string} name @param {J} when @param {boolean | null} holds
 * @param {import("./base_model.js").Declared} declared @param {string[]} conflict @returns {J[]} */
function ofCondition(name, when, holds, { method, methods, base }, conflict) {
  const codes = (/** @type {string} */ other) => (conflict.length ? conflict : [other]).map((code) => ({ code }));
  if (name === "modification") {
    if (method === null) return [{ code: "method_not_declared" }];
    if (method !== "pretraining") return [{ code: "base_modified" }];
    return holds === null ? codes("pretraining_with_base") : [{ code: "no_base_model" }];
  }
  if (name === "method" && methods.includes(null)) return [{ code: "method_not_declared" }];
  if (name === "method") return methods.map((one) => ({ code: "method_is", method: one }));
  if (base === null) return codes("base_not_declared");
  if (name === "base.kind") return [{ code: _KINDS[base.kind] }];
  if (name === "base.systemic") {
    if (base.systemic === null) return [{ code: "base_systemic_not_declared" }];
    return [{ code: base.systemic ? "base_systemic" : "base_not_systemic" }];
  }
  const wanted = when["base.flop"];
  const flop = text(parseFraction(wanted.above ?? wanted.not_above));
  if (holds === null) return [{ code: "base_above_not_known", flop }];
  return [{ code: ("above" in wanted) === holds ? "base_above" : "base_not_above", flop }];
}

/** @param {J} when @param {Map<string, boolean | null>} conditions @param {boolean | null} applies
 * @param {import("./base_model.js").Declared} declared @param {string[]} conflict @returns {J[]} */
export function ofConditions(when, conditions, applies, declared, conflict) {
  const names = _ORDER.filter((name) => conditions.has(name) && conditions.get(name) === applies);
  if (!conditions.size) return [{ code: "every_account" }];
  const chosen = applies === false ? names.slice(0, 1) : names;
  return once(chosen.flatMap((name) => ofCondition(name, when, conditions.get(name) ?? null, declared, conflict)));
}

/** What a state that is open hangs on. @param {J} found @param {boolean} open Whether the account is not whole.
 * @param {boolean} lowered Whether it would be above if it applied @returns {J[]} */
export function ofState({ state, value, low, high }, open, lowered) {
  if (lowered) return [{ code: "above_if_it_applies" }];
  if (state !== "indeterminate") return [];
  if (open) return [{ code: "account_not_whole" }];
  if (value.high === null) return [{ code: "no_upper_bound" }];
  if (high === null) return [{ code: "threshold_not_known" }];
  const same = low.over === high.over && low.under === high.under;
  return [{ code: same ? "threshold_between" : "both_answers" }];
}
