// The statement of kind `node`, computed from a journal.
import { byText, isText, object, require, sortedTexts } from "./basics.js";
import { architecture } from "./architecture.js";
import { assumptions, claim } from "./codes.js";
import { coverage } from "./coverage.js";
import { declared } from "./declared.js";
import { deviceEntries } from "./devices.js";
import { energyRatios } from "./energy.js";
import { zero, joules, plus, seconds, written } from "./figures.js";
import { findings } from "./findings.js";
import { guidelines, integerGuidelines, known } from "./guidelines.js";
import { OPERATOR_COUNT, operatorRows } from "./operators.js";
import { isolation } from "./isolation.js";
import { besideOperators, reconciliation } from "./reconciliation.js";
import { rated, withZero } from "./rows.js";
import { ESTIMATING, elsewhereOf, sumOf } from "./tallies.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./figures.js").Figures} Figures */
/** @typedef {import("./history.js").History} History */
/** @typedef {import("./history.js").Device} Device */
/** @typedef {import("./rows.js").Rated} Rated */
/** @typedef {import("./operators.js").Counted} Counted */
/** @typedef {{device: Device, of: Rated}} Account */
/** `stated`: the predicate, for what no journal decides; `disclosed`: secrets by their SHA-256.
 * @typedef {{history: History, stated: J, journal: {sha256: string, bytes: number, head: string},
 *   policies: import("./policy.js").Policy[], peaks: import("./peaks.js").Peaks, disclosed: Map<string, string>}} From */

export const STATEMENT = "https://in-toto.io/Statement/v1";
export const PREDICATE = "urn:uuid:961e75da-79e6-4b84-bec0-b0fcb65b8a61#compute-ledger-v1";
const _UNKNOWN = { low: 0n, measured: null, high: null };

/** @param {Account[]} accounts @param {Counted[]} operators @returns {Map<string, Figures>} */
function byPhase(accounts, operators) {
  /** @type {Map<string, {figures: Figures, read: boolean}>} */
  const found = new Map();
  for (const { of } of accounts) {
    for (const part of of.parts) {
      if (!part.rows.length && !part.read) continue;
      const held = found.get(part.phase) ?? { figures: zero(), read: false };
      found.set(part.phase, { figures: plus(held.figures, part.flop), read: held.read || part.read });
    }
  }
  const phases = new Map([...found].map(([phase, { figures, read }]) => [phase, withZero(figures, read)]));
  for (const { phase, flop } of operators) phases.set(phase, plus(phases.get(phase) ?? zero(), flop));
  return phases;
}

/** @param {Map<string, Figures>} map @returns {J} */
export function writtenMap(map) {
  const found = object();
  for (const name of [...map.keys()].sort(byText)) found[name] = written(/** @type {Figures} */ (map.get(name)));
  return found;
}

/** @param {Account[]} accounts @param {Counted[]} operators @param {boolean} none Whether no incarnation has a device. */
function executed(accounts, operators, none) {
  const rows = accounts.flatMap(({ of }) => of.parts.flatMap((part) => part.rows));
  /** @type {Map<string, Figures>} */
  const byEvidence = new Map();
  /** @type {J} */
  const margins = object();
  let clock = 0n, mayBeInteger = 0n;
  for (const row of rows) {
    byEvidence.set(row.evidence, plus(byEvidence.get(row.evidence) ?? zero(), row.flop));
    clock += row.clock;
    if (row.mayBeInteger) mayBeInteger += row.flop.measured ?? 0n;
    if (row.margin === null) continue;
    if (!(row.evidence in margins) || margins[row.evidence] < row.margin) margins[row.evidence] = row.margin;
  }
  for (const { flop } of operators) byEvidence.set(OPERATOR_COUNT, plus(byEvidence.get(OPERATOR_COUNT) ?? zero(), flop));
  /** @type {string[]} */
  const read = ESTIMATING.filter((name) => accounts.some(({ device }) => sumOf(device.last, `observed_ns/${name}`) > 0n));
  if (operators.length) read.push(OPERATOR_COUNT);
  const phases = none ? new Map([["undeclared", _UNKNOWN]]) : byPhase(accounts, operators);
  return {
    ...written(none ? _UNKNOWN : [...accounts.map(({ of }) => of.flop), ...operators.map(({ flop }) => flop)].reduce(plus, zero())),
    method: read.length ? read : ["none"],
    marginPpm: margins, clockUncertaintyFlop: String(clock), mayBeIntegerFlop: String(mayBeInteger),
    byEvidence: writtenMap(byEvidence), byPhase: writtenMap(phases),
  };
}

/** @param {History} history @param {Set<string>} secrets */
function incarnations(history, secrets) {
  return history.incarnations.map(({ begin, sources, checkpoints, last, end }) => ({
    number: begin.incarnation, bootId: begin.boot_id, startedAt: begin.utc, lastRecordAt: last.utc,
    endReason: end?.reason ?? null, childExitCode: end?.child_exit_code ?? null, attempt: begin.context.attempt,
    flopsdVersion: begin.flopsd_version, checkpoints: String(checkpoints),
    codes: secrets.has(begin.code_secret_sha256) ? "checked" : "not_checkable",
    recovered: begin.recovered && {
      cutBytes: begin.recovered.cutBytes, cutSha256: begin.recovered.cutSha256, reasons: begin.recovered.reasons,
      keptAs: begin.recovered.keptAs,
    },
    precision: begin.precision && { sharesPpm: begin.precision.shares_ppm, declaredBy: begin.precision.declared_by },
    phase: begin.declared.phase, sources: Object.fromEntries(sources),
  }));
}

