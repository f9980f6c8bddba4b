// What of the declarations cannot all be so.
import { rangeOf } from "./base_model.js";
import { byJsonText, sortedTexts } from "./basics.js";
import { compare } from "./policy.js";
import { once } from "./reasons.js";
import { counted } from "./sessions.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./history.js").Session} Session */
/** A name, and a note. @typedef {J} Contradiction */

/** What of a model's name is compared. @param {string} name */
function lastPart(name) {
  return name.replace(/\/+$/, "").replace(/^.*\//s, "").toLowerCase().replace(/[^\p{L}\p{N}]/gu, "");
}

/** @param {string | null | undefined} declared @param {string | undefined} loaded */
function modelDiffers(declared, loaded) {
  return declared && loaded && !/^[./~]/.test(loaded) && lastPart(declared) !== lastPart(loaded);
}

/** @param {string | null} method @param {Session} session */
function shareDiffers(method, { facts }) {
  const { parameters_total: all, parameters_trainable: some } = facts;
  if (!method || !all || some === undefined) return false;
  return (some !== all) === (method === "pretraining" || method === "full");
}

/** Of a base model that the law presumes to carry systemic risk. @param {J | null} base @param {any[]} policies
 * @returns {Contradiction[]} */
function ofBase(base, policies) {
  /** @type {Contradiction[]} */
  const found = [];
  if (!base || base.flop === null) return found;
  for (const { presumed, citation, marginPpm } of policies) {
    const { least } = rangeOf(base, marginPpm);
    if (presumed === null || compare(least, presumed) <= 0 || base.systemic === true) continue;
    const more = { flop: String(presumed.over / presumed.under), citation };
    const name = "SYSTEMIC_RISK_IS_PRESUMED";
    if (base.systemic === null) found.push({ name, code: "systemic_presumed", ...more });
    else if (!base.reason) found.push({ name, code: "systemic_presumed_and_denied_without_reason", ...more });
    else found.push({ name, code: "systemic_presumed_and_denied", ...more, reason: base.reason });
  }
  return found;
}

/** Of what the daemon starts declare. @param {import("./history.js").History} history @returns {Contradiction[]} */
function ofStarts({ incarnations, latest, bases }) {
  const last = latest.begin.declared.method;
  const others = incarnations.map(({ begin }) => begin.declared.method).filter((one) => one !== null && one !== last);
  return [
    ...(last === null ? [] : others.map((earlier) => ({ name: "METHOD_DIFFERS", code: "start_method_differs", earlier, last }))),
    ...(bases.length > 1 ? [{ name: "BASE_MODEL_DIFFERS", code: "start_base_differs" }] : []),
  ];
}

/** Of the settings. @param {J} settings @param {Session[]} sessions @returns {Contradiction[]} */
function ofSettings({ base, method, phase, recomputation }, sessions) {
  const found = [];
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
  if (modelDiffers(base?.name, facts.model_name)) {
    const both = { settings: base.name, process: facts.model_name };
    found.push({ name: "BASE_MODEL_DIFFERS", code: "process_model_differs", ...both });
  }
  if (base && !method && facts.method === "pretraining") {
    found.push({ name: "PRETRAINING_WITH_A_BASE", code: "process_pretraining_with_base" });
  }
  const trained = counted(session, "tokens", ["train"]) + counted(session, "patches", ["train"]);
  if (phase === "evaluate" && trained) found.push({ name: "EVALUATION_THAT_TRAINS", code: "evaluation_that_trains" });
  if (shareDiffers(method ?? facts.method ?? null, session)) {
    const share = { trainable: String(facts.parameters_trainable), total: String(facts.parameters_total) };
    found.push({ name: "TRAINABLE_SHARE_DIFFERS", code: "trainable_share_differs", method: method ?? facts.method, ...share });
  }
  return found;
}

/** A count of operators that no figure has. @param {string} id @param {Session} session @param {Session[]} all
 * @param {string[]} uuids @param {Map<string, bigint>} exceeding Devices of which more was counted than can be, with that.
 * @returns {Contradiction[]} */
function ofCounts(id, session, all, uuids, exceeding) {
  const { facts, refused } = session;
  const short = [...id].slice(0, 8).join("");
  if (refused !== null) {
    const found = { session: short, flop: String(refused.flop), device: refused.device };
    if (refused.reason === "device_changed") return [{ name: "DEVICE_CHANGED", code: "device_changed", ...found }];
    return [{ name: "COUNT_EXCEEDS_CEILING", code: "count_exceeds_ceiling", ...found, ceiling: String(refused.ceiling) }];
  }
  const own = counted(session, "operator_flop");
  if (!own) return [];
  const { device } = facts;
  if (device === undefined) return [{ name: "DEVICE_NOT_METERED", code: "device_not_named", session: short, flop: String(own) }];
  const same = all.filter((one) => one.facts.device === device && one.refused === null);
  const found = { session: short, flop: String(same.reduce((sum, one) => sum + counted(one, "operator_flop"), 0n)) };
  const ceiling = exceeding.get(device);
  if (ceiling !== undefined) {
    return [{ name: "COUNT_EXCEEDS_CEILING", code: "count_exceeds_ceiling", ...found, device, ceiling: String(ceiling) }];
  }
  return uuids.includes(device) ? [] : [{ name: "DEVICE_NOT_METERED", code: "device_not_metered", ...found, device }];
}

/** @param {import("./history.js").History} history @param {any[]} policies @param {Map<string, bigint>} exceeding @returns {J[]} */
export function contradictions(history, policies, exceeding) {
  const settings = history.latest.begin.declared;
  const sessions = [...history.sessions], known = sessions.map(([, one]) => one);
  const own = sessions.filter(([, { facts }]) => facts.role === undefined || facts.role === null);
  const uuids = history.devices.map((one) => one.record.uuid);
  const all = [
    ...history.bases.flatMap((base) => ofBase(base, policies)),
    ...ofStarts(history),
    ...ofSettings(settings, known),
    ...own.flatMap(([, one]) => ofSession(settings, one)),
    ...sessions.flatMap(([id, one]) => ofCounts(id, one, known, uuids, exceeding)),
  ];
  return once(all);
}

/** Of a job or lineage: those of each child, of the base model of the whole, and between the nodes of one job.
 * @param {J[]} children @param {J | null} base @param {any[]} policies @param {boolean} isJob @returns {J[]} */
export function mergedContradictions(children, base, policies, isJob) {
  const all = [...children.flatMap(({ declared }) => declared.contradictions), ...ofBase(base, policies)];
  const declared = children.map((child) => child.declared.method);
  const methods = sortedTexts(declared.filter((one) => one !== null));
  if (isJob && methods.length > 1) all.push({ name: "METHOD_DIFFERS", code: "node_methods_differ", methods });
  if (isJob && declared.includes(null) && declared.includes("pretraining")) {
    all.push({ name: "METHOD_DIFFERS", code: "node_method_not_declared" });
  }
  return [...byJsonText(all).values()];
}
