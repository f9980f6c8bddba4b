// The order of the checks: the first that fails is the reason to refuse.
import { Fault, Refusal, hex, isObject, isText, owned, quoted, require, shown } from "./basics.js";
import { same } from "./compare.js";
import { History } from "./history.js";
import { Records, readLines, secretsOf } from "./journal.js";
import { parseBytes } from "./json.js";
import { checkSignatures, readEnvelope } from "./keys.js";
import { verifyMerged } from "./merged.js";
import { PREDICATE, STATEMENT, statementOf } from "./statement.js";
import { isTime } from "./times.js";
import { checkEvidence } from "./evidence.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./keys.js").Key} Key */
/** @typedef {import("./library.js").Library} Library */
/** @typedef {(share: number, what: string) => Promise<void> | void} Progress */
/** @typedef {{ledger: Uint8Array, journal: Uint8Array | null, keys: Key[] | null, threshold: number, library: Library,
 *   allowReplay: boolean, children?: {name: string, ledger: Uint8Array, journal: Uint8Array | null}[] | null,
 *   progress?: Progress}} Given */
/** @typedef {{verdict: "accept", statement: J, sha256: string, signers: Key[], unverified: string[],
 *   leaves: number, history: History | null, peaks?: import("./peaks.js").Peaks, head: string | null, tables: J[], notes: string[]}} Accepted */

export const PAYLOAD_TYPE = "application/vnd.in-toto+json";
const _COUNT = /^(0|[1-9][0-9]{0,39})$/;
const _HEX = /^[0-9a-f]{64}$/;

/** @param {import("./keys.js").Envelope} envelope @returns {J} */
export function readStatement(envelope) {
  const statement = parseBytes(envelope.payload, "the payload");
  const type = `the payload has type '${envelope.type}', not '${PAYLOAD_TYPE}'`;
  require(envelope.type === PAYLOAD_TYPE, "payload_type", type);
  const none = `the payload is not an in-toto statement of type '${STATEMENT}'`;
  require(isObject(statement) && statement._type === STATEMENT, "statement_type", none, "statement._type");
  const other = `the predicate has type ${shown(statement.predicateType)}, not '${PREDICATE}'`;
  require(statement.predicateType === PREDICATE, "predicate_type", other, "statement.predicateType");
  require(isObject(statement.predicate), "statement_malformed", "the statement has no predicate", "statement.predicate");
  const { kind } = statement.predicate;
  const known = ["node", "job", "lineage"].includes(kind);
  require(known, "statement_malformed", `${shown(kind)} is not a kind of ledger`, "statement.predicate.kind");
  return statement;
}

/** @param {any} value @param {string} path */
export function count(value, path) {
  require(isText(value) && _COUNT.test(value), "statement_malformed", `the statement does not name its journal and totals: ${path} is not a count`, path);
  return BigInt(value);
}

/** @param {Given} given @returns {Promise<Accepted>} */
export async function verify(given) {
  const envelope = readEnvelope(given.ledger);
  // A child was checked against the keys of whoever merged, which nobody else has.
  const signers = given.keys === null ? [] : await checkSignatures(envelope, given.keys, given.threshold);
  const statement = readStatement(envelope);
  const { kind } = statement.predicate;
  const base = { verdict: /** @type {"accept"} */ ("accept"), statement, sha256: envelope.sha256, signers };
  if (kind === "job" || kind === "lineage") return { ...base, ...(await verifyMerged(statement, given, verify)) };
  return { ...base, ...(await verifyNode(statement, given)) };
}

/** Now and then how far it is. @param {Progress} progress @param {import("./journal.js").Line | null} line
 * @param {Uint8Array} journal @param {string} what */
async function showing(progress, line, journal, what) {
  if (line === null) return progress(1, what);
  const share = line.end / journal.length;
  if (line.number % 200 === 0) await progress(what === "chain" ? 0.4 * share : 0.4 + 0.6 * share, what);
}

/** Frame and chain of the whole file, and that its sealed part is what the statement names.
 * @param {J} stated `method.journal` @param {Uint8Array} journal @param {Progress} progress */
async function readSealed(stated, journal, progress) {
  const size = count(stated.bytes, "statement.predicate.method.journal.bytes");
  const records = count(stated.records, "statement.predicate.method.journal.records");
  /** @type {import("./journal.js").Line[]} */
  const lines = [];
  for (const line of readLines(journal)) {
    if (BigInt(line.end) <= size) lines.push(line);
    await showing(progress, line, journal, "chain");
  }
  const last = lines[lines.length - 1];
  const bytes = last?.end ?? 0, head = last?.head ?? "00".repeat(32);
  const content = journal.subarray(0, bytes);
  const sha = hex(new Uint8Array(await crypto.subtle.digest("SHA-256", owned(content))));
  const fewer = `the journal is truncated: it has ${lines.length} records, ${records} were sealed`;
  require(BigInt(lines.length) >= records, "journal_truncated", fewer, "statement.predicate.method.journal.records");
  const facts = BigInt(lines.length) === records && BigInt(bytes) === size && sha === stated.sha256;
  const isOther = head !== stated.headSha256;
  require(!isOther, "journal_other", `this is not the sealed journal: its last sealed record has hash ${head.slice(0, 16)}…, not ${stated.headSha256.slice(0, 16)}…`, "statement.predicate.method.journal");
  require(facts, "journal_facts", "the journal has other bytes or records than stated", "statement.predicate.method.journal");
  return { lines, bytes, head, sha256: sha };
}

