// Findings: each rule of each policy, on figures that are intervals and declarations that may be missing.
import { Declared, every } from "./base_model.js";
import { MILLION, ceilDiv, plus, readFigures, written } from "./figures.js";
import { ofConditions, ofState, once } from "./reasons.js";
import { OPERATOR_COUNT } from "./operators.js";
import { compare, fraction, parseFraction, text, times } from "./policy.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./figures.js").Figures} Figures */
/** @typedef {import("./policy.js").Fraction} Fraction */
/** @typedef {import("./policy.js").Policy} Policy */
/** @typedef {import("./base_model.js").Range} Range */
/** @typedef {{applies: boolean | null, quantity: string, low: Fraction, high: Fraction | null, value: Figures,
 *   onlyIf: J | null, atLeast: boolean, state: string | null, id: string, notes: J[]}} Outcome */
/** @typedef {{updates: Figures, cumulative: Figures}} Amounts */

/** @param {Figures} a @param {Figures} b @returns {Figures} */
function widest(a, b) {
  return {
    low: a.low < b.low ? a.low : b.low, measured: a.measured === b.measured ? a.measured : null,
    high: a.high === null || b.high === null ? null : a.high > b.high ? a.high : b.high,
  };
}

/** @param {Fraction} a @param {boolean} up */
function whole(a, up) {
  return up ? ceilDiv(a.over, a.under) : a.over / a.under;
}

class Judge {
  /** @param {Policy} policy @param {J} declared @param {Amounts} amounts @param {string[]} conflict @param {boolean} isOpen */
  constructor(policy, declared, amounts, conflict, isOpen) {
    this.conflict = conflict;
    this.isOpen = isOpen;
    this.policy = policy;
    this.amounts = amounts;
    this.declared = new Declared(declared, policy.marginPpm, conflict.length > 0);
    /** @type {Map<string, Outcome>} */
    this.outcomes = new Map();
  }

  /** @param {string} id @returns {J} */
  rule(id) {
    return this.policy.rules.find((one) => one.id === id) ?? {};
  }

  /** @param {string} id @returns {Outcome} */
  outcome(id) {
    const rule = this.rule(id);
    const found = this.outcomes.get(id) ?? (rule.derived ? this.derived(rule) : this.direct(rule));
    this.outcomes.set(id, found);
    return found;
  }

  /** @param {J} rule @returns {string} */
  quantity(rule) {
    const { quantity = "cumulative", when = {} } = rule;
    if (typeof quantity === "string") return quantity;
    const { ordinary_base: ordinary, systemic_base: systemic } = quantity;
    const known = this.declared.systemic(when);
    if (known === null) return ordinary === systemic ? ordinary : `${ordinary} or ${systemic}`;
    return known ? systemic : ordinary;
  }

  /** @param {string} quantity @param {Range} base @returns {Figures} */
  value(quantity, base) {
    if (quantity.includes(" or ")) return quantity.split(" or ").map((one) => this.value(one, base)).reduce(widest);
    if (!quantity.startsWith("base+")) return quantity === "updates" ? this.amounts.updates : this.amounts.cumulative;
    const { low, high } = this.value(quantity.slice(5), base);
    const most = high === null || base.most === null ? null : whole(base.most, true) + high;
    return { low: whole(base.least, false) + low, measured: null, high: most };
  }

  /** @param {J} rule @param {Range} base */
  threshold(rule, base) {
    const limit = rule.greater_than ?? rule.at_least;
    if (typeof limit !== "object") return { low: parseFraction(limit), high: parseFraction(limit) };
    const part = parseFraction(limit.of_base);
    return { low: times(base.least, part), high: base.most === null ? null : times(base.most, part) };
  }

  /** What follows if the rule applies. @param {J} rule @param {Range} base */
  applied(rule, base) {
    const atLeast = rule.greater_than === undefined;
    const quantity = this.quantity(rule), value = this.value(quantity, base), { low, high } = this.threshold(rule, base);
    const crosses = (/** @type {bigint} */ amount, /** @type {Fraction} */ limit) =>
      compare(fraction(amount), limit) > (atLeast ? -1 : 0);
    const state = high !== null && crosses(value.low, high) ? "above"
      : value.high !== null && !crosses(value.high, low) ? "below" : "indeterminate";
    return { quantity, value, low, high, atLeast, state };
  }

