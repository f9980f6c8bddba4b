// Entries of children in a merged ledger: their shape, and how one is made from the ledger of a node or a job.
import { absentReasons, Refusal, byText, isAmount, isObject, isText, require, shown, sortedTexts } from "./basics.js";
import { ARCHITECTURE_METHODS, EXECUTED_METHODS, GUIDELINES_METHOD } from "./codes.js";
import { ENERGY_RATIO } from "./energy.js";
import { seconds } from "./figures.js";
import { coveragePpm } from "./coverage.js";
import { METHODS, PHASES } from "./names.js";
import { OPERATOR_COUNT } from "./operators.js";
import { isBase } from "./records.js";
import { isTime } from "./times.js";
import { ELSEWHERE, EVIDENCE, REASONS, amountOf, formatsOf, elsewhereOf, unknownOf } from "./tallies.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {(value: any, path: string) => void} Check */

/** @param {(value: any) => boolean} holds @param {string} what @returns {Check} */
const is = (holds, what) => (value, path) => {
  if (!holds(value)) throw new Refusal("entry_malformed", `${path}: ${shown(value)} is not ${what}`, path);
};
/** @param {RegExp} pattern @param {string} what */
const matching = (pattern, what) => is((value) => isText(value) && pattern.test(value), what);
const count = matching(/^(0|[1-9][0-9]{0,39})$/, "a count");
const time = matching(/^(0|[1-9][0-9]{0,39})\.[0-9]{9}$/, "seconds");
const signed = matching(/^(0|-?[1-9][0-9]{0,39})$/, "a number of nanoseconds");
const sha = matching(/^[0-9a-f]{64}$/, "a SHA-256");
const utc = is(isTime, "a time");
const text = is(isText, "a text");
const flag = is((value) => typeof value === "boolean", "true or false");
const small = is((value) => isAmount(value) && value < 1n << 53n, "a small number");
/** @param {Check} check @returns {Check} */
const orNull = (check) => (value, path) => {
  if (value !== null) check(value, path);
};
/** @param {(string | null)[]} names */
const oneOf = (names) => is((value) => names.includes(value), `one of ${names.join(", ")}`);
/** @param {Check} check @returns {Check} */
const list = (check) => (value, path) => {
  require(Array.isArray(value), "entry_malformed", `${path} is not a list`, path);
  value.forEach((/** @type {any} */ one, /** @type {number} */ i) => check(one, `${path}[${i}]`));
};
/** @param {Check} check @returns {Check} */
const some = (check) => (value, path) => {
  list(check)(value, path);
  require(value.length, "entry_malformed", `${path} is empty`, path);
};
/** @param {string[]} names @param {Check} check @returns {Check} */
const map = (names, check) => (value, path) => {
  require(isObject(value), "entry_malformed", `${path} is not an object`, path);
  for (const name of Object.keys(value)) {
    require(names.includes(name), "entry_malformed", `${path}: '${name}' is not a name of it`, path);
    check(value[name], `${path}.${name}`);
  }
};
/** @param {Record<string, Check>} members @param {Record<string, Check>} [may] @returns {Check} */
const shape = (members, may = {}) => (value, path) => {
  const checks = new Map(Object.entries({ ...members, ...may }));
  require(isObject(value), "entry_malformed", `${path} is not an object`, path);
  for (const name of Object.keys(value)) {
    require(checks.has(name), "entry_malformed", `${path}.${name} is a member that no entry has`, `${path}.${name}`);
    /** @type {Check} */ (checks.get(name))(value[name], `${path}.${name}`);
  }
  const missing = Object.keys(members).find((name) => !(name in value));
  require(missing === undefined, "entry_malformed", `${path}.${missing} is missing`, path);
};

const note = is((value) => isObject(value) && isText(value.code)
  && Object.values(value).every((one) => (Array.isArray(one) ? one.every(isText) : isText(one))), "a note");

