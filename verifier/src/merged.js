// Ledgers made of ledgers: the statement computed from the entries, and each entry from its child.
import { absentReasons, byText, isObject, object, require, sortedTexts } from "./basics.js";
import { checkChildren } from "./children.js";
import { ARCHITECTURE_METHODS, EXECUTED_METHODS, GUIDELINES_METHOD, assumptions, claim, ordered } from "./codes.js";
import { mergedContradictions } from "./contradictions.js";
import { same } from "./compare.js";
import { coveragePpm } from "./coverage.js";
import { checkEntries, checkMerge } from "./entries.js";
import { joules, nanoseconds, plus, readFigures, seconds, written, zero } from "./figures.js";
import { addedRatios } from "./energy.js";
import { findings } from "./findings.js";
import { checkDifferent, checkOrder, checkTogether, completeness, recordings } from "./merging.js";
import { METHODS } from "./names.js";
import { pair } from "./reconciliation.js";
import { PREDICATE, STATEMENT, writtenMap } from "./statement.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./figures.js").Figures} Figures */

/** @param {J[]} children @param {(child: J) => J} of @returns {J} */
function figuresSum(children, of) {
  return written(children.map((one) => readFigures(of(one))).reduce(plus, zero()));
}

/** @param {J[]} children @param {(child: J) => J} of @returns {J} */
function mapSum(children, of) {
  /** @type {Map<string, Figures>} */
  const sums = new Map();
  for (const child of children) {
    const found = of(child);
    for (const name of Object.keys(found)) sums.set(name, plus(sums.get(name) ?? zero(), readFigures(found[name])));
  }
  return writtenMap(sums);
}

/** Sums of which `measured` is null as soon as that of one child is whose high is not 0.
 * @param {J[]} all @param {boolean} whole */
function countedSum(all, whole) {
  const found = all.map(readFigures);
  const open = found.some((one) => one.measured === null && one.high !== 0n);
  const sum = found.reduce(plus, zero());
  return written({ low: sum.low, measured: open ? null : sum.measured, high: whole ? sum.high : null });
}

/** @param {J[]} all @param {boolean} whole */
function counted(all, whole) {
  return { ...countedSum(all, whole), cumulative: countedSum(all.map((one) => one.cumulative), whole) };
}

/** @param {J[]} rules */
function operatorCount(rules) {
  const sum = (/** @type {string} */ name) => String(rules.reduce((all, one) => all + BigInt(one.operatorCount[name]), 0n));
  return { low: sum("low"), cumulativeLow: sum("cumulativeLow") };
}

/** @param {J[]} children */
function claims(children) {
  /** @type {Map<string, {phase: string | null, precision: string | null, flop: Figures}>} */
  const sums = new Map();
  for (const { totals } of children) {
    for (const one of totals.guidelines.asClaimed?.claims ?? []) {
      const key = `${one.phase ?? ""}\n${one.precision ?? ""}`;
      const held = sums.get(key) ?? { phase: one.phase, precision: one.precision, flop: zero() };
      sums.set(key, { ...held, flop: plus(held.flop, readFigures(one.flop)) });
    }
  }
  return [...sums.entries()].sort(([a], [b]) => byText(a, b))
    .map(([, one]) => ({ phase: one.phase, precision: one.precision, flop: written(one.flop), process: null }));
}

/** @param {J[]} children @returns {J | null} */
function architectureSum(children) {
  const all = children.map((one) => one.totals.architecture);
  if (all.includes(null)) return null;
  const bounds = (/** @type {J[]} */ some) => {
    const sum = (/** @type {string} */ name) =>
      some.some((one) => one[name] === null) ? null : String(some.reduce((total, one) => total + BigInt(one[name]), 0n));
    return { low: sum("low"), computed: sum("computed"), high: sum("high") };
  };
  return {
    ...bounds(all), executed: bounds(all.map((one) => one.executed)),
    tokens: String(all.reduce((total, one) => total + BigInt(one.tokens), 0n)),
    marginPpm: "300000", method: ordered(ARCHITECTURE_METHODS, all.flatMap((one) => one.method)),
  };
}

const _SILENT = ["no_process", "no_work"];