  /** @param {J} rule @returns {Outcome} */
  direct(rule) {
    const when = rule.when ?? {};
    const conditions = this.declared.conditions(when);
    const applies = every([...conditions.values()]);
    const base = applies === false ? this.declared.range : this.declared.within(when);
    const found = this.applied(rule, base);
    const open = [...conditions].filter(([, holds]) => holds === null).map(([name]) => name);
    /** @type {string | null} */
    let state = applies === false ? null : found.state;
    if (applies === null && state === "above" && !this.alternative(rule, open)) state = "indeterminate";
    const onlyIf = state === "indeterminate" ? this.onlyIf(rule, found, base) : null;
    const lowered = applies === null && found.state === "above" && state === "indeterminate";
    const notes = [
      ...ofConditions(when, conditions, applies, this.declared, this.conflict),
      ...ofState({ ...found, state }, this.isOpen, lowered),
    ];
    return { ...found, id: rule.id, applies, state, onlyIf, notes };
  }

  /** Whether the other of two rules, of which one applies, is above too. @param {J} rule @param {string[]} open */
  alternative(rule, open) {
    if (!rule.or_else || this.declared.base === null || open.length !== 1 || open[0] !== "base.systemic") return false;
    const other = this.rule(rule.or_else);
    return this.applied(other, this.declared.within(other.when ?? {})).state === "above";
  }

  /** The base models for which an open rule would be above.
   * @param {J} rule @param {ReturnType<Judge["applied"]>} found @param {Range} base @returns {J | null} */
  onlyIf(rule, found, base) {
    const { atLeast, quantity, low } = found;
    const quantities = quantity.split(" or ");
    const own = this.value(quantities.map((one) => one.replace("base+", "")).join(" or "), base).high;
    if (own === null || (base.most !== null && compare(base.least, base.most) === 0)) return null;
    const more = atLeast ? 0n : 1n;
    let least = base.isAbove ? whole(base.least, false) + 1n : whole(base.least, true);
    let most = base.most === null ? null : whole(base.most, false);
    const limit = rule.greater_than ?? rule.at_least;
    if (typeof limit === "object") {
      const { over, under } = parseFraction(limit.of_base);
      const edge = atLeast ? (own * under) / over : ceilDiv(own * under, over) - 1n;
      if (most === null || edge < most) most = edge;
    } else if (quantities.every((one) => one.startsWith("base+"))) {
      const short = (atLeast ? whole(low, true) : whole(low, false)) - own + more;
      if (short > least) least = short;
    } else return null;
    if (most === null || least > most) return null;
    return { leastFlop: String(least), mostFlop: String(most), systemic: (rule.when ?? {})["base.systemic"] ?? null };
  }

  /** A derived rule takes over the result of the rules that it names. @param {J} rule @returns {Outcome} */
  derived(rule) {
    const when = rule.when ?? {}, conditions = this.declared.conditions(when);
    const own = every([...conditions.values()]);
    const notes = ofConditions(when, conditions, own, this.declared, this.conflict);
    /** @type {Outcome[]} */
    const all = rule.derived.map((/** @type {string} */ id) => this.outcome(id));
    const taken = all.filter((one) => one.applies !== false);
    const none = { ...all[0], applies: false, state: null, onlyIf: null };
    if (own === false) return { ...none, notes };
    if (!taken.length) return { ...none, notes: [{ code: "no_rule_applies" }, ...all[0].notes] };
    const open = taken.filter((one) => one.state !== "below");
    const rest = open.length ? open : taken;
    const applies = own && taken.length === 1 && taken[0].applies ? true : null;
    const state = applies || !open.length ? rest[0].state : "indeterminate";
    const of = own ? [{ code: "as_rules", rules: rest.map((one) => one.id) }, ...rest[0].notes] : once([...notes, ...rest[0].notes]);
    return { ...rest[0], ...around(rest), applies, state, onlyIf: rest.length === 1 ? rest[0].onlyIf : null, notes: of };
  }
}

/** The figures around those of the rules that a derived one may be of. @param {Outcome[]} rest */
function around(rest) {
  const low = rest.map((one) => one.low).reduce((a, b) => (compare(b, a) < 0 ? b : a));
  const high = rest.map((one) => one.high).reduce((a, b) => (a === null || b === null ? null : compare(b, a) > 0 ? b : a));
  const quantities = rest.flatMap((one) => one.quantity.split(" or "));
  return { quantity: [...new Set(quantities)].join(" or "), value: rest.map((one) => one.value).reduce(widest), low, high };
}

