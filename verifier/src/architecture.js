// The architecture basis. Its figures follow from the shapes of some sixty families of models, which this verifier does
// not read: where a ledger may have one, it is taken as stated, and named as not verified.

/** @typedef {import("./basics.js").J} J */
/** @typedef {{stated: J | null, written: J, unverified: string[]}} Basis */

const _TOTALS = "predicate.totals";

/** Why there is none; null: some process declared a model and counted work of it.
 * @param {import("./history.js").History} history */
function absentReason(history) {
  const all = [...history.sessions.values()].map(({ facts, work }) => ({
    model: facts.model_config !== undefined || facts.parameters_total !== undefined, work: work.size > 0,
  }));
  if (all.some((one) => one.model && one.work)) return null;
  if (all.some((one) => one.work)) {
    return "a training process counted work and declared neither model_config nor parameters_total; declare one of them";
  }
  return all.some((one) => one.model) ? "a training process declared its model, and no work of it"
    : "no training process declared its model and its tokens";
}

/** @param {import("./history.js").History} history @param {J} stated @returns {Basis} */
export function architecture(history, stated) {
  const reason = absentReason(history);
  if (reason !== null) return { stated: null, written: { architecture: null, architectureAbsentReason: reason }, unverified: [] };
  const { architecture: told = null, architectureAbsentReason = null } = stated.totals ?? {};
  return {
    stated: told, written: { architecture: told, architectureAbsentReason },
    unverified: [`${_TOTALS}.architecture`, `${_TOTALS}.architectureAbsentReason`],
  };
}