const _FIGURES = { low: count, measured: orNull(count), high: orNull(count) };
const figures = shape(_FIGURES);
const _COUNTED = { ..._FIGURES, cumulative: figures };
const bounds = { low: count, computed: orNull(count), high: orNull(count) };
const claim = shape({
  phase: oneOf([...PHASES, null]), precision: orNull(is((value) => isText(value) && formatsOf(value) !== null, "a format")), flop: figures,
  process: is((value) => value === null, "null"),
});
const _totals = shape({
  executed: shape({
    ..._FIGURES, method: some(oneOf(EXECUTED_METHODS)), mayBeIntegerFlop: count, byEvidence: map([...EVIDENCE, "gap", OPERATOR_COUNT], figures),
    byPhase: map([...PHASES, "undeclared"], figures),
  }),
  integerOperations: shape({ ..._FIGURES, guidelines: shape(_COUNTED) }),
  guidelines: shape({ ..._COUNTED, operatorCount: shape({ low: count, cumulativeLow: count }), asClaimed: orNull(shape({ ..._COUNTED, claims: some(claim) })), method: oneOf([GUIDELINES_METHOD]) }),
  architecture: orNull(shape({
    ...bounds, executed: shape(bounds), tokens: count, marginPpm: count, method: some(oneOf(ARCHITECTURE_METHODS)),
  })),
  architectureAbsentReasons: list(note),
});
/** @type {Check} */
const totals = (value, path) => {
  _totals(value, path);
  require((value.architecture === null) === (value.architectureAbsentReasons.length > 0), "entry_malformed",
    `${path} has neither an architecture basis nor a reason, or both`, path);
  const { executed, integerOperations: integers, guidelines: rules } = value;
  const counted = [rules, integers.guidelines, rules.asClaimed].filter((one) => one !== null);
  for (const { low, high } of [executed, integers, ...counted, ...counted.map((one) => one.cumulative)]) {
    require(high === null || BigInt(low) <= BigInt(high), "entry_malformed", `${path} has a low figure above the high one`, path);
  }
};
const coverage = shape({
  observedSeconds: time, gapSeconds: time, recoveredSeconds: time, spanSeconds: time, jobSeconds: time,
  unknownSeconds: time, boundedSeconds: time, coveragePpm: orNull(count), gapSecondsByReason: map(REASONS, time),
});
const any = is(() => true, "anything");
const _BASE = shape({ name: any, kind: any, flop: any, method: any, systemic: any, declaredBy: text }, { reason: any });
/** @type {Check} */
const base = (value, path) => {
  is(isBase, "a base model")(value, path);
  if (value !== null) _BASE(value, path);
};
const _JOURNAL = { sha256: sha, headSha256: sha, bytes: count, records: count };
const segment = orNull(shape({
  number: small, continues: orNull(shape({ number: small, ..._JOURNAL })), isContinued: flag, journal: shape(_JOURNAL),
}));
const joules = matching(/^(0|[1-9][0-9]{0,39})\.[0-9]{3}$/, "an energy");
const energy = shape({
  name: oneOf([ENERGY_RATIO]), part: text, precision: text, publishedFjPerFlop: shape({ low: count, high: count }),
  deviceSeconds: time, energyJoules: joules, measuredFlop: matching(/^[1-9][0-9]{0,39}$/, "a count above 0"), doubtFlop: count, fjPerFlop: figures, withinMargin: flag,
  warning: orNull(text),
});
const entry = shape({
  name: text, sha256: sha, kind: oneOf(["node", "job"]), keyids: some(sha), run: text, node: orNull(text),
  rank: orNull(small), instanceType: orNull(text), replay: flag, flopsdVersions: some(text), peakTableSha256: some(sha),
  startedAt: utc, lastRecordAt: utc,
  periods: some(shape({
    incarnation: orNull(small), attempt: orNull(text), bootId: text, beginNs: signed, endNs: signed, wallOffsetNs: signed,
  })),
  deviceTimes: list(shape({ incarnation: small, beginNs: signed, endNs: signed, devices: some(text) })),
  ended: orNull(flag), segment,
  declared: shape({ method: oneOf([...METHODS, null]), base, contradictions: list(note) }, { conflict: list(text) }),
  totals, energyJoules: orNull(joules),
  energyUncountedSeconds: time, deviceSeconds: time, nodeSeconds: time, coverage, reconciliation: list(energy),
}, { completeness: shape({ complete: orNull(flag), missing: list(note) }) });