/** White space within a text is one blank. @param {string | undefined} words */
function blanks(words) {
  return words === undefined || words === null ? null : words.split(/\s+/).filter(Boolean).join(" ");
}

/** @param {Outcome} found */
function sharePpm({ applies, value, low, high }) {
  /** @type {{low: string | null, measured: string | null, high: string | null}} */
  const none = { low: null, measured: null, high: null };
  if (applies === false) return none;
  const over = (/** @type {bigint} */ amount, /** @type {Fraction} */ limit) => fraction(amount * MILLION * limit.under, limit.over);
  const shares = { ...none };
  if (value.high !== null && low.over) shares.high = String(whole(over(value.high, low), true));
  if (high === null || !low.over) return shares;
  shares.low = String(whole(over(value.low, high), false));
  if (value.measured === null || compare(low, high)) return shares;
  const exact = over(value.measured, low);
  const down = exact.over / exact.under, twice = 2n * (exact.over % exact.under);
  const up = twice > exact.under || (twice === exact.under && down % 2n === 1n);
  return { ...shares, measured: String(up ? down + 1n : down) };
}

/** @param {J | null} stated @returns {Amounts | null} */
function amountsOf(stated) {
  return stated === null ? null : { updates: readFigures(stated), cumulative: readFigures(stated.cumulative) };
}

/** @param {Amounts} a @param {Amounts} b @returns {Amounts} */
function together(a, b) {
  const sum = (/** @type {Figures} */ x, /** @type {Figures} */ y) => {
    const none = (x.measured === null && x.high !== 0n) || (y.measured === null && y.high !== 0n);
    const both = plus(x, y);
    return none ? { ...both, measured: null } : both;
  };
  return { updates: sum(a.updates, b.updates), cumulative: sum(a.cumulative, b.cumulative) };
}

/** @param {Amounts} amounts @param {J} counted What of the lower bounds only software counted. @returns {Amounts} */
function less({ updates, cumulative }, counted) {
  return {
    updates: { ...updates, low: updates.low - BigInt(counted.low) },
    cumulative: { ...cumulative, low: cumulative.low - BigInt(counted.cumulativeLow) },
  };
}

/** @param {Amounts} amounts @returns {Amounts} */
function withoutEnd({ updates, cumulative }) {
  return { updates: { ...updates, high: null }, cumulative: { ...cumulative, high: null } };
}

/** @param {{policies: Policy[], guidelines: J, integers: J, declared: J, open: boolean, conflict?: string[]}} from
 * @returns {J[]} */
export function findings({ policies, guidelines, integers, declared, open, conflict = [] }) {
  return policies.flatMap((policy) => {
    const settle = (/** @type {Amounts | null} */ amounts) => {
      if (amounts === null) return null;
      const all = policy.countsIntegers ? together(amounts, /** @type {Amounts} */ (amountsOf(integers))) : amounts;
      return open ? withoutEnd(all) : all;
    };
    const stated = /** @type {Amounts} */ (settle(amountsOf(guidelines)));
    const claimed = settle(amountsOf(guidelines.asClaimed));
    const rests = new Judge(policy, declared, less(stated, guidelines.operatorCount), conflict, open);
    const judge = new Judge(policy, declared, stated, conflict, open);
    const other = claimed === null ? null : new Judge(policy, declared, claimed, conflict, open);
    return policy.rules.map((rule) => {
      const found = judge.outcome(rule.id);
      const is = found.state, held = other === null ? is : other.outcome(rule.id).state;
      const restsOn = rests.outcome(rule.id).state === is ? null : OPERATOR_COUNT;
      return {
        reasons: restsOn === null ? found.notes : [...found.notes, { code: "by_operators" }],
        policy: policy.id, rule: rule.id, quantities: found.quantity.split(" or "), countsIntegerOperations: policy.countsIntegers,
        applies: found.applies,
        threshold: found.applies === false ? null : {
          low: text(found.low), high: found.high === null ? null : text(found.high),
          comparison: found.atLeast ? "at_least" : "greater_than",
        },
        state: is, restsOn,
        stateIfClaimsHold: held === is ? null : held, aboveOnlyIfBase: found.onlyIf,
        value: written(found.value), sharePpm: sharePpm(found), title: blanks(rule.title ?? rule.id), citation: blanks(rule.citation),
        consequence: blanks(rule.consequence), assumes: blanks(rule.assumes),
        otherConditions: (rule.other_conditions ?? []).map(blanks),
        status: rule.status ?? "text", since: rule.since ?? null,
      };
    });
  });
}
