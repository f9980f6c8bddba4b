// The order of the checks: the first that fails is the reason to refuse.
import { Refusal, hex, isObject, isText, require } from "./basics.js";
import { same } from "./compare.js";
import { History } from "./history.js";
import { readJournal, secretsOf } from "./journal.js";
import { parseBytes } from "./json.js";
import { checkSignatures, readEnvelope } from "./keys.js";
import { verifyMerged } from "./merged.js";
import { sha256 } from "./sha256.js";
import { PREDICATE, STATEMENT, statementOf } from "./statement.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./keys.js").Key} Key */
/** @typedef {import("./library.js").Library} Library */
/** @typedef {(share: number, what: string) => Promise<void> | void} Progress */
/** @typedef {{ledger: Uint8Array, journal: Uint8Array | null, keys: Key[], threshold: number, library: Library,
 *   allowReplay: boolean, children?: {name: string, ledger: Uint8Array, journal: Uint8Array | null}[] | null,
 *   progress?: Progress}} Given */
/** @typedef {{verdict: "accept", statement: J, sha256: string, signers: Key[], unverified: string[], notCompared: string[],
 *   leaves: number, history: History | null, head: string | null, tables: J[], notes: string[]}} Accepted */

export const PAYLOAD_TYPE = "application/vnd.in-toto+json";
const _COUNT = /^(0|[1-9][0-9]{0,39})$/;
const _HEX = /^[0-9a-f]{64}$/;
const _EVERY = 200;

/** @param {import("./keys.js").Envelope} envelope @returns {J} */
export function readStatement(envelope) {
  const statement = parseBytes(envelope.payload, "the payload");
  const type = `the payload has type '${envelope.type}', not '${PAYLOAD_TYPE}'`;
  require(envelope.type === PAYLOAD_TYPE, "payload-type", type);
  const none = `the payload is not an in-toto statement of type '${STATEMENT}'`;
  require(isObject(statement) && statement._type === STATEMENT, "statement-type", none, "statement._type");
  const other = `the predicate has type '${statement.predicateType}', not '${PREDICATE}'`;
  require(statement.predicateType === PREDICATE, "predicate-type", other, "statement.predicateType");
  require(isObject(statement.predicate), "statement-type", none, "statement.predicate");
  return statement;
}

/** @param {any} value @param {string} path */
export function count(value, path) {
  require(isText(value) && _COUNT.test(value), "count", `${path} is not a count`, path);
  return BigInt(value);
}

/** @param {Given} given @returns {Promise<Accepted>} */
export async function verify(given) {
  const envelope = readEnvelope(given.ledger);
  const signers = await checkSignatures(envelope, given.keys, given.threshold);
  const statement = readStatement(envelope);
  const { kind } = statement.predicate;
  const base = { verdict: /** @type {"accept"} */ ("accept"), statement, sha256: envelope.sha256, signers };
  if (kind === "job" || kind === "lineage") return { ...base, ...(await verifyMerged(statement, given, verify)) };
  require(kind === "node", "mismatch", `'${kind}' is no kind of ledger`, "statement.predicate.kind");
  return { ...base, ...(await verifyNode(statement, given)) };
}

/** @param {J} statement @param {Uint8Array} journal @param {Map<string, Uint8Array>} secrets
 * @param {import("./peaks.js").Peaks} peaks @param {Progress} progress */
async function readSealed(statement, journal, secrets, peaks, progress) {
  const stated = statement.predicate.method.journal;
  const bytes = count(stated?.bytes, "statement.predicate.method.journal.bytes");
  const history = new History(peaks);
  let head = "00".repeat(32);
  const cut = `the journal is truncated: it has ${journal.length} bytes, ${bytes} were sealed`;
  for (const line of readJournal(journal, secrets)) {
    if (line.end > bytes) break;
    history.add(line);
    head = line.head;
    if (line.number % _EVERY === 0) await progress(line.end / Number(bytes), "journal");
  }
  require(BigInt(journal.length) >= bytes, "truncated", cut);
  require(bytes === 0n || history.heads.has(bytes), "journal-frame", "the sealed part ends within a record");
  return { history, head, bytes: Number(bytes) };
}

/** @param {Uint8Array} journal @param {Map<string, Uint8Array>} secrets */
function checkTail(journal, secrets) {
  for (const line of readJournal(journal, secrets)) void line;
}