/** A segment of which no process declared a model takes nothing from the sum, where another of its node has a basis.
 * @param {J[]} children */
function withBasis(children) {
  const silent = (/** @type {J} */ one) => one.segment !== null && one.totals.architecture === null
    && one.totals.architectureAbsentReasons.every((/** @type {J} */ reason) => _SILENT.includes(reason.code));
  const kept = children.filter((one) => !silent(one) || !children.some((other) =>
    other !== one && other.node === one.node && other.rank === one.rank && other.segment !== null && !silent(other)));
  return kept.length ? kept : children;
}

/** @param {J[]} children @param {boolean} whole */
function whyAbsent(children, whole) {
  const own = withBasis(children);
  if (whole && own.every((one) => one.totals.architecture)) return [];
  const reasons = own.flatMap((one) => one.totals.architectureAbsentReasons);
  return reasons.length ? absentReasons(reasons) : [{ code: "ledger_may_be_missing" }];
}

/** @param {J[]} children @param {boolean} whole */
function totals(children, whole) {
  const executed = children.map((one) => one.totals.executed);
  const sum = figuresSum(children, (one) => one.totals.executed);
  const integers = children.map((one) => one.totals.integerOperations);
  const rules = children.map((one) => one.totals.guidelines);
  const claimed = rules.some((one) => one.asClaimed !== null)
    ? { ...counted(rules.map((one) => one.asClaimed ?? one), whole), claims: claims(children) } : null;
  const integerSum = figuresSum(children, (one) => one.totals.integerOperations);
  return {
    executed: {
      ...sum, high: whole ? sum.high : null, method: ordered(EXECUTED_METHODS, executed.flatMap((one) => one.method)),
      mayBeIntegerFlop: String(executed.reduce((total, one) => total + BigInt(one.mayBeIntegerFlop), 0n)),
      byEvidence: mapSum(children, (one) => one.totals.executed.byEvidence),
      byPhase: mapSum(children, (one) => one.totals.executed.byPhase),
    },
    integerOperations: {
      ...integerSum, high: whole ? integerSum.high : null, guidelines: counted(integers.map((one) => one.guidelines), whole),
    },
    guidelines: { ...counted(rules, whole), method: GUIDELINES_METHOD, operatorCount: operatorCount(rules), asClaimed: claimed }, architecture: whole ? architectureSum(withBasis(children)) : null,
    architectureAbsentReasons: whyAbsent(children, whole),
  };
}

/** @param {J[]} children @param {(child: J) => string} of */
function timeSum(children, of) {
  return seconds(children.reduce((sum, one) => sum + nanoseconds(of(one)), 0n));
}

/** @param {J[]} children */
function coverage(children) {
  /** @type {J} */
  const found = object();
  const names = ["observed", "gap", "recovered", "span", "job", "unknown", "bounded"].map((name) => `${name}Seconds`);
  for (const name of names) found[name] = timeSum(children, (one) => one.coverage[name]);
  const reasons = object();
  for (const child of children) {
    for (const reason of Object.keys(child.coverage.gapSecondsByReason)) {
      const ns = nanoseconds(child.coverage.gapSecondsByReason[reason]);
      reasons[reason] = seconds(nanoseconds(reasons[reason] ?? "0.000000000") + ns);
    }
  }
  const ppm = coveragePpm(nanoseconds(found.jobSeconds), nanoseconds(found.unknownSeconds));
  return { ...found, coveragePpm: ppm, gapSecondsByReason: reasons };
}

/** @param {J[]} children */
function energy(children) {
  const known = children.map((one) => one.energyJoules).filter((one) => one !== null);
  const sum = known.reduce((total, one) => total + BigInt(one.replace(".", "")), 0n);
  return known.length ? joules(sum) : null;
}

/** What is added up of the children. @param {J[]} children @param {boolean} whole @returns {J} */
function sums(children, whole) {
  return {
    totals: totals(children, whole), energyJoules: energy(children), coverage: coverage(children),
    energyUncountedSeconds: timeSum(children, (one) => one.energyUncountedSeconds),
    deviceSeconds: timeSum(children, (one) => one.deviceSeconds), nodeSeconds: timeSum(children, (one) => one.nodeSeconds),
    reconciliation: addedRatios(children.flatMap((one) => one.reconciliation)),
  };
}

