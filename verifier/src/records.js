// What the records of a journal must hold. Members that are not named here are left alone.
import { Refusal, isAmount, isInteger, isObject, isText, quoted, shown } from "./basics.js";

import { isNote } from "./evidence.js";
import { isTime } from "./times.js";
import { EVIDENCE, tallyOfDevice } from "./tallies.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {(value: any) => boolean} Check */

const _HEX = /^[0-9a-f]{64}$/;
export const FORMAT = "flopsd-journal/1";

/** @param {any} value */
const utc = (value) => isText(value); // whether it is a time is looked at later: `time_malformed`
/** @param {any} value */
const sha = (value) => isText(value) && _HEX.test(value);
/** @param {any} value */
const flag = (value) => typeof value === "boolean";
/** @param {any} value */
const texts = (value) => Array.isArray(value) && value.every(isText);
/** @param {Check} check @returns {Check} */
const orNull = (check) => (value) => value === null || check(value);
/** @param {string[]} names @returns {Check} */
const oneOf = (names) => (value) => names.includes(value);
/** @param {Record<string, Check>} members @param {boolean} [exact] @returns {Check} */
const shape = (members, exact = false) => (value) =>
  isObject(value) && Object.keys(members).every((name) => name in value && members[name](value[name])) &&
  (!exact || Object.keys(value).length === Object.keys(members).length);

export const precision = orNull((value) =>
  isObject(value) && isText(value.declared_by) && isObject(value.shares_ppm) &&
  Object.values(value.shares_ppm).length > 0 && Object.values(value.shares_ppm).every((ppm) => isAmount(ppm) && ppm > 0n));
const phase = orNull(oneOf(["train", "evaluate", "generate", "other"]));
const method = orNull(oneOf(["pretraining", "full", "partial", "lora", "qlora"]));
const recomputation = orNull(oneOf(["none", "full", "selective"]));
export const isBase = orNull((value) => _BASE(value) && (value.flop === null) === (value.kind === "unknown") &&
  (value.method === null) === (value.kind !== "estimated") && (!("reason" in value) || isText(value.reason)));
const _BASE = shape({
  name: orNull(isText), kind: oneOf(["known", "estimated", "unknown"]),
  flop: orNull((v) => isText(v) && /^[1-9][0-9]{0,38}$/.test(v)), method: orNull(isText), systemic: orNull(flag),
});
const runOf = shape({ platform: isText, jobName: orNull(isText), jobArn: orNull(isText) }, true);
const nodeOf = shape({ rank: orNull(isAmount), jobNodes: texts, instanceType: orNull(isText) }, true);
const _RECORDING = shape({ recording: isText, sha256: isText, origin: isText });
const _CONTEXT = shape({ run: runOf, node: nodeOf, attempt: isText }, true);
const isolation = shape({
  daemon_user: isAmount, job_user: orNull(isAmount), job_container: flag, files_private: flag,
  checkpoint_output: isText, continues: orNull(oneOf(["launcher", "file_owner", "nothing"])),
}, true);
const policy = shape({ id: isText, sha256: sha });
const _RECOVERED = /** @type {Record<string, string[]>} */ ({
  line_invalid: ["refusal", "line"], tail_not_known: [], not_continued: ["refusal", "line"], journal_replaced: ["records", "head"],
  journal_missing: [],
  restored: ["ledger", "records", "sealed"], restored_unsealed: ["ledger", "records"], time_not_known: ["seconds"],
});
/** @type {Check} */
const recoveredReason = (value) => isNote(value) && Object.hasOwn(_RECOVERED, value.code) && _RECOVERED[value.code].every((name) => name in value);
const recovered = orNull(shape({
  cutBytes: (v) => isText(v) && /^(0|[1-9][0-9]{0,39})$/.test(v), cutSha256: sha, keptAs: orNull(isText),
  reasons: (v) => Array.isArray(v) && v.length > 0 && v.every(recoveredReason),
}));
const endReason = oneOf(["job_ended", "sigterm", "sigint", "sighup", "duration", "launcher_gone", "rotated", "journal_replaced"]);
const _REFUSED = shape({
  reason: oneOf(["count_exceeds_ceiling", "device_changed"]), device: isText, flop: isAmount, ceiling: orNull(isAmount),
}, true);
/** Whether it is why a count of operators is used no more. @type {Check} */
export const isRefused = (value) => _REFUSED(value) && (value.ceiling !== null) === (value.reason === "count_exceeds_ceiling");
const isPositive = (/** @type {any} */ value) => isAmount(value) && value > 0n;
const segment = shape({
  segment: isPositive, bytes: isPositive, records: isPositive, sha256: sha, head_sha256: sha,
  run: shape({ records: isAmount, daemon_starts: isAmount, devices: (v) => Array.isArray(v) && v.every((one) => _BEFORE(one)) }, true),
}, true);

