// `declared` of a statement: what settings and training processes declare, and what of it cannot all be so.
import { byText, object } from "./basics.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./history.js").Session} Session */

/** @param {Session} session */
export function workOf(session) {
  const found = object();
  for (const [path, value] of session.work) {
    const [phase, name] = path.split("/");
    found[phase] ??= object();
    found[phase][name] = String(value);
  }
  return found;
}

/** The sum of a counter over phases. @param {Session} session @param {string} name @param {string[]} [phases] */
export function counted(session, name, phases) {
  let sum = 0n;
  for (const [path, value] of session.work) {
    const [phase, counter] = path.split("/");
    if (counter === name && (!phases || phases.includes(phase))) sum += value;
  }
  return sum;
}

/** The last part of a model's name; null: it is a path or none. @param {any} name */
function lastPart(name) {
  if (typeof name !== "string" || /^[./~]/.test(name)) return null;
  return name.split("/").pop()?.toLowerCase() ?? null;
}

/** @param {string | null} method @param {Session} session */
function shareDiffers(method, { facts }) {
  const { parameters_total: all, parameters_trainable: some } = facts;
  if (typeof all !== "bigint" || typeof some !== "bigint" || method === null) return false;
  return (method === "pretraining" || method === "full") ? some !== all : some === all;
}

/** @param {J} settings @param {Session[]} sessions @param {any[]} policies @returns {string[]} */
export function contradictions(settings, sessions, policies) {
  const { base, method, phase, recomputation } = settings;
  const own = sessions.filter(({ facts }) => facts.role === undefined);
  const found = [];
  const flop = base?.flop == null ? null : BigInt(base.flop);
  const presumed = policies.map((one) => one.presumed).find((one) => one !== null) ?? 10n ** 25n;
  if (flop !== null && flop > presumed && base.systemic !== true) found.push("SYSTEMIC_RISK_IS_PRESUMED");
  if (method && own.some(({ facts }) => facts.method && facts.method !== method)) found.push("METHOD_DIFFERS");
  const name = lastPart(base?.name);
  const differs = (/** @type {Session} */ { facts }) => {
    const model = lastPart(facts.model_name);
    return model !== null && model !== name;
  };
  if (name !== null && own.some(differs)) found.push("BASE_MODEL_DIFFERS");
  if (base && own.some(({ facts }) => facts.method === "pretraining")) found.push("PRETRAINING_WITH_A_BASE");
  if (phase === "evaluate" && method) found.push("EVALUATION_WITH_A_METHOD");
  if (phase === "evaluate" && own.some((one) => counted(one, "tokens", ["train"]))) found.push("EVALUATION_THAT_TRAINS");
  if (own.some((one) => shareDiffers(method, one))) found.push("TRAINABLE_SHARE_DIFFERS");
  const fused = sessions.some((one) => counted(one, "fused_head_tokens"));
  if (recomputation === "none" && fused) found.push("LOSS_RECOMPUTES");
  return found;
}

/** @param {import("./history.js").History} history @param {any[]} policies */
export function declared(history, policies) {
  const settings = history.latest.begin.declared;
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
    contradictions: contradictions(settings, [...history.sessions.values()], policies).map((name) => ({ name })),
  };
}