/** @param {J} statement @param {Given} given */
async function verifyNode(statement, { journal, library, allowReplay, progress = () => {} }) {
  const { predicate } = statement;
  const subject = statement.subject?.[0]?.digest?.sha256;
  const named = isText(subject) && _HEX.test(subject) && isObject(predicate.method);
  require(named, "subject", "the statement does not name its journal", "statement.subject");
  require(journal !== null, "no-journal", "the journal does not exist: no total can be recomputed");
  const listed = predicate.method.codeSecrets;
  const whole = Array.isArray(listed) && listed.every((one) => isText(one) && _HEX.test(one));
  require(whole, "mismatch", "statement.predicate.method.codeSecrets is no list of secrets", "statement.predicate.method.codeSecrets");
  const secrets = secretsOf(listed);
  const bytes = /** @type {Uint8Array} */ (journal);
  const peaks = library.peaks(firstTable(bytes, secrets));
  const sealed = await readSealed(statement, bytes, secrets, peaks, progress);
  if (sealed.bytes < bytes.length) checkTail(bytes, secrets);
  const content = bytes.subarray(0, sealed.bytes);
  const digest = hex(new Uint8Array(await crypto.subtle.digest("SHA-256", content)));
  require(digest === subject, "subject", "this is not the sealed journal: its SHA-256 is another", "statement.subject");
  const { history } = sealed;
  require(isText(predicate.method.sealedAt), "mismatch", "sealedAt is no time", "statement.predicate.method.sealedAt");
  history.finish(predicate.method.sealedAt);
  const policies = history.latest.begin.policies.map((/** @type {J} */ one) => library.policy(one));
  const disclosed = new Map([...secrets].map(([name, secret]) => [name, hex(secret)]));
  const from = { history, stated: predicate, journal: { sha256: digest, bytes: sealed.bytes, head: sealed.head }, policies, peaks, disclosed };
  const { statement: computed, unverified } = statementOf(from);
  const tally = { leaves: 0, words: new Set() };
  same(statement, computed, "statement", "the journal", tally);
  const replay = predicate.replay && `this ledger is a replay of the recording '${predicate.replay.recording}'`;
  require(!replay || allowReplay, "replay", `${replay}: no hardware was metered`, "statement.predicate.replay");
  await progress(1, "statement");
  return {
    unverified, notCompared: [...tally.words], leaves: tally.leaves, history, head: sealed.head,
    tables: [{ what: "peaks", sha256: peaks.sha256, own: peaks.own }, ...policies.map((/** @type {any} */ one) => ({ what: one.id, sha256: one.sha256, own: one.own }))],
    notes: predicate.replay ? ["replay"] : [],
  };
}

/** @param {Uint8Array} journal @param {Map<string, Uint8Array>} secrets @returns {string} */
function firstTable(journal, secrets) {
  for (const { record } of readJournal(journal, secrets)) {
    if (isText(record.peak_table_sha256)) return record.peak_table_sha256;
    break;
  }
  return "";
}

/** Two ledgers of one run and node: the same up to the end of the shorter one, or two histories.
 * @param {Accepted} one @param {Accepted} other */
export function compareHistories(one, other) {
  const a = one.statement.predicate, b = other.statement.predicate;
  if (a.kind !== "node" || b.kind !== "node" || a.run.id !== b.run.id || a.node.name !== b.node.name) return;
  if (!one.history || !other.history) return;
  const x = [...one.history.heads.values()], y = [...other.history.heads.values()];
  const shared = Math.min(x.length, y.length);
  let same_ = 0;
  while (same_ < shared && x[same_] === y[same_]) same_++;
  if (same_ === shared) return;
  if (same_ === 0) {
    const apart = one.history.latest.last.utc < other.history.first.utc || other.history.latest.last.utc < one.history.first.utc;
    if (apart) return;
  }
  const where = `run '${a.run.id}' on node '${a.node.name}'`;
  throw new Refusal("fork", `these are two histories of ${where}: their journals part after record ${same_}`);
}

/** @param {unknown} error @returns {{verdict: "refuse", code: string, message: string, path: string | null}} */
export function refusal(error) {
  if (error instanceof Refusal) return { verdict: "refuse", code: error.code, message: error.message, path: error.path };
  const message = error instanceof Error ? error.message : String(error);
  return { verdict: "refuse", code: "shape", message: `the ledger has another shape than the format: ${message}`, path: null };
}

export { sha256 };
