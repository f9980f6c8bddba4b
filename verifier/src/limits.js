// What a verified ledger does not say, and what of it was taken on trust.

/** @typedef {import("./basics.js").J} J */

const _ISOLATION = /** @type {Record<string, string>} */ ({
  job_user_unknown: "It is not known which user the job ran as, so the job may have been able to write the journal.",
  same_user: "The job ran as the daemon's own user and could have written the journal.",
  job_is_root: "The job ran as root and could have written the journal.",
  files_open_to_others: "Another user could write the daemon's files.",
  continued_unchecked: "The daemon went on with files that nothing vouched for.",
});

/** @param {J} predicate */
function ofNode(predicate) {
  const found = (predicate.isolation?.reasons ?? []).map((/** @type {string} */ one) => _ISOLATION[one] ?? one);
  if (predicate.isolation?.jobCouldReadKey) found.push("The job could have read the key that sealed this ledger.");
  const open = predicate.incarnations.filter((/** @type {J} */ one) => one.codes === "not_checkable").length;
  if (open) found.push(`The codes of ${open} of ${predicate.incarnations.length} starts of the daemon cannot be checked.`);
  const last = predicate.incarnations[predicate.incarnations.length - 1];
  if (last.endReason === null) found.push("The run has no end here: what the devices did after the last record is not known.");
  if (predicate.segment) found.push("It is one segment of a rotated run: the run's compute is the sum of all of its segments.");
  if (predicate.method.sealedAt < last.lastRecordAt) found.push("It says that it was sealed before its last record.");
  if (predicate.evidence.length) found.push(`${predicate.evidence.length} items of evidence are attached, which this page does not check.`);
  return found;
}

/** @param {import("./verify.js").Accepted} found @returns {string[]} */
export function limits(found) {
  const { predicate } = found.statement;
  const says = [
    "That the compute took place: whoever controls a host can present a false driver.",
    "That there were no other runs: a ledger speaks of its own.",
    "What the work was for: that is declared, and nobody measured it.",
    "When it was sealed, by which version and key file: that is the word of whoever signed.",
  ];
  if (found.notes.includes("replay")) says.unshift("Anything of hardware: it is a replay of a recording, and none was metered.");
  if (found.notes.includes("children-not-given")) says.push("Whether each child adds up: not all were given, and their entries were taken as they stand.");
  if (predicate.kind === "node") says.push(...ofNode(predicate));
  else if (predicate.completeness.complete !== true) says.push("All of it: ledgers are missing, or have no end, so no upper bound is known.");
  if (predicate.energyUncountedSeconds !== "0.000000000") says.push("All of the energy: for a part of the time no counter was read.");
  for (const one of found.tables) {
    if (!one.own) says.push(`Its ${one.what} file (SHA-256 ${one.sha256}) is not one of flopsd's: you accepted its figures.`);
  }
  return says;
}
