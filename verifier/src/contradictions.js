// What of the declarations cannot all be so.
import { counted } from "./sessions.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./history.js").Session} Session */
/** `what`: all that makes it another one than one of the same name. @typedef {{name: string, what: string}} Contradiction */

/** The last part of a model's name; null: it is a path or none. @param {any} name */
function lastPart(name) {
  if (typeof name !== "string" || /^[./~]/.test(name)) return null;
  return name.split("/").pop()?.toLowerCase() ?? null;
}

/** @param {string | null} method @param {Session} session */
function shareDiffers(method, { facts }) {
  const { parameters_total: all, parameters_trainable: some } = facts;
  if (typeof all !== "bigint" || typeof some !== "bigint") return false;
  if (method === "pretraining" || method === "full") return some !== all;
  return (method === "lora" || method === "qlora") && some === all;
}

/** Of the settings. @param {J} settings @param {Session[]} sessions @param {any[]} policies @returns {string[]} */
function ofSettings({ base, method, phase, recomputation }, sessions, policies) {
  const found = [];
  const flop = base?.flop == null ? null : BigInt(base.flop);
  const presumed = policies.some((one) => one.presumed !== null && flop !== null && flop > one.presumed);
  if (presumed && base.systemic !== true) found.push("SYSTEMIC_RISK_IS_PRESUMED");
  if (base && method === "pretraining") found.push("PRETRAINING_WITH_A_BASE");
  if (phase === "evaluate" && method) found.push("EVALUATION_WITH_A_METHOD");
  const fused = sessions.some((one) => counted(one, "fused_head_tokens"));
  if (recomputation === "none" && fused) found.push("LOSS_RECOMPUTES");
  return found;
}

/** Of one training process. @param {J} settings @param {Session} session @returns {Contradiction[]} */
function ofSession({ base, method, phase }, session) {
  const { facts } = session;
  const found = [];
  if (method && facts.method && facts.method !== method) found.push({ name: "METHOD_DIFFERS", what: facts.method });
  const [name, model] = [lastPart(base?.name), lastPart(facts.model_name)];
  if (name !== null && model !== null && model !== name) found.push({ name: "BASE_MODEL_DIFFERS", what: facts.model_name });
  if (base && !method && facts.method === "pretraining") found.push({ name: "PRETRAINING_WITH_A_BASE", what: "" });
  const trained = counted(session, "tokens", ["train"]) + counted(session, "images", ["train"]);
  if (phase === "evaluate" && trained) found.push({ name: "EVALUATION_THAT_TRAINS", what: "" });
  if (shareDiffers(method ?? facts.method ?? null, session)) {
    const share = `${facts.parameters_trainable} of ${facts.parameters_total}`;
    found.push({ name: "TRAINABLE_SHARE_DIFFERS", what: share });
  }
  return found;
}

/** Counts of operators that no figure has. @param {string} id @param {Session} session @param {string[]} uuids
 * @param {string[]} exceeding Devices of which more was counted than can be. @returns {Contradiction[]} */
function ofCounts(id, session, uuids, exceeding) {
  const { facts, refused } = session;
  if (refused !== null) {
    return [{ name: refused.reason === "device_changed" ? "DEVICE_CHANGED" : "COUNT_EXCEEDS_CEILING", what: id }];
  }
  if (!counted(session, "operator_flop") || facts.device === undefined) return [];
  if (exceeding.includes(facts.device)) return [{ name: "COUNT_EXCEEDS_CEILING", what: id }];
  return uuids.includes(facts.device) ? [] : [{ name: "DEVICE_NOT_METERED", what: id }];
}

/** @param {import("./history.js").History} history @param {any[]} policies @param {string[]} exceeding @returns {J[]} */
export function contradictions(history, policies, exceeding) {
  const settings = history.latest.begin.declared;
  const sessions = [...history.sessions];
  const own = sessions.filter(([, { facts }]) => facts.role === undefined || facts.role === null);
  const uuids = history.devices.map((one) => one.record.uuid);
  const all = [
    ...ofSettings(settings, sessions.map(([, one]) => one), policies).map((name) => ({ name, what: "" })),
    ...own.flatMap(([, one]) => ofSession(settings, one)),
    ...sessions.flatMap(([id, one]) => ofCounts(id, one, uuids, exceeding)),
  ];
  const distinct = new Map(all.map((one) => [`${one.name}\n${one.what}`, one.name]));
  return [...distinct.values()].map((name) => ({ name }));
}
