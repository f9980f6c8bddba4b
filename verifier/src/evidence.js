// Typed attachments: their shape. This verifier knows no type, and says so of each.
import { Refusal, isObject, isText } from "./basics.js";
import { isTime } from "./times.js";

const _MOST = 64;
const _MEMBERS = ["type", "collectedAt", "state", "data", "reason"];

/** A code with parameters, known or not. @param {any} value */
export const isNote = (value) => isObject(value) && "code" in value && Object.values(value).every(isText);

/** @param {any} item */
function isItem(item) {
  if (!isObject(item) || Object.keys(item).length !== _MEMBERS.length || !_MEMBERS.every((name) => name in item)) return false;
  const { type, collectedAt, state, data, reason } = item;
  if (!isText(type) || !isTime(collectedAt)) return false;
  if (state === "present") return isObject(data) && reason === null;
  return state === "absent" && data === null && isNote(reason);
}

/** @param {any} evidence */
export function checkEvidence(evidence) {
  const path = "statement.predicate.evidence";
  const whole = Array.isArray(evidence) && evidence.length <= _MOST && evidence.every(isItem);
  const types = whole ? new Set(evidence.map((one) => one.type)) : new Set();
  if (!whole || types.size < evidence.length) throw new Refusal("evidence_malformed", "evidence has another shape than the format", path);
}
