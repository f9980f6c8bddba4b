// The architecture basis. Its figures follow from the shapes of some sixty families of models, which this verifier does
// not read: where a ledger may have one, it is taken as stated, and named as not verified.

/** @typedef {import("./basics.js").J} J */
/** @typedef {{stated: J | null, written: J, unverified: string[]}} Basis */

const _TOTALS = "predicate.totals";

/** The code of why there is none; null: some process declared a model and counted work of it.
 * @param {import("./history.js").History} history */
function absentReason(history) {
  const all = [...history.sessions.values()].map(({ facts, work }) => ({
    model: facts.model_config !== undefined || facts.parameters_total !== undefined, work: work.size > 0,
  }));
  if (all.some((one) => one.model && one.work)) return null;
  if (all.some((one) => one.work)) {
    return "no_model_declared";
  }
  return all.some((one) => one.model) ? "no_work" : "no_process";
}

/** @param {import("./history.js").History} history @param {J} stated @returns {Basis} */
export function architecture(history, stated) {
  const code = absentReason(history);
  if (code !== null) return { stated: null, written: { architecture: null, architectureAbsentReasons: [{ code }] }, unverified: [] };
  const { architecture: told = null, architectureAbsentReasons = [] } = stated.totals ?? {};
  return {
    stated: told, written: { architecture: told, architectureAbsentReasons },
    unverified: [`${_TOTALS}.architecture`, `${_TOTALS}.architectureAbsentReasons`],
  };
}