/** What a verification starts from. @param {J} statement */
function checkBasics(statement) {
  const { method, totals } = statement.predicate;
  const subject = statement.subject?.[0]?.digest?.sha256;
  const wrong = (/** @type {string} */ path) => new Refusal("statement_malformed", `the statement does not name its journal and totals: ${path} is missing or of another type`, path);
  const sha = (/** @type {any} */ value) => isText(value) && _HEX.test(value);
  if (!sha(subject)) throw wrong("statement.subject");
  const journal = method?.journal;
  if (!isObject(journal)) throw wrong("statement.predicate.method.journal");
  if (!sha(journal.headSha256)) throw wrong("statement.predicate.method.journal.headSha256");
  if (journal.sha256 !== subject) throw wrong("statement.predicate.method.journal.sha256");
  for (const name of ["records", "bytes"]) count(journal[name], `statement.predicate.method.journal.${name}`);
  if (!isObject(totals?.executed)) throw wrong("statement.predicate.totals.executed");
  for (const name of ["low", "measured", "high"]) {
    const path = `statement.predicate.totals.executed.${name}`;
    if (totals.executed[name] !== null || name === "low") count(totals.executed[name], path);
  }
  if (!isTime(method.sealedAt)) throw wrong("statement.predicate.method.sealedAt");
  const listed = method.codeSecrets;
  if (!Array.isArray(listed) || !listed.every(sha)) throw wrong("statement.predicate.method.codeSecrets");
}

/** The times that the statement repeats of the journal. @param {J} predicate */
function checkTimes({ method, incarnations }) {
  const spans = Array.isArray(incarnations) ? incarnations : [null];
  const times = [method.journal.lastRecordAt, ...spans.flatMap((one) => [one?.startedAt, one?.lastRecordAt])];
  const strange = times.find((one) => !isTime(one));
  require(times.every(isTime), "time_malformed", `the ledger has a time that cannot be read: ${shown(strange)}`);
}

/** @param {J} statement @param {Given} given */
async function verifyNode(statement, { journal, library, allowReplay, progress = () => {} }) {
  const { predicate } = statement;
  checkBasics(statement);
  if (journal === null) throw new Refusal("journal_missing", "the journal does not exist: no total can be recomputed");
  const sealed = await readSealed(predicate.method.journal, journal, progress);
  const secrets = secretsOf(predicate.method.codeSecrets);
  const history = new History(), records = new Records(secrets);
  for (const line of sealed.lines) {
    history.add(line, records.read(line));
    await showing(progress, line, journal, "records");
  }
  require(history.incarnations.length, "law_1", "the journal is empty");
  const peaks = library.peaks(history.first.peak_table_sha256);
  checkTimes(predicate);
  const policies = history.latest.begin.policies.map((/** @type {J} */ one) => library.policy(one));
  history.finish(predicate.method.sealedAt, peaks);
  const disclosed = new Map([...secrets].map(([name, secret]) => [name, hex(secret)]));
  const from = { history, stated: predicate, journal: sealed, policies, peaks, disclosed };
  const { statement: computed, unverified } = statementOf(from);
  const tally = { leaves: 0 };
  checkEvidence(predicate.evidence);
  same(statement, computed, "statement", "the journal", tally);
  const replay = predicate.replay && `this ledger is a replay of the recording '${predicate.replay.recording}'`;
  require(!replay || allowReplay, "replay", `${replay}: no hardware was metered`, "statement.predicate.replay");
  await showing(progress, null, journal, "statement");
  const rules = policies.map((/** @type {any} */ one) => ({ what: one.id, sha256: one.sha256, own: one.own }));
  return {
    unverified, leaves: tally.leaves, history, peaks, head: sealed.head,
    tables: [{ what: "peaks", sha256: peaks.sha256, own: peaks.own }, ...rules], notes: [],
  };
}

/** Two ledgers of one run and node: the same up to the end of the shorter one, or two histories.
 * @param {Accepted} one @param {Accepted} other */
export function compareHistories(one, other) {
  const a = one.statement.predicate, b = other.statement.predicate;
  const same_ = a.kind === "node" && b.kind === "node" && a.run.id === b.run.id && a.node.name === b.node.name;
  require(same_, "another_run", `the other ledger is of another run or node: run ${quoted(b.run?.id)} on ${quoted(b.node?.name)}, not run ${quoted(a.run?.id)} on ${quoted(a.node?.name)}`);
  if (!one.history || !other.history) return;
  const x = [...one.history.heads.values()], y = [...other.history.heads.values()];
  const shared = Math.min(x.length, y.length);
  let common = 0;
  while (common < shared && x[common] === y[common]) common++;
  if (common === shared) return;
  if (common === 0) {
    const times = one.history.periods(), others = other.history.periods();
    if (!times.some((a) => others.some((b) => a.begin < b.end && b.begin < a.end))) return;
  }
  const part = common === 0 ? "have no record in common" : `part after record ${common}`;
  const where = `run '${a.run.id}' on node '${a.node.name}'`;
  throw new Refusal("two_histories", `FORK: these are two histories of ${where}: their journals ${part}`);
}

/** @param {unknown} error @param {boolean} [merged] Whether it is of a merged ledger. @returns {{verdict: "refuse", code: string, message: string, path: string | null}} */
export function refusal(error, merged = false) {
  if (error instanceof Refusal) return { verdict: "refuse", code: error.code, message: error.message, path: error.path };
  if (error instanceof Fault || !(error instanceof TypeError || error instanceof SyntaxError)) throw error;
  const message = "the ledger has a member of another type than flopsd writes";
  return { verdict: "refuse", code: merged ? "entry_malformed" : "statement_differs", message, path: null };
}
