// Typed attachments: their shape. This verifier knows no type, and says so of each.
import { Refusal, isObject, isText } from "./basics.js";
import { isTime } from "./times.js";

const _MOST = 64;
const _MEMBERS = ["collectedAt", "data", "reason", "state", "type"];

/** A code with parameters, known or not. @param {any} value */
export const isNote = (value) => isObject(value) && "code" in value && Object.values(value).every(isText);

/** What is wrong with an item; "" if nothing is. @param {any} item */
function faultOf(item) {
  if (!isObject(item) || Object.keys(item).length !== _MEMBERS.length || !_MEMBERS.every((name) => name in item)) {
    return `must have exactly the fields ${_MEMBERS.join(", ")}`;
  }
  const { type, collectedAt, state, data, reason } = item;
  if (!isText(type) || !isTime(collectedAt)) return "has a malformed type or time";
  const present = state === "present" && isObject(data) && reason === null;
  return present || (state === "absent" && data === null && isNote(reason)) ? "" : "must be present with data, or absent with a reason";
}

/** @param {any} evidence */
export function checkEvidence(evidence) {
  const refuse = (/** @type {string} */ why) => new Refusal("evidence_malformed", `predicate.evidence${why}`, "statement.predicate.evidence");
  if (!Array.isArray(evidence) || evidence.length > _MOST) throw refuse(` must be a list of at most ${_MOST} items`);
  evidence.map(faultOf).forEach((fault, i) => {
    if (fault) throw refuse(`[${i}] ${fault}`);
  });
  if (new Set(evidence.map((one) => one.type)).size < evidence.length) throw refuse(" contains the same type twice");
}
