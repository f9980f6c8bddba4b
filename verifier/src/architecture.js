// The architecture basis. Its figures follow from the shapes of some sixty families of models, which this verifier does
// not read: where a ledger has one, it is taken as stated, and named as not verified.
import { counted } from "./sessions.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {{stated: J | null, written: J, unverified: string[]}} Basis */

/** Whether some process declared a model, and tokens or products that passed it.
 * @param {import("./history.js").History} history */
export function mayHaveArchitecture(history) {
  return [...history.sessions.values()].some((session) => {
    const { facts } = session;
    const model = facts.model_config !== undefined || facts.parameters_total !== undefined;
    const work = ["tokens", "patches", "weight_products"].some((name) => counted(session, name) > 0n);
    return work && (model || counted(session, "weight_products") > 0n);
  });
}

/** @param {import("./history.js").History} history @param {J} stated @returns {Basis} */
export function architecture(history, stated) {
  if (!mayHaveArchitecture(history)) {
    return { stated: null, written: { architecture: null }, unverified: [] };
  }
  const told = stated.totals?.architecture ?? null;
  return { stated: told, written: { architecture: told }, unverified: ["predicate.totals.architecture"] };
}
