// A policy file (flopsd-policy/1): rules and their thresholds, as exact fractions.
import { Refusal, isObject, isText, require } from "./basics.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {{over: bigint, under: bigint}} Fraction */
/** @typedef {{id: string, sha256: string, own: boolean, title: string, countsIntegers: boolean, marginPpm: bigint,
 *   presumed: Fraction | null, citation: string | null, rules: J[]}} Policy */

/** @param {bigint} over @param {bigint} [under] @returns {Fraction} */
export function fraction(over, under = 1n) {
  let a = over, b = under;
  while (b) [a, b] = [b, a % b];
  return a ? { over: over / a, under: under / a } : { over, under };
}

/** @param {Fraction} a @param {Fraction} b Below zero, zero or above, as a is less, the same or more. */
export function compare(a, b) {
  const [x, y] = [a.over * b.under, b.over * a.under];
  return x < y ? -1 : x > y ? 1 : 0;
}

/** @param {Fraction} a @param {Fraction} b */
export function times(a, b) {
  return fraction(a.over * b.over, a.under * b.under);
}

/** @param {Fraction} a */
export function text(a) {
  return a.under === 1n ? String(a.over) : `${a.over}/${a.under}`;
}

/** "1e25/3", "1.5e25", "1/3", "1000". @param {any} found @returns {Fraction} */
export function parseFraction(found) {
  const terms = String(found).split("/");
  const [over, under] = terms.length > 2 ? [null, null] : [count(terms[0]), count(terms[1] ?? "1")];
  if (!over || !under) throw new Refusal("policy_unknown", `'${found}' is neither a count nor a fraction of one`);
  return fraction(over, under);
}

/** "1e25", "1.5e25", null for what is no whole number. @param {string} found @returns {bigint | null} */
function count(found) {
  const match = /^([0-9]{1,60})(?:\.([0-9]{1,60}))?(?:[eE]\+?([0-9]{1,2}))?$/.exec(found);
  if (!match) return null;
  const decimals = match[2] ?? "", digits = BigInt(match[1] + decimals), shift = Number(match[3] ?? "0") - decimals.length;
  if (shift >= 0) return digits * 10n ** BigInt(shift);
  const part = 10n ** BigInt(-shift);
  return digits % part ? null : digits / part;
}

/** @param {J} found @param {string} sha256 @param {boolean} own @returns {Policy} */
export function readPolicy(found, sha256, own) {
  const whole = isObject(found) && isText(found.id) && Array.isArray(found.rules);
  require(whole, "policy_unknown", "a policy file without id or rules");
  const presumed = found.base_systemic_presumed?.above;
  return {
    id: found.id, sha256, own, title: found.title ?? found.id, countsIntegers: found.integer_operations === "counted",
    marginPpm: found.estimation_margin?.ppm ?? 300000n,
    presumed: presumed === undefined ? null : parseFraction(presumed),
    citation: found.base_systemic_presumed?.citation ?? null, rules: found.rules,
  };
}
