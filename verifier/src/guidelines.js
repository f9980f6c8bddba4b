// What the Commission's Guidelines count of a run, and what would follow from what its processes claim.
import { shareOf } from "./architecture.js";
import { byText } from "./basics.js";
import { add, byClaims, claimOf } from "./claims.js";
import { counted, hasWork } from "./sessions.js";
import { MILLION, ceilDiv, plus, written, zero } from "./figures.js";
import { GUIDELINES_METHOD } from "./codes.js";
import { countingSessions, leavesOut } from "./operators.js";
import { integersOf, withZero } from "./rows.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./figures.js").Figures} Figures */
/** @typedef {import("./statement.js").Account} Account */
/** @typedef {{low: bigint, stated: bigint | null, high: bigint}} Shares */
/** @typedef {import("./claims.js").ByPhase} ByPhase */
/** @typedef {import("./operators.js").Counted[]} Operators */
/** @typedef {{figures: Figures, cumulative: Figures}} Counted */
const _MARGIN_PPM = 300000n;

/** G(E): low and high by `ends`, measured by `points`. @param {ByPhase} ends @param {ByPhase} points @param {Shares} shares
 * @returns {Counted} */
export function counts(ends, points, shares) {
  const of = (/** @type {ByPhase} */ map, /** @type {string} */ phase) => map.get(phase) ?? zero();
  const train = of(ends, "train"), generate = of(ends, "generate");
  const low = (train.low * shares.low) / MILLION;
  let high = train.high === null ? null : ceilDiv(train.high * shares.high, MILLION);
  for (const phase of ["generate", "other", "undeclared"]) {
    const more = of(ends, phase).high;
    high = high === null || more === null ? null : high + more;
  }
  const { measured, cumulative } = points_(points, shares);
  return { figures: { low, measured, high }, cumulative: { low: low + generate.low, measured: cumulative, high } };
}

/** @param {ByPhase} points @param {Shares} shares */
function points_(points, { stated }) {
  const train = points.get("train"), generate = points.get("generate") ?? zero();
  const trained = train?.measured ?? null;
  let measured = stated === null || trained === null ? null : (trained * stated) / MILLION;
  /** @type {bigint | null} */
  let cumulative;
  if (!train) cumulative = generate.measured;
  else if (generate.high === 0n) cumulative = measured;
  else cumulative = measured === null || generate.measured === null ? null : measured + generate.measured;
  let beside = 0n;
  for (const phase of ["other", "undeclared"]) beside += points.get(phase)?.measured ?? 0n;
  if (measured !== null && beside * MILLION > _MARGIN_PPM * measured) measured = null;
  if (cumulative !== null && beside * MILLION > _MARGIN_PPM * cumulative) cumulative = null;
  return { measured, cumulative };
}

/** The value on which all that declare one agree; null: none, or they differ, or one that counts training declares none.
 * @param {any} setting @param {import("./history.js").Session[]} sessions @param {string} fact */
function agreed(setting, sessions, fact) {
  if (setting !== null) return setting;
  const values = new Set(sessions.filter((one) => fact in one.facts || hasWork(one, "train")).map(({ facts }) => facts[fact] ?? null));
  return values.size === 1 ? [...values][0] : null;
}

/** Recomputation and method, from the settings or what all processes agree on. @param {import("./history.js").History} history */
export function known(history) {
  const { method, recomputation } = history.settings;
  const all = [...history.sessions.values()];
  const own = all.filter(({ facts }) => facts.role === undefined || facts.role === null);
  const fused = all.some((one) => counted(one, "fused_head_tokens"));
  const working = own.filter((one) => hasWork(one));
  const whole = working.length > 0 && working.every(({ facts }) =>
    ["full", "pretraining"].includes(facts.method ?? "full") &&
    typeof facts.parameters_total === "bigint" && facts.parameters_total > 0n && facts.parameters_total === facts.parameters_trainable);
  const again = agreed(recomputation, own, "recomputation"), how = agreed(method, own, "method");
  return { again, named: how ?? (whole ? "full" : ""), whole, fused, byProcesses: recomputation === null && again !== null };
}

/** What `requiredPpm` rests on, by codes.
 * @param {import("./history.js").History} history @param {boolean} byOperators @param {boolean} byModel */
