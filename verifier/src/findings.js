// Findings: each rule of each policy, on figures that are intervals and declarations that may be missing.
import { MILLION, ceilDiv, plus, readFigures, written } from "./figures.js";
import { compare, fraction, parseFraction, text, times } from "./policy.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./figures.js").Figures} Figures */
/** @typedef {import("./policy.js").Fraction} Fraction */
/** @typedef {import("./policy.js").Policy} Policy */
/** What may be the compute of the base model; `most` null: without end.
 * @typedef {{least: Fraction, most: Fraction | null, isAbove?: boolean}} Range `isAbove`: `least` itself is not in it */
/** `certain`: what `value.low` must be above for the state `above`, null: it cannot be.
 * @typedef {{applies: boolean | null, quantity: string, low: Fraction, high: Fraction | null, value: Figures,
 *   onlyIf: J | null, atLeast: boolean, certain: Fraction | null}} Outcome */
/** @typedef {{updates: Figures, cumulative: Figures}} Amounts */

const _ZERO = fraction(0n);

/** What is declared of a base model. */
class Declared {
  /** @param {J} declared @param {bigint} marginPpm @param {boolean} conflict */
  constructor(declared, marginPpm, conflict) {
    const { method, base } = declared;
    this.modification = conflict || method === null ? null : method !== "pretraining";
    this.base = conflict ? null : base;
    // A model that is trained from the start has no base model that could carry systemic risk.
    this.systemic = this.base?.systemic ?? (this.modification === false && this.base === null ? false : null);
    /** @type {Range} */
    this.range = { least: _ZERO, most: null };
    const flop = this.base?.flop ?? null;
    if (flop === null) return;
    const exact = fraction(BigInt(flop));
    const off = (/** @type {bigint} */ ppm) => times(exact, fraction(ppm, MILLION));
    this.range = this.base?.kind === "estimated"
      ? { least: off(MILLION - marginPpm), most: off(MILLION + marginPpm) } : { least: exact, most: exact };
  }

  /** @param {J} when @returns {Map<string, boolean | null>} By condition: whether it holds; null: that is open. */
  conditions(when) {
    const found = new Map();
    const is = (/** @type {any} */ known, /** @type {any} */ wanted) => (known === null ? null : known === wanted);
    if ("modification" in when) found.set("modification", is(this.modification, when.modification));
    if ("method" in when) found.set("method", this.method === null ? null : when.method.includes(this.method));
    if ("base.kind" in when) found.set("base.kind", this.base === null ? null : when["base.kind"].includes(this.base.kind));
    if ("base.systemic" in when) found.set("base.systemic", is(this.systemic, when["base.systemic"]));
    if ("base.flop" in when) found.set("base.flop", this.flop(when["base.flop"]));
    return found;
  }

  get method() {
    return this.modification === null ? null : this.given;
  }

  /** @type {string | null} */
  given = null;

  /** @param {J} wanted */
  flop(wanted) {
    const limit = parseFraction(wanted.above ?? wanted.not_above);
    const above = compare(this.range.least, limit) > 0;
    const not = this.range.most !== null && compare(this.range.most, limit) <= 0;
    if (!above && !not) return null;
    return "above" in wanted ? above : not;
  }

  /** The base models that a rule is for, among those that are possible. @param {J} when @returns {Range} */
  within(when) {
    const wanted = when["base.flop"];
    if (!wanted || this.base?.kind === "unknown") return this.range;
    const limit = parseFraction(wanted.above ?? wanted.not_above);
    const { least, most } = this.range;
    if ("above" in wanted) {
      if (most !== null && compare(most, limit) <= 0) return this.range;
      return compare(least, limit) > 0 ? this.range : { least: limit, most, isAbove: true };
    }
    if (compare(least, limit) > 0) return this.range;
    return { least, most: most === null || compare(most, limit) > 0 ? limit : most };
  }
}

/** @param {Figures} a @param {Figures} b @returns {Figures} */
function widest(a, b) {
  return {
    low: a.low < b.low ? a.low : b.low, measured: a.measured === b.measured ? a.measured : null,
    high: a.high === null || b.high === null ? null : a.high > b.high ? a.high : b.high,
  };
}

