// Whether the job could have written the journal that it was metered with.
import { byText, require, sortedTexts } from "./basics.js";

/** @typedef {import("./basics.js").J} J */

/** @param {bigint[]} numbers */
function sortedNumbers(numbers) {
  return [...new Set(numbers)].sort((a, b) => (a < b ? -1 : 1)).map(String);
}

/** @param {J | null} key @param {boolean} container @param {string[]} users */
function couldReadKey(key, container, users) {
  if (key?.kind !== "file") return null;
  if (container) return false;
  const open = key.mode.slice(2).split("").some((/** @type {string} */ digit) => Number(digit) & 4);
  if (open || users.includes("0") || users.includes(key.ownerUser)) return true;
  return users.length ? false : null;
}

/** The key that sealed, as a seal describes it: its form is all that can be checked. @param {any} key */
function checkKey(key) {
  if (key === null) return;
  const names = typeof key === "object" ? Object.keys(key).sort().join() : "";
  const isFile = names === "kind,mode,ownerUser" && key.kind === "file" && /^[0-7]{4}$/.test(key.mode)
    && /^(0|[1-9][0-9]{0,39})$/.test(key.ownerUser);
  require(isFile || (names === "kind" && typeof key.kind === "string" && key.kind !== "file"), "statement_differs",
    "isolation.key does not describe a key", "statement.predicate.isolation.key");
}

/** @param {import("./history.js").History} history @param {J} stated */
export function isolation(history, stated) {
  const all = history.incarnations.map(({ begin }) => begin.isolation);
  const sessions = [...history.sessions.values()];
  const daemonUsers = sortedNumbers(all.map((one) => one.daemon_user));
  const known = all.map((one) => one.job_user).filter((one) => one !== null);
  const jobUsers = sortedNumbers([...known, ...sessions.map(({ process }) => process.uid)]);
  const jobContainer = all.every((one) => one.job_container) && sessions.every(({ process }) => process.pid === null);
  const filesPrivate = all.every((one) => one.files_private);
  const continues = all.map((one) => one.continues);
  const reasons = [];
  if (!jobContainer) {
    if (!jobUsers.length) reasons.push("job_user_unknown");
    if (daemonUsers.some((one) => jobUsers.includes(one))) reasons.push("same_user");
    if (jobUsers.includes("0")) reasons.push("job_is_root");
  }
  if (!filesPrivate) reasons.push("files_open_to_others");
  if (continues.includes("nothing")) reasons.push("continued_unchecked");
  const key = stated.isolation?.key ?? null;
  checkKey(key);
  return {
    daemonUsers, jobUsers, jobContainer, filesPrivate,
    checkpointOutput: sortedTexts(all.map((one) => one.checkpoint_output)).sort(byText), continues, key,
    jobCouldWriteJournal: reasons.length > 0, reasons, jobCouldReadKey: couldReadKey(key, jobContainer, jobUsers),
  };
}