function source(history, byOperators, byModel) {
  const { again, named, fused, byProcesses } = known(history);
  const whole = ["pretraining", "full", "lora", "qlora"].includes(named);
  const declaredNone = history.settings.recomputation === "none";
  return [
    again === null ? "not_declared" : again === "full" && whole ? `full_${named}` : again,
    ...(byModel ? ["model_terms"] : []), ...(byOperators ? ["operators_again"] : []),
    ...(byProcesses ? ["processes_word"] : []), ...(declaredNone && fused ? ["fused_head"] : []),
  ];
}

/** @param {import("./history.js").History} history @returns {Shares} */
export function requiredPpm(history) {
  const { again, named, fused } = known(history);
  const low = history.settings.recomputation === "none" && !fused ? 857142n : 666666n;
  const byMethod = /** @type {Record<string, bigint>} */ ({
    pretraining: 750000n, full: 750000n, lora: 666667n, qlora: 666667n,
  });
  const stated = again === "none" ? MILLION : again === "full" ? byMethod[named] ?? null : null;
  return { low, stated, high: MILLION };
}

/** Figures by the phase of the settings, `undeclared` without one, of one kind.
 * @param {Account[]} accounts @param {"flop" | "integer"} kind */
function bySettings(accounts, kind, /** @type {Operators} */ operators = []) {
  /** @type {ByPhase} */
  const ends = new Map();
  /** @type {Map<string, {figures: Figures, read: boolean}>} */
  const points = new Map();
  const point = (/** @type {string} */ phase, /** @type {Figures} */ figures, /** @type {boolean} */ read) => {
    const held = points.get(phase) ?? { figures: zero(), read: false };
    points.set(phase, { figures: plus(held.figures, figures), read: held.read || read });
  };
  for (const { device, of } of accounts) {
    const phase = device.incarnation.begin.declared.phase;
    if (!of.parts.some((part) => part.rows.length || part.read)) continue; // without time it is of no phase
    add(ends, phase ?? "undeclared", of[kind]);
    if (phase !== null) point(phase, of[kind], kind === "flop" ? of.read : of.distinguishes);
    else {
      for (const part of of.parts) {
        if (!part.rows.length && !part.read) continue;
        point(part.phase, part[kind], kind === "flop" ? part.read : part.integersDistinguished);
      }
    }
  }
  const settle = kind === "flop" ? withZero : integersOf;
  const settled = new Map([...points].map(([phase, one]) => [phase, settle(one.figures, one.read)]));
  for (const { phase, settings, flop } of operators) {
    add(ends, settings, flop);
    add(settled, settings === "undeclared" ? phase : settings, flop);
  }
  return { ends, points: settled };
}

/** What the claims rest on.
 * @param {import("./history.js").History} history @param {Account[]} accounts @param {Operators} operators */
function claims(history, accounts, operators) {
  /** @type {Map<string, {phase: string | null, precision: string | null, flop: Figures}>} */
  const found = new Map();
  for (const { device, of } of accounts) {
    for (const part of of.parts) {
      const claim = claimOf(device, part);
      if (claim === null) continue;
      const { phase, precision } = claim;
      const key = `${phase ?? ""}\n${precision ?? ""}`;
      const held = found.get(key) ?? { phase, precision, flop: zero() };
      found.set(key, { ...held, flop: plus(held.flop, part.flop) });
    }
  }
  for (const { phase, settings, flop } of operators) {
    if (phase === settings) continue;
    const held = found.get(`${phase}\n`) ?? { phase, precision: null, flop: zero() };
    found.set(`${phase}\n`, { ...held, flop: plus(held.flop, flop) });
  }
  const pids = new Set([...history.sessions.values()].map(({ process }) => process.pid));
  const process = pids.size === 1 ? [...pids][0] : null;
  return [...found.keys()].sort(byText).map((key) => {
    const one = /** @type {{phase: string | null, precision: string | null, flop: Figures}} */ (found.get(key));
    return { phase: one.phase, precision: one.precision, flop: written(one.flop), process };
  });
}

/** @param {Counted} counted */
function writtenCounted({ figures, cumulative }) {
  return { ...written(figures), cumulative: written(cumulative) };
}