const _RUN = shape({ id: text, platform: text, jobName: orNull(text), jobArn: orNull(text) });

/** The facts of the merge. @param {J} predicate */
export function checkMerge({ kind, run, lineage, jobNodes, completeness, method, startedAt, lastRecordAt }) {
  const path = "statement.predicate";
  if (kind === "job") _RUN(run, `${path}.run`);
  else text(lineage?.name, `${path}.lineage.name`);
  const isOne = kind === "job" ? lineage === null : run === null && jobNodes.length === 0;
  require(isOne, "entry_malformed", `an entry of a ${kind} is of another kind`, path);
  orNull(count)(completeness?.declaredNodes, `${path}.completeness.declaredNodes`);
  list(text)(jobNodes, `${path}.jobNodes`);
  utc(method?.sealedAt, `${path}.method.sealedAt`);
  utc(startedAt, `${path}.startedAt`);
  utc(lastRecordAt, `${path}.lastRecordAt`);
  text(method.flopsdVersion, `${path}.method.flopsdVersion`);
  list(is((one) => isObject(one) && "id" in one && "sha256" in one, "a policy"))(method.policies, `${path}.method.policies`);
}

/** @param {any} children @param {string} kind */
export function checkEntries(children, kind) {
  const path = "statement.predicate.children";
  require(Array.isArray(children), "entry_malformed", "children is not a list", path);
  require(children.length, "no_children", "the merged ledger lists no children", path);
  children.forEach((/** @type {J} */ one, /** @type {number} */ i) => {
    const where = `${path}[${i}]`;
    entry(one, where);
    const isJob = one.kind === "job";
    require(kind === "lineage" || !isJob, "entry_malformed", `${where}: a job in a job`, where);
    const wanted = isJob || kind === "lineage";
    require(wanted === "completeness" in one, "entry_malformed", `${where}: completeness is missing, or of no job or lineage`, where);
    require(isJob === "conflict" in one.declared, "entry_malformed", `${where}: declared.conflict`, where);
    checkOfKind(one, isJob, where);
    const name = `${isJob ? one.run : one.node}/${one.sha256.slice(0, 16)}`;
    require(one.name === name, "entry_malformed", `${where}: the name is not ${name}`, where);
    const sorted = one.keyids.every((/** @type {string} */ id, /** @type {number} */ n) => !n || one.keyids[n - 1] < id);
    require(sorted, "entry_malformed", `${where}: keyids are not in order`, where);
    for (const period of [...one.periods, ...one.deviceTimes]) {
      require(BigInt(period.beginNs) <= BigInt(period.endNs), "entry_malformed", `${where}: time runs backwards`, where);
    }
  });
}

/** What depends on whether the child is a node or a job. @param {J} one @param {boolean} isJob @param {string} where */
function checkOfKind(one, isJob, where) {
  const { periods, segment: part } = one;
  const holds = isJob
    ? [one.ended, one.node, one.rank, one.instanceType, part, periods[0].incarnation, periods[0].attempt].every((value) => value === null) &&
      periods.length === 1 && periods[0].bootId === "" && !one.deviceTimes.length
    : typeof one.ended === "boolean" && isText(one.node) && one.flopsdVersions.length === 1 && one.peakTableSha256.length === 1 &&
      periods.every((/** @type {J} */ period, /** @type {number} */ i) => period.incarnation === BigInt(i + 1) && isText(period.attempt));
  require(holds, "entry_malformed", `${where} does not have the members of a ${one.kind}`, where);
  if (part === null) return;
  const first = part.number === 1n;
  const whole = first === (part.continues === null) && (part.continues !== null || part.isContinued) &&
    part.journal.records !== "0" && (first || part.continues.number === part.number - 1n);
  require(whole, "entry_malformed", `${where}.segment is malformed`, `${where}.segment`);
}