/** Each child has its sums as the sum of itself alone. @param {J[]} children */
function checkSums(children) {
  children.forEach((child, i) => {
    for (const [name, made] of Object.entries(sums([child], true))) {
      same(child[name], made, `statement.predicate.children[${i}].${name}`, "the sums of a child", { leaves: 0 }, "entry_malformed");
    }
  });
}

/** @param {J[]} children */
function nodes(children) {
  /** @type {Map<string, J[]>} */
  const all = new Map();
  for (const child of children) {
    const key = `${child.rank}/${child.node}`;
    all.set(key, [...(all.get(key) ?? []), child]);
  }
  return [...all.values()].map((own) => ({
    name: own[0].node, rank: own[0].rank, instanceType: own[0].instanceType, ledgers: String(own.length),
    attempts: String(new Set(own.flatMap((one) => one.periods.map((/** @type {J} */ period) => period.attempt))).size),
    devices: String(new Set(own.flatMap((one) => one.deviceTimes.flatMap((/** @type {J} */ times) => times.devices))).size),
    executed: figuresSum(own, (one) => one.totals.executed), energyJoules: energy(own),
    energyUncountedSeconds: timeSum(own, (one) => one.energyUncountedSeconds),
    deviceSeconds: timeSum(own, (one) => one.deviceSeconds), coveragePpm: coverage(own).coveragePpm,
  }));
}

/** Of all nodes, in the order of METHODS; null if one declares none. @param {J[]} children */
function methodsOf(children) {
  const found = children.flatMap(({ declared: { method, contradictions } }) => {
    const noted = new Map(contradictions.map((/** @type {J} */ one) => [one.code, one]));
    if (method === null || noted.has("node_method_not_declared")) return [null];
    return noted.get("node_methods_differ")?.methods ?? [method];
  });
  return found.includes(null) ? [null] : METHODS.filter((one) => found.includes(one));
}

/** @param {J[]} children */
function declared(children) {
  const methods = children.map((one) => one.declared.method);
  const different = new Set(methods).size > 1;
  const method = methods.includes("pretraining") ? "pretraining" : methods.includes(null) ? null : different ? "full" : methods[0];
  const text = (/** @type {J} */ base) => JSON.stringify(Object.keys(base).sort().map((name) => [name, base[name]]));
  /** @type {J[]} */
  const declared_ = children.map((one) => one.declared.base).filter((one) => one !== null);
  const bases = new Set(declared_.map(text));
  const differ = bases.size > 1 || children.some((one) => one.declared.conflict?.includes("bases_differ")
    || one.declared.contradictions.some((/** @type {J} */ { code }) => code === "start_base_differs"));
  const base = bases.size && !differ ? declared_[0] : null;
  // Of different base models none is taken; pretraining beside one leaves open whether it was modified.
  const both = method === "pretraining" && (bases.size > 0 || differ);
  const conflict = [...(differ ? ["bases_differ"] : []), ...(both ? ["pretraining_with_base"] : [])];
  return { method, base, conflict };
}