/** s by the operators that processes say they computed again; null: not by these.
 * @param {import("./history.js").History} history */
function statedByOperators(history) {
  const { recomputation } = history.settings;
  const sessions = [...history.sessions.values()];
  if ((recomputation !== null && recomputation !== "selective") || leavesOut(sessions, "train")) return null;
  const sum = (/** @type {string} */ name) =>
    countingSessions(history).reduce((all, one) => all + counted(one, name, ["train"]), 0n);
  const all = sum("operator_flop"), again = sum("recomputed_operator_flop");
  if (!all || all < again) return null;
  const share = ((all - again) * MILLION) / all;
  return share < 666666n ? 666666n : share;
}

/** The model's own terms in place of s, where they are known. Of a basis that is taken as stated they are too.
 * @param {Shares} shares @param {import("./architecture.js").Basis} basis @param {J} stated */
function byModel(shares, basis, stated) {
  if (shares.stated === null || basis.stated === null) return { replaced: false, unverified: [] };
  if (!basis.unverified.length) {
    const share = shareOf(basis);
    shares.stated = share ?? shares.stated;
    return { replaced: share !== null, unverified: [] };
  }
  const unverified = ["statement.predicate.totals.guidelines.requiredPpmSource"];
  const { requiredPpmSource, requiredPpm } = stated.totals?.guidelines ?? {};
  const replaced = Array.isArray(requiredPpmSource) && requiredPpmSource.includes("model_terms");
  if (replaced) {
    const number = typeof requiredPpm?.stated === "string" && /^[0-9]{1,7}$/.test(requiredPpm.stated) ? BigInt(requiredPpm.stated) : shares.stated;
    shares.stated = number < MILLION ? number : MILLION;
    unverified.push("statement.predicate.totals.guidelines.requiredPpm.stated");
  }
  return { replaced, unverified };
}

/** @param {import("./history.js").History} history @param {Account[]} accounts @param {Operators} operators
 * @param {boolean} none @param {import("./architecture.js").Basis} basis @param {J} stated */
export function guidelines(history, accounts, operators, none, basis, stated) {
  const shares = requiredPpm(history);
  const { unverified, replaced } = byModel(shares, basis, stated);
  const byOperators = statedByOperators(history);
  if (byOperators !== null) shares.stated = byOperators;
  const unknown = { low: 0n, measured: null, high: null };
  const { ends, points } = none
    ? { ends: new Map([["undeclared", unknown]]), points: new Map([["undeclared", unknown]]) } : bySettings(accounts, "flop", operators);
  const rested = claims(history, accounts, operators);
  const byClaim = byClaims(accounts, "claimed");
  for (const { phase, claimed } of operators) add(byClaim, phase, claimed);
  const found = counts(ends, points, shares);
  const without = none ? found : counts(bySettings(accounts, "flop").ends, points, shares);
  return {
    shares, unverified,
    claimedIntegers: rested.length ? counts(...twice(byClaims(accounts, "claimedInteger")), shares) : null,
    written: {
      ...writtenCounted(found),
      operatorCount: {
        low: String(found.figures.low - without.figures.low),
        cumulativeLow: String(found.cumulative.low - without.cumulative.low),
      },
      asClaimed: rested.length ? { ...writtenCounted(counts(byClaim, byClaim, shares)), claims: rested } : null,
      method: GUIDELINES_METHOD, requiredPpmSource: source(history, byOperators !== null, replaced),
      requiredPpm: {
        low: String(shares.low), stated: shares.stated === null ? null : String(shares.stated), high: String(shares.high),
      },
    },
  };
}

/** @param {ByPhase} map @returns {[ByPhase, ByPhase]} */
function twice(map) {
  return [map, map];
}

/** @param {import("./history.js").History} history @param {Account[]} accounts @param {boolean} none
 * @param {ReturnType<typeof guidelines>} rules */
export function integerGuidelines(history, accounts, none, rules) {
  const unknown = { low: 0n, measured: null, high: null };
  const { ends, points } = none
    ? { ends: new Map([["undeclared", unknown]]), points: new Map([["undeclared", unknown]]) }
    : bySettings(accounts, "integer");
  return writtenCounted(counts(ends, points, rules.shares));
}