/** @param {History} history */
function segmentOf(history) {
  const { continues } = history.first;
  const isContinued = history.latest.end?.reason === "rotated";
  if (!continues && !isContinued) return null;
  return {
    number: continues ? continues.segment + 1n : 1n,
    continues: continues
      ? { number: continues.segment, sha256: continues.sha256, headSha256: continues.head_sha256,
          bytes: String(continues.bytes), records: String(continues.records) }
      : null,
    isContinued,
  };
}

/** @param {History} history */
function replayOf(history) {
  for (const { sources } of history.incarnations) {
    for (const facts of sources.values()) if (facts.replay) return facts.replay;
  }
  return null;
}

/** The energy that was counted, and the job's time in which none was. @param {Device[]} devices */
export function energyOf(devices) {
  /** @type {bigint | null} */
  let energy = null;
  let left = 0n;
  for (const { last, first } of devices) {
    const counted = last.amounts.get("energy_mj");
    if (counted !== undefined) energy = (energy ?? 0n) + counted;
    left += last.to - first - elsewhereOf(last) - (last.amounts.get("energy_ns") ?? 0n);
  }
  return { energyJoules: joules(energy), energyUncountedSeconds: seconds(left > 0n ? left : 0n) };
}

/** @param {From} from */
function method({ history, stated, journal, policies, peaks, disclosed }) {
  const named = history.incarnations.map(({ begin }) => begin.code_secret_sha256);
  const order = [...new Set(named)].filter((name) => disclosed.has(name));
  const margins = object();
  for (const name of Object.keys(peaks.table.margins)) {
    margins[name] = { ppm: peaks.table.margins[name].ppm, source: peaks.table.margins[name].source };
  }
  const seal = history.seals[history.seals.length - 1];
  const path = "statement.predicate.method.flopsdVersion";
  require(isText(stated.method.flopsdVersion), "statement_differs", "the ledger names no version of flopsd", path);
  return {
    flopsdVersion: stated.method.flopsdVersion, sealedAt: stated.method.sealedAt,
    peakTableSha256: history.first.peak_table_sha256,
    configSha256: sortedTexts(history.incarnations.map(({ begin }) => begin.config_sha256)), margins,
    policies: policies.map((/** @type {J} */ one) => ({ id: one.id, sha256: one.sha256 })),
    assumptions: assumptions("node"), codeSecrets: order.map((name) => disclosed.get(name)),
    earlierSeals: {
      count: String(history.seals.length),
      newest: seal
        ? { payloadSha256: seal.payload_sha256, headSha256: seal.head_sha256, bytes: String(seal.bytes), sealedAt: seal.utc }
        : null,
    },
    journal: {
      sha256: journal.sha256, bytes: String(journal.bytes), records: String(history.records), headSha256: journal.head,
      lastRecordAt: history.latest.last.utc,
    },
  };
}

/** @param {From} from */
export function statementOf(from) {
  const { history, stated, journal, policies, peaks, disclosed } = from;
  const accounts = history.devices.map((device) => ({ device, of: rated(device, peaks) }));
  const none = !accounts.length;
  const { first } = history;
  const { settings } = history, otherwise = known(history).whole ? "full" : null;
  const basis = architecture(history, { method: settings.method, recomputation: settings.recomputation, otherwise }, stated);
  const operators = operatorRows(history, accounts);
  const exec = executed(accounts, operators.rows, none);
  const integers = none ? _UNKNOWN : accounts.map(({ of }) => of.integer).reduce(plus, zero());
  const rules = guidelines(history, accounts, operators.rows, none, basis, stated);
  const integerRules = integerGuidelines(history, accounts, none, rules);
  const segment = segmentOf(history);
  const context = first.context;
  const place = history.incarnations.map(({ begin }) => begin.context.node)
    .reduce((most, one) => (one.jobNodes.length > most.jobNodes.length ? one : most));
  const open = segment !== null || place.jobNodes.length > 1;
  const said = declared(history, policies, operators.exceeding);
  let wall = 0n;
  for (const { last, begin } of history.incarnations) wall += /** @type {bigint} */ (last.ns) - /** @type {bigint} */ (begin.ns);
  const spans = history.devices.reduce((sum, one) => sum + one.last.to - one.first, 0n);
  const predicate = {
    kind: "node", replay: replayOf(history), segment,
    run: { id: first.run, ...context.run }, node: { name: first.node, ...place },
    attempts: sortedTexts(history.incarnations.map(({ begin }) => begin.context.attempt)),
    incarnations: incarnations(history, new Set(disclosed.keys())),
    devices: deviceEntries(accounts, operators.rows, peaks, energyOf), declared: said,
    totals: {
      executed: exec,
      integerOperations: { ...written(integers), guidelines: integerRules },
      guidelines: rules.written, ...basis.written,
    },
    ...energyOf(history.devices), deviceSeconds: seconds(spans), wallSeconds: seconds(wall),
    coverage: coverage(history, accounts, peaks),
    findings: findings({ policies, guidelines: rules.written, integers: integerRules, declared: said, open }),
    reconciliation: [
      ...reconciliation(exec.byPhase, rules.written, basis, history), ...besideOperators(operators.beside),
      ...energyRatios(accounts, peaks),
    ],
    evidence: stated.evidence, isolation: isolation(history, stated),
    method: method(from), claim: claim("node", segment !== null),
  };
  return {
    statement: {
      _type: STATEMENT, subject: [{ name: "journal.jsonl", digest: { sha256: journal.sha256 } }], predicateType: PREDICATE,
      predicate,
    },
    unverified: [...basis.unverified, ...rules.unverified],
  };
}
