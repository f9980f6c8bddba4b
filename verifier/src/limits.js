// What a verified ledger does not say, and what of it was taken on trust.
import { recordings } from "./merging.js";

/** @typedef {import("./basics.js").J} J */

const _MOST_NAMED = 8;
const _ISOLATION = /** @type {Record<string, string>} */ ({
  job_user_unknown: "It is not known which user the job ran as, so the job may have been able to write the journal.",
  same_user: "The job ran as the daemon's own user and could have written the journal.",
  job_is_root: "The job ran as root and could have written the journal.",
  files_open_to_others: "Another user could write the daemon's files.",
  continued_unchecked: "The daemon continued with files that anybody may have changed.",
});

/** @param {J} predicate */
function ofNode(predicate) {
  const found = (predicate.isolation?.reasons ?? []).map((/** @type {string} */ one) => (Object.hasOwn(_ISOLATION, one) ? _ISOLATION[one] : one));
  if (predicate.isolation?.jobCouldReadKey) found.push("The job could have read the key that sealed this ledger.");
  const open = predicate.incarnations.filter((/** @type {J} */ one) => one.codes === "not_checkable").length;
  if (open) found.push(`The codes of ${open} of ${predicate.incarnations.length} starts of the daemon cannot be checked.`);
  const last = predicate.incarnations[predicate.incarnations.length - 1];
  if (last.endReason === null) found.push("The end of the run: what the devices did after the last record is not known.");
  if (predicate.segment) found.push("It is one segment of a rotated run: the run's compute is the sum of all of its segments.");
  if (predicate.method.sealedAt < last.lastRecordAt) found.push("It states a time of sealing before its last record.");
  const attached = predicate.evidence.filter((/** @type {J} */ one) => one.state === "present").map((/** @type {J} */ one) => one.type);
  if (attached.length) found.push(`The evidence attached (${attached.slice(0, _MOST_NAMED).join(", ")}${attached.length > _MOST_NAMED ? ", …" : ""}): this page does not check it.`);
  return found;
}

/** @param {import("./worker.js").Shown} found @returns {string[]} */
export function limits(found) {
  const { predicate } = found.statement;
  const says = [
    "That the compute took place: whoever controls a host can present a false driver.",
    "That there were no other runs: a ledger is about its own run alone.",
    "What the work was for: that was declared, not measured.",
    "When it was sealed, by which version, and where the key was: whoever signed stated that.",
  ];
  if (predicate.replay) says.unshift(predicate.kind === "node" ? "Anything of hardware: it is a replay of a recording, and none was metered." : `That hardware did all of the work: ${recordings(predicate)}.`);
  if (found.notes.includes("children-not-given")) says.push("Whether every ledger that it adds up follows from its journal: not all were given.");
  if (predicate.kind === "node") says.push(...ofNode(predicate));
  else if (predicate.completeness.complete !== true) says.push("All of it: ledgers are missing, or have no end, so no upper bound is known.");
  if (predicate.energyUncountedSeconds !== "0.000000000") says.push("All of the energy: for a part of the time no counter was read.");
  for (const one of found.tables) {
    if (!one.own) says.push(`That its ${one.what === "peaks" ? "peak table" : `policy ${one.what}`} is right (SHA-256 ${one.sha256}): it is not one of flopsd's, and you accepted it.`);
  }
  return says;
}