const _EVIDENCE_MEMBERS = /** @type {Record<string, Check>} */ ({
  source: isText, evidence: oneOf([...EVIDENCE, "gap"]), evidence_reason: isText,
  evidence_fix: isText, shared_with: orNull(isText),
});
const _IDENTITY = /** @type {Record<string, Check>} */ ({
  model: isText, serial: orNull(isText), pci_bus_id: orNull(isText), pci_device_id: orNull(isAmount),
  sm_count: orNull(isAmount), sm_clock_max_mhz: orNull(isAmount), driver: orNull(isText), peak_row: orNull(isText),
  precision,
});
const _BEFORE = shape({ uuid: isText, index: isAmount, vendor: isText, parent: orNull(isText), phase, incarnation: isAmount, ..._IDENTITY, ..._EVIDENCE_MEMBERS });
const _PROCESS = /** @type {Record<string, Check>} */ ({ id: isText, pid: orNull(isAmount), uid: isAmount, client: isText });

const _KINDS = /** @type {Record<string, Record<string, Check>>} */ ({
  begin: {
    format: isText, run: isText, node: isText, boot_id: isText, ns: isAmount, wall_ns: isAmount, utc,
    flopsd_version: isText, peak_table_sha256: sha, config_sha256: sha, interval_ns: isAmount, checkpoint_ns: isAmount,
    precision, recovered, isolation,
    declared: orNull(shape({ phase, method, recomputation, base: isBase })), policies: (v) => Array.isArray(v) && v.every(policy),
    code_secret_sha256: orNull(sha),
  },
  source: { name: isText, facts: (v) => isObject(v) && (v.replay === undefined || v.replay === null || _RECORDING(v.replay)) },
  device: {
    number: isAmount, uuid: isText, index: isAmount, vendor: isText, parent: orNull(isText), ..._IDENTITY,
    ..._EVIDENCE_MEMBERS,
  },
  evidence: { number: isAmount, ns: isAmount, ..._EVIDENCE_MEMBERS },
  checkpoint: {
    ns: isAmount, utc, devices: (v) => Array.isArray(v) && v.every(isAmount), tallies: isObject, gaps: Array.isArray,
  },
  declaration: { sessions: Array.isArray },
  sealed: {
    bytes: isAmount, head_sha256: sha, payload_sha256: sha, utc: isTime,
    witness: orNull((v) => isObject(v) && Object.keys(v).length === 1 && (isText(v.token) || isNote(v.absent))),
  },
  end: { ns: isAmount, utc, reason: endReason, child_exit_code: orNull(isInteger) },
});

/** @param {J} record @param {Record<string, Check>} members @param {string} where */
function check(record, members, where) {
  const odd = `journal ${where}: not a record of ${FORMAT}: `;
  for (const [name, holds] of Object.entries(members)) {
    if (!(name in record)) throw new Refusal("record_malformed", `${odd}'${name}' is missing or not known`, where);
    if (!holds(record[name])) throw new Refusal("record_malformed", `${odd}${name} of the record '${record.kind}' is malformed`, where);
  }
}

/** What must be known of a record before its place is looked at. @param {any} record @param {string} where */
export function checkKind(record, where) {
  if (!isObject(record) || !isText(record.kind) || !Object.hasOwn(_KINDS, record.kind)) {
    throw new Refusal("record_malformed", `journal ${where}: unknown kind of record ${quoted(record?.kind)}`, where);
  }
  if (!isAmount(record.incarnation)) throw new Refusal("record_malformed", `journal ${where}: not a record of ${FORMAT}: ${shown(record.incarnation)} is not a count`, where);
}

/** The members of a record. @param {J} record @param {string} where */
export function checkMembers(record, where) {
  if (record.kind === "begin" && record.format !== FORMAT) {
    throw new Refusal("record_malformed", `journal ${where}: format ${quoted(record.format)}; this verifier reads '${FORMAT}'`, where);
  }
  check(record, { incarnation: isAmount, ..._KINDS[record.kind] }, where);
  const context = record.kind !== "begin" || _CONTEXT(record.context);
  if (!context) throw new Refusal("law_14", `journal ${where}: its context cannot be read`, where);
  if (record.kind === "begin" && "continues" in record) {
    check(record, { continues: segment }, where);
    for (const one of record.continues.run.devices) tallyOfDevice(one, where);
  }
  if (record.kind === "evidence" && "identity" in record) {
    check(record, { identity: shape(_IDENTITY) }, where);
  }
  if (!("sessions" in record)) return;
  /** @type {Record<string, Check>} */
  const work = record.kind === "checkpoint" ? { work: isObject } : { facts: () => true };
  const whole = shape({ ..._PROCESS, ...work });
  const one = (/** @type {any} */ v) =>
    whole(v) && (!("before" in v) || isObject(v.before));
  check(record, { sessions: (v) => Array.isArray(v) && v.every(one) }, where);
}