/** Merge's own record of who signed and in which words: taken over, not computed. @param {J} stated */
function kept(stated) {
  return { keyids: stated.keyids };
}

/** @param {J} predicate @param {string[]} members */
function pick(predicate, members) {
  return Object.fromEntries(members.filter((name) => name in predicate).map((name) => [name, predicate[name]]));
}

/** @param {J} totals @returns {J} */
function sums(totals) {
  const { executed, integerOperations, guidelines, architecture } = totals;
  const claimed = guidelines.asClaimed;
  return {
    executed: pick(executed, ["low", "measured", "high", "method", "mayBeIntegerFlop", "byEvidence", "byPhase"]),
    integerOperations,
    guidelines: {
      ...pick(guidelines, ["low", "measured", "high", "cumulative", "operatorCount", "method"]),
      asClaimed: claimed && {
        ...claimed, claims: claimed.claims.map((/** @type {J} */ one) => ({ ...one, process: null })),
      },
    },
    architecture: architecture && pick(architecture, ["low", "computed", "high", "executed", "method", "tokens", "marginPpm"]),
    architectureAbsentReasons: absentReasons(totals.architectureAbsentReasons),
  };
}

/** @param {J} predicate @returns {J[]} */
function energyOf({ reconciliation }) {
  return reconciliation.filter((/** @type {J} */ one) => one.name === ENERGY_RATIO);
}

/** @param {import("./history.js").History} history */
function jobTime(history) {
  let job = 0n, unknown = 0n, bounded = 0n;
  for (const device of history.devices) {
    const tally = device.last;
    job += tally.to - device.first - elsewhereOf(tally);
    unknown += unknownOf(tally);
    bounded += amountOf(tally, "observed_ns/utilization") + amountOf(tally, "recovered_ns/utilization");
  }
  return { job, unknown, bounded };
}

/** The spans in which a device was the job's: its time without the gaps that are accounted elsewhere.
 * @param {import("./history.js").Device} device @param {import("./history.js").Gap[]} gaps */
function ownTimes(device, gaps) {
  const own = gaps.filter((gap) => gap.device === device && ELSEWHERE.includes(gap.reason));
  const last = (device.journalled ?? device.last).to;
  const found = [];
  let at = device.first;
  for (const { begin, end } of [...own, { begin: last, end: last }]) {
    if (at < begin) found.push({ from: at, end: begin });
    at = end;
  }
  return found;
}

const _UUID = /[0-9a-f]{8}/i;

/** @param {import("./history.js").History} history @param {string} node */
function deviceTimes(history, node) {
  /** @type {J[]} */
  const found = [];
  for (const one of history.incarnations) {
    for (const device of one.devices) {
      const { known } = device;
      const named = known.serial !== null || _UUID.test(known.uuid);
      const name = named ? known.uuid : `${node}/${known.uuid}`;
      for (const { from, end } of ownTimes(device, history.gaps)) {
        const begin = { incarnation: one.begin.incarnation, beginNs: String(from), endNs: String(end) };
        const same = found.find((other) =>
          other.incarnation === begin.incarnation && other.beginNs === begin.beginNs && other.endNs === begin.endNs);
        if (same) same.devices.push(name);
        else found.push({ ...begin, devices: [name] });
      }
    }
  }
  for (const one of found) one.devices.sort(byText);
  const by = (/** @type {J} */ one) => [one.incarnation, BigInt(one.beginNs), BigInt(one.endNs)];
  return found.sort((a, b) => {
    const [x, y] = [by(a), by(b)];
    const at = x.findIndex((value, i) => value !== y[i]);
    return at < 0 ? 0 : x[at] < y[at] ? -1 : 1;
  });
}