/** @param {(boolean | null)[]} all */
function every(all) {
  return all.includes(false) ? false : all.includes(null) ? null : true;
}

/** @param {Fraction} a @param {boolean} up */
function whole(a, up) {
  return up ? ceilDiv(a.over, a.under) : a.over / a.under;
}

class Judge {
  /** @param {Policy} policy @param {J} declared @param {Amounts} amounts @param {boolean} conflict */
  constructor(policy, declared, amounts, conflict) {
    this.policy = policy;
    this.amounts = amounts;
    this.declared = new Declared(declared, policy.marginPpm, conflict);
    this.declared.given = declared.method;
    /** @type {Map<string, Outcome>} */
    this.outcomes = new Map();
  }

  /** @param {string} id @returns {Outcome} */
  outcome(id) {
    const held = this.outcomes.get(id);
    if (held) return held;
    const rule = this.policy.rules.find((one) => one.id === id) ?? {};
    const found = rule.derived ? this.derived(rule) : this.direct(rule);
    this.outcomes.set(id, found);
    return found;
  }

  /** @param {any} quantity @returns {string} */
  quantity(quantity) {
    if (quantity === undefined) return "cumulative";
    if (typeof quantity === "string") return quantity;
    const { ordinary_base: ordinary, systemic_base: systemic } = quantity;
    if (this.declared.systemic === null) return ordinary === systemic ? ordinary : `${ordinary} or ${systemic}`;
    return this.declared.systemic ? systemic : ordinary;
  }

  /** @param {string} quantity @param {Range} base @returns {Figures} */
  value(quantity, base) {
    if (quantity.includes(" or ")) return quantity.split(" or ").map((one) => this.value(one, base)).reduce(widest);
    if (!quantity.startsWith("base+")) return quantity === "updates" ? this.amounts.updates : this.amounts.cumulative;
    const { low, high } = this.value(quantity.slice(5), base);
    const most = high === null || base.most === null ? null : whole(base.most, true) + high;
    return { low: whole(base.least, false) + low, measured: null, high: most };
  }

  /** @param {J} rule @returns {Outcome} */
  direct(rule) {
    const when = rule.when ?? {};
    const conditions = this.declared.conditions(when);
    const applies = every([...conditions.values()]);
    const base = this.declared.within(when);
    const limit = rule.greater_than ?? rule.at_least;
    const atLeast = rule.greater_than === undefined;
    const quantity = this.quantity(rule.quantity);
    const value = this.value(quantity, base);
    /** @type {Fraction} */ let low;
    /** @type {Fraction | null} */ let high;
    if (typeof limit === "object") {
      const part = parseFraction(limit.of_base);
      low = times(base.least, part);
      high = base.most === null ? null : times(base.most, part);
    } else low = high = parseFraction(limit);
    const open = [...conditions].filter(([, holds]) => holds === null).map(([name]) => name);
    let certain = applies === true ? high : null;
    if (rule.or_else && open.length === 1 && open[0] === "base.systemic") {
      const other = this.policy.rules.find((one) => one.id === rule.or_else);
      const its = parseFraction(other?.greater_than ?? other?.at_least);
      certain = compare(its, /** @type {Fraction} */ (high)) > 0 ? its : high;
    }
    const found = { applies, quantity, low, high, value, onlyIf: null, atLeast, certain };
    return { ...found, onlyIf: this.onlyIf(rule, found, base) };
  }

