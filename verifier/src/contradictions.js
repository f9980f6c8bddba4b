// What of the declarations cannot all be so.
import { byJsonText, sortedTexts } from "./basics.js";
import { once } from "./reasons.js";
import { counted } from "./sessions.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./history.js").Session} Session */
/** A name, and a note. @typedef {J} Contradiction */

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

/** Of a base model that the law presumes to carry systemic risk. @param {J | null} base @param {any[]} policies
 * @returns {Contradiction[]} */
function ofBase(base, policies) {
  /** @type {Contradiction[]} */
  const found = [];
  if (!base || base.flop === null) return found;
  const flop = BigInt(base.flop);
  for (const { presumed, citation } of policies) {
    if (presumed === null || flop <= presumed || base.systemic === true) continue;
    const more = { flop: String(presumed), citation };
    const name = "SYSTEMIC_RISK_IS_PRESUMED";
    if (base.systemic === null) found.push({ name, code: "systemic_presumed", ...more });
    else if (base.reason === undefined) found.push({ name, code: "systemic_presumed_and_denied_without_reason", ...more });
    else found.push({ name, code: "systemic_presumed_and_denied", ...more, reason: base.reason });
  }
  return found;
}

/** Of the settings. @param {J} settings @param {Session[]} sessions @param {any[]} policies @returns {Contradiction[]} */
function ofSettings({ base, method, phase, recomputation }, sessions, policies) {
  const found = ofBase(base, policies);
  if (base && method === "pretraining") found.push({ name: "PRETRAINING_WITH_A_BASE", code: "pretraining_with_base" });
  if (phase === "evaluate" && method) found.push({ name: "EVALUATION_WITH_A_METHOD", code: "evaluation_with_method", method });
  const fused = sessions.some((one) => counted(one, "fused_head_tokens"));
  if (recomputation === "none" && fused) found.push({ name: "LOSS_RECOMPUTES", code: "fused_head" });
  return found;
}

/** Of one training process. @param {J} settings @param {Session} session @returns {Contradiction[]} */
function ofSession({ base, method, phase }, session) {
  const { facts } = session;
  const found = [];
  if (method && facts.method && facts.method !== method) {
    found.push({ name: "METHOD_DIFFERS", code: "process_method_differs", settings: method, process: facts.method });
  }
  const [name, model] = [lastPart(base?.name), lastPart(facts.model_name)];
  if (name !== null && model !== null && model !== name) {
    const both = { settings: base.name, process: facts.model_name };
    found.push({ name: "BASE_MODEL_DIFFERS", code: "process_model_differs", ...both });
  }
  if (base && !method && facts.method === "pretraining") {
    found.push({ name: "PRETRAINING_WITH_A_BASE", code: "process_pretraining_with_base" });
  }
  const trained = counted(session, "tokens", ["train"]) + counted(session, "images", ["train"]);
  if (phase === "evaluate" && trained) found.push({ name: "EVALUATION_THAT_TRAINS", code: "evaluation_that_trains" });
  if (shareDiffers(method ?? facts.method ?? null, session)) {
    const share = { trainable: String(facts.parameters_trainable), total: String(facts.parameters_total) };
    found.push({ name: "TRAINABLE_SHARE_DIFFERS", code: "trainable_share_differs", method: method ?? facts.method, ...share });
  }
  return found;
}

/** Counts of operators that no figure has. @param {string} id @param {Session} session @param {string[]} uuids
 * @param {Map<string, bigint>} exceeding Devices of which more was counted than can be, with that.
 * @returns {Contradiction[]} */
function ofCounts(id, session, uuids, exceeding) {
  const { facts, refused } = session;
  const short = id.slice(0, 8);
  if (refused !== null) {
    const told = { session: short, flop: String(refused.flop), device: refused.device };
    if (refused.reason === "device_changed") return [{ name: "DEVICE_CHANGED", code: "device_changed", ...told }];
    return [{ name: "COUNT_EXCEEDS_CEILING", code: "count_exceeds_ceiling", ...told, ceiling: String(refused.ceiling) }];
  }
  const flop = counted(session, "operator_flop");
  if (!flop) return [];
  const told = { session: short, flop: String(flop) };
  const { device } = facts;
  if (device === undefined) return [{ name: "DEVICE_NOT_METERED", code: "device_not_named", ...told }];
  const ceiling = exceeding.get(device);
  if (ceiling !== undefined) {
    return [{ name: "COUNT_EXCEEDS_CEILING", code: "count_exceeds_ceiling", ...told, device, ceiling: String(ceiling) }];
  }
  return uuids.includes(device) ? [] : [{ name: "DEVICE_NOT_METERED", code: "device_not_metered", ...told, device }];
}

/** @param {import("./history.js").History} history @param {any[]} policies @param {Map<string, bigint>} exceeding @returns {J[]} */
export function contradictions(history, policies, exceeding) {
  const settings = history.latest.begin.declared;
  const sessions = [...history.sessions];
  const own = sessions.filter(([, { facts }]) => facts.role === undefined || facts.role === null);
  const uuids = history.devices.map((one) => one.record.uuid);
  const all = [
    ...ofSettings(settings, sessions.map(([, one]) => one), policies),
    ...own.flatMap(([, one]) => ofSession(settings, one)),
    ...sessions.flatMap(([id, one]) => ofCounts(id, one, uuids, exceeding)),
  ];
  return once(all);
}

/** Of a job or lineage: those of each child, of the base model of the whole, and between the nodes of one job.
 * @param {J[]} children @param {J | null} base @param {any[]} policies @param {boolean} isJob @returns {J[]} */
export function mergedContradictions(children, base, policies, isJob) {
  const all = [...children.flatMap(({ declared }) => declared.contradictions), ...ofBase(base, policies)];
  const methods = sortedTexts(children.map(({ declared }) => declared.method).filter((one) => one !== null));
  if (isJob && methods.length > 1) all.push({ name: "METHOD_DIFFERS", code: "node_methods_differ", methods });
  return [...byJsonText(all).values()];
}