/** The entry of a node. @param {J} statement @param {string} sha256 @param {import("./history.js").History} history
 * @param {J} stated */
export function nodeEntry(statement, sha256, history, stated) {
  const { predicate } = statement;
  const { coverage: covered, method, segment: part } = predicate;
  const { job, unknown, bounded } = jobTime(history);
  const started = sortedTexts(history.incarnations.map(({ begin }) => begin.utc));
  const ended = sortedTexts(history.incarnations.map(({ last }) => last.utc));
  return {
    name: `${predicate.node.name}/${sha256.slice(0, 16)}`, sha256, kind: "node", ...kept(stated), run: predicate.run.id,
    node: predicate.node.name, rank: predicate.node.rank, instanceType: predicate.node.instanceType,
    replay: predicate.replay !== null, flopsdVersions: [method.flopsdVersion], peakTableSha256: [method.peakTableSha256],
    startedAt: started[0], lastRecordAt: ended[ended.length - 1],
    periods: history.incarnations.map(({ begin, last }) => ({
      incarnation: begin.incarnation, attempt: begin.context.attempt, bootId: begin.boot_id, beginNs: String(begin.ns),
      endNs: String(last.ns), wallOffsetNs: String(begin.wall_ns - begin.ns),
    })),
    deviceTimes: deviceTimes(history, predicate.node.name), ended: history.latest.end !== null,
    segment: part && { ...part, journal: pick(method.journal, ["sha256", "headSha256", "bytes", "records"]) },
    declared: pick(predicate.declared, ["method", "base", "contradictions"]), totals: sums(predicate.totals),
    ...pick(predicate, ["energyJoules", "energyUncountedSeconds", "deviceSeconds"]), nodeSeconds: predicate.wallSeconds,
    reconciliation: energyOf(predicate),
    coverage: {
      ...pick(covered, ["observedSeconds", "gapSeconds", "recoveredSeconds", "spanSeconds", "gapSecondsByReason"]),
      jobSeconds: seconds(job), unknownSeconds: seconds(unknown), boundedSeconds: seconds(bounded),
      coveragePpm: coveragePpm(job, unknown),
    },
  };
}

/** The entry of a job in a lineage. @param {J} statement @param {string} sha256 @param {J} stated */
export function jobEntry(statement, sha256, stated) {
  const { predicate } = statement;
  const ns = (/** @type {string} */ name, /** @type {(one: bigint, other: bigint) => boolean} */ isFirst) =>
    String(predicate.children.flatMap((/** @type {J} */ one) => one.periods)
      .map((/** @type {J} */ one) => BigInt(one[name]) + BigInt(one.wallOffsetNs))
      .reduce((/** @type {bigint} */ one, /** @type {bigint} */ other) => (isFirst(one, other) ? one : other)));
  return {
    name: `${predicate.run.id}/${sha256.slice(0, 16)}`, sha256, kind: "job", ...kept(stated), run: predicate.run.id, node: null,
    rank: null, instanceType: null, replay: predicate.replay !== null, flopsdVersions: sortedTexts([predicate.method.flopsdVersion, ...predicate.method.flopsdVersions]),
    ...pick(predicate.method, ["peakTableSha256"]), ...pick(predicate, ["startedAt", "lastRecordAt"]),
    periods: [{
      incarnation: null, attempt: null, bootId: "", beginNs: ns("beginNs", (a, b) => a < b), endNs: ns("endNs", (a, b) => a > b),
      wallOffsetNs: "0",
    }],
    deviceTimes: [], ended: null, segment: null, completeness: pick(predicate.completeness, ["complete", "missing"]),
    declared: pick(predicate.declared, ["method", "base", "contradictions", "conflict"]), totals: sums(predicate.totals),
    ...pick(predicate, ["energyJoules", "energyUncountedSeconds", "deviceSeconds", "nodeSeconds", "coverage"]),
    reconciliation: energyOf(predicate),
  };
}
