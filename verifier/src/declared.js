// `declared` of a statement: what settings and training processes declare, and what of it cannot all be so.
import { byText } from "./basics.js";
import { contradictions } from "./contradictions.js";
import { workOf } from "./sessions.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./history.js").Session} Session */

/** @param {import("./history.js").History} history @param {any[]} policies @param {Map<string, bigint>} exceeding */
export function declared(history, policies, exceeding) {
  const settings = history.settings;
  const base = settings.base && {
    name: settings.base.name, kind: settings.base.kind, flop: settings.base.flop, method: settings.base.method,
    systemic: settings.base.systemic, declaredBy: "config",
    ...(settings.base.reason === undefined ? {} : { reason: settings.base.reason }),
  };
  const ids = [...history.sessions.keys()].sort(byText);
  return {
    phase: settings.phase, method: settings.method, recomputation: settings.recomputation, base,
    sessions: ids.map((id) => {
      const session = /** @type {Session} */ (history.sessions.get(id));
      return { id, process: session.process, facts: session.facts, work: workOf(session) };
    }),
    contradictions: contradictions(history, policies, exceeding),
  };
}