  /** The base models for which an open rule would be above. @param {J} rule @param {Outcome} found @param {Range} base
   * @returns {J | null} */
  onlyIf(rule, found, base) {
    const { value, atLeast } = found;
    const isPoint = base.most !== null && compare(base.least, base.most) === 0;
    if (isPoint || this.declared.base?.kind === "unknown" || value.high === null || state(found) !== "indeterminate") return null;
    const more = atLeast ? 0n : 1n;
    let least = base.isAbove ? whole(base.least, false) + 1n : whole(base.least, true);
    let most = base.most === null ? null : whole(base.most, false);
    if (found.quantity.startsWith("base+")) {
      const own = this.value(found.quantity.slice(5), base).high ?? 0n;
      const short = whole(found.low, true) - own + more;
      if (short > least) least = short;
    } else if (typeof (rule.greater_than ?? rule.at_least) === "object") {
      const part = parseFraction((rule.greater_than ?? rule.at_least).of_base);
      const edge = (value.high * part.under - more) / part.over;
      if (most === null || edge < most) most = edge;
    } else return null;
    if (most === null) return null;
    return { leastFlop: String(least), mostFlop: String(most), systemic: (rule.when ?? {})["base.systemic"] ?? null };
  }

  /** A derived rule takes over the result of the rule that applies; where that is open, of the first that is not below.
   * @param {J} rule @returns {Outcome} */
  derived(rule) {
    const own = every([...this.declared.conditions(rule.when ?? {}).values()]);
    /** @type {Outcome[]} */
    const all = rule.derived.map((/** @type {string} */ id) => this.outcome(id));
    const certain = all.find((one) => one.applies === true);
    if (own !== false && certain) return { ...certain, applies: own, certain: own ? certain.certain : null };
    const open = all.filter((one) => one.applies === null);
    if (own === false || !open.length) return { ...all[0], applies: false };
    const undecided = open.filter((one) => state(one) !== "below");
    const found = undecided[0] ?? open[0];
    return { ...found, applies: null, certain: null, onlyIf: undecided.length === 1 ? found.onlyIf : null };
  }
}

/** @param {Outcome} found @returns {string | null} */
function state({ applies, value, low, certain, atLeast }) {
  if (applies === false) return null;
  const isAbove = (/** @type {bigint} */ amount, /** @type {Fraction} */ limit) =>
    compare(fraction(amount), limit) > (atLeast ? -1 : 0);
  if (value.high !== null && !isAbove(value.high, low)) return "below";
  if (certain !== null && isAbove(value.low, certain)) return "above";
  return "indeterminate";
}

/** @param {Outcome} found */
function sharePpm({ applies, value, low, high }) {
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

/** @param {Amounts} amounts @returns {Amounts} */
function withoutEnd({ updates, cumulative }) {
  return { updates: { ...updates, high: null }, cumulative: { ...cumulative, high: null } };
}

/** @param {{policies: Policy[], guidelines: J, integers: J, declared: J, open: boolean, conflict?: boolean}} from
 * @returns {J[]} */
export function findings({ policies, guidelines, integers, declared, open, conflict = false }) {
  return policies.flatMap((policy) => {
    const settle = (/** @type {Amounts | null} */ amounts) => {
      if (amounts === null) return null;
      const all = policy.countsIntegers ? together(amounts, /** @type {Amounts} */ (amountsOf(integers))) : amounts;
      return open ? withoutEnd(all) : all;
    };
    const stated = /** @type {Amounts} */ (settle(amountsOf(guidelines)));
    const claimed = settle(amountsOf(guidelines.asClaimed));
    const judge = new Judge(policy, declared, stated, conflict);
    const other = claimed === null ? null : new Judge(policy, declared, claimed, conflict);
    return policy.rules.map((rule) => {
      const found = judge.outcome(rule.id);
      const is = state(found), held = other === null ? is : state(other.outcome(rule.id));
      return {
        policy: policy.id, rule: rule.id, quantity: found.quantity, countsIntegerOperations: policy.countsIntegers,
        applies: found.applies,
        threshold: found.applies === false ? null : {
          low: text(found.low), high: found.high === null ? null : text(found.high),
          comparison: found.atLeast ? "at least" : "greater than",
        },
        state: is, stateIfClaimsHold: held === is ? null : held, aboveOnlyIfBase: found.applies === false ? null : found.onlyIf,
        value: written(found.value), sharePpm: sharePpm(found), title: rule.title ?? rule.id, citation: rule.citation,
        consequence: rule.consequence ?? null, assumes: rule.assumes ?? null, otherConditions: rule.other_conditions ?? [],
        status: rule.status ?? "text", since: rule.since ?? null,
      };
    });
  });
}
