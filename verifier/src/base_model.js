// What is declared of method and base model, and which conditions of a rule hold for it.
import { MILLION } from "./figures.js";
import { compare, fraction, parseFraction, times } from "./policy.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./policy.js").Fraction} Fraction */
/** What may be the compute of the base model; `most` null: without end.
 * @typedef {{least: Fraction, most: Fraction | null, isAbove?: boolean}} Range `isAbove`: `least` itself is not in it */

const _ZERO = fraction(0n);

/** @param {(boolean | null)[]} all */
export function every(all) {
  return all.includes(false) ? false : all.includes(null) ? null : true;
}

/** Between which counts a base model's compute lies. @param {J | null} base @param {bigint} marginPpm @returns {Range} */
export function rangeOf(base, marginPpm) {
  const flop = base?.flop ?? null;
  if (base === null || flop === null) return { least: _ZERO, most: null };
  const exact = fraction(BigInt(flop));
  const off = (/** @type {bigint} */ ppm) => times(exact, fraction(ppm, MILLION));
  return base.kind === "estimated"
    ? { least: off(MILLION - marginPpm), most: off(MILLION + marginPpm) } : { least: exact, most: exact };
}

/** What is declared of method and base model. */
export class Declared {
  /** @param {J} declared @param {bigint} marginPpm @param {boolean} conflict Whether a merged ledger has a contradiction. */
  constructor(declared, marginPpm, conflict) {
    this.method = declared.method;
    /** @type {(string | null)[]} Of the nodes of a merged ledger, whose `method` may be of none of them. */
    this.methods = declared.methods?.length ? declared.methods : [declared.method];
    this.base = declared.base;
    this.contradicted = conflict || this.base !== null;
    this.range = rangeOf(this.base, marginPpm);
  }

  /** By condition: whether it holds; null: that is open. @param {J} when @returns {Map<string, boolean | null>} */
  conditions(when) {
    /** @type {Map<string, boolean | null>} */
    const found = new Map();
    const { base } = this;
    if ("modification" in when) found.set("modification", this.modification(when.modification));
    if ("method" in when) found.set("method", this.oneOf(when.method));
    if ("base.kind" in when) found.set("base.kind", base && when["base.kind"].includes(base.kind));
    const systemic = base?.systemic ?? null;
    if ("base.systemic" in when) found.set("base.systemic", systemic === null ? null : systemic === when["base.systemic"]);
    if ("base.flop" in when) found.set("base.flop", base && this.flop(when["base.flop"]));
    return found;
  }

  /** @param {string[]} wanted */
  oneOf(wanted) {
    const within = new Set(this.methods.map((one) => one !== null && wanted.includes(one)));
    return this.methods.includes(null) || within.size > 1 ? null : within.has(true);
  }

  /** @param {boolean} wanted */
  modification(wanted) {
    if (this.method === null) return null;
    if (this.method !== "pretraining") return wanted;
    return this.contradicted ? null : !wanted;
  }

  /** @param {J} wanted */
  flop(wanted) {
    const { least, most } = this.range;
    const limit = parseFraction(wanted.above ?? wanted.not_above);
    const isAbove = "above" in wanted;
    if (compare(least, limit) > 0) return isAbove;
    return most === null || compare(most, limit) > 0 ? null : !isAbove;
  }

  /** The base models that a rule is for, among those that are possible. @param {J} when @returns {Range} */
  within(when) {
    const wanted = when["base.flop"] ?? {};
    let { least, most } = this.range;
    const above = wanted.above === undefined ? null : parseFraction(wanted.above);
    const notAbove = wanted.not_above === undefined ? null : parseFraction(wanted.not_above);
    const isAbove = above !== null && compare(above, least) >= 0;
    if (isAbove) least = above;
    if (notAbove !== null && (most === null || compare(notAbove, most) < 0)) most = notAbove;
    return { least, most, isAbove };
  }

  /** Whether the base model of a rule carries systemic risk; null: not known. @param {J} when */
  systemic(when) {
    const known = when["base.systemic"] ?? this.base?.systemic ?? null;
    return known === null && this.method === "pretraining" && !this.contradicted ? false : known;
  }
}