/** @param {J} statement @param {import("./library.js").Library} library @returns {J} */
export function mergedStatement(statement, library) {
  const { predicate } = statement;
  const { children, kind } = predicate;
  const isJob = kind === "job";
  const whole = completeness(children, predicate);
  const complete = whole.complete === true;
  const said = declared(children);
  const summed = sums(children, complete);
  const policies = predicate.method.policies.map((/** @type {J} */ one) => library.policy(one));
  const replays = children.filter((/** @type {J} */ one) => one.replay).length;
  const times = (/** @type {string} */ name) => sortedTexts(children.map((/** @type {J} */ one) => one[name]));
  const basis = summed.totals.architecture;
  return {
    _type: STATEMENT,
    subject: children.map((/** @type {J} */ one) => ({ name: one.name, digest: { sha256: one.sha256 } })),
    predicateType: PREDICATE,
    predicate: {
      kind, replay: replays ? { children: String(replays) } : null,
      run: isJob ? { ...predicate.run, id: children[0].run } : null,
      lineage: isJob ? null
        : { name: predicate.lineage?.name, runs: sortedTexts(children.map((/** @type {J} */ one) => one.run)) },
      jobNodes: isJob ? predicate.jobNodes : [],
      completeness: whole,
      attempts: isJob ? sortedTexts(children.flatMap((/** @type {J} */ one) => one.periods.map((/** @type {J} */ p) => p.attempt))) : [],
      incarnationCount: isJob ? String(children.reduce((/** @type {number} */ n, /** @type {J} */ one) => n + one.periods.length, 0)) : null,
      ledgerCount: String(children.length), startedAt: times("startedAt")[0], lastRecordAt: times("lastRecordAt").slice(-1)[0],
      declared: { ...said, contradictions: mergedContradictions(children, said.base, policies, isJob) },
      ...summed,
      findings: findings({
        policies, guidelines: summed.totals.guidelines, integers: summed.totals.integerOperations.guidelines,
        declared: { ...said, methods: methodsOf(children) }, open: !complete,
        conflict: said.conflict,
      }),
      reconciliation: [
        ...(basis === null ? [] : mergedPairs(summed.totals, basis)), ...summed.reconciliation,
      ],
      nodes: isJob ? nodes(children) : [], children, evidence: [],
      claim: claim(kind, false),
      method: {
        flopsdVersion: predicate.method.flopsdVersion, sealedAt: predicate.method.sealedAt,
        flopsdVersions: sortedTexts(children.flatMap((/** @type {J} */ one) => one.flopsdVersions)),
        peakTableSha256: sortedTexts(children.flatMap((/** @type {J} */ one) => one.peakTableSha256)),
        policies: policies.map((/** @type {any} */ one) => ({ id: one.id, sha256: one.sha256 })), assumptions: assumptions(kind),
      },
    },
  };
}

/** @param {J} sums @param {J} basis */
function mergedPairs(sums, basis) {
  const of = (/** @type {J} */ bounds) => readFigures({ low: bounds.low, measured: bounds.computed, high: bounds.high });
  const { byPhase } = sums.executed;
  const named = Object.keys(byPhase).filter((name) => name !== "undeclared").map((name) => readFigures(byPhase[name]));
  const known = named.reduce(plus, zero());
  const executed = { ...known, high: sums.executed.high === null ? null : BigInt(sums.executed.high) };
  const margin = BigInt(basis.marginPpm);
  return [
    pair("executed/architecture", executed, of(basis.executed), margin),
    pair("guidelines/architecture", readFigures(sums.guidelines), of(basis), margin),
  ];
}

/** @param {J} statement @param {import("./verify.js").Given} given
 * @param {(given: import("./verify.js").Given) => Promise<import("./verify.js").Accepted>} verify
 * @returns {Promise<any>} */
export async function verifyMerged(statement, given, verify) {
  const { predicate } = statement;
  checkOrder(predicate.children, predicate.kind);
  checkEntries(predicate.children, predicate.kind);
  checkMerge(predicate);
  checkDifferent(predicate.children);
  checkTogether(predicate.children, predicate);
  const tally = { leaves: 0 };
  checkSums(predicate.children);
  const computed = mergedStatement(statement, given.library);
  same(statement, computed, "statement", "the entries of its children", tally);
  const tables = predicate.method.peakTableSha256.map((/** @type {string} */ digest) => given.library.peaks(digest));
  const rules = predicate.method.policies.map((/** @type {J} */ one) => given.library.policy(one));
  const { whole, unverified } = await checkChildren(statement, given, verify, tally);
  if (predicate.replay) require(given.allowReplay, "replay", recordings(predicate));
  await given.progress?.(1, "statement");
  return {
    unverified, leaves: tally.leaves, history: null, head: null,
    tables: [
      ...tables.map((/** @type {any} */ one) => ({ what: "peaks", sha256: one.sha256, own: one.own })),
      ...rules.map((/** @type {any} */ one) => ({ what: one.id, sha256: one.sha256, own: one.own })),
    ],
    notes: whole ? [] : ["children-not-given"],
  };
}
