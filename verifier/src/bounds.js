// FLOP of a model: at least, as computed, at most. Null: something that belongs to it was not counted.

/** @typedef {{low: bigint, computed: bigint | null, high: bigint | null}} Bounds */
/** @typedef {{low: bigint, computed: bigint, high: bigint}} Known */
/** @typedef {import("./basics.js").J} J */

export const LEVELS = /** @type {const} */ (["low", "computed", "high"]);

/** @param {bigint | null} a @param {bigint | null} b */
const sum = (a, b) => (a === null || b === null ? null : a + b);

/** @returns {Known} */
export function nothing() {
  return { low: 0n, computed: 0n, high: 0n };
}

/** @param {...Bounds} all @returns {Bounds} */
export function added(...all) {
  return all.reduce((a, b) => ({ low: a.low + b.low, computed: sum(a.computed, b.computed), high: sum(a.high, b.high) }), /** @type {Bounds} */ (nothing()));
}

/** @param {...Known} all @returns {Known} */
export function addedKnown(...all) {
  return /** @type {Known} */ (added(...all));
}

/** @param {Bounds} bounds @returns {J} */
export function writtenBounds({ low, computed, high }) {
  const text = (/** @type {bigint | null} */ one) => (one === null ? null : String(one));
  return { low: String(low), computed: text(computed), high: text(high) };
}

/** The floor of the square root. @param {bigint} value */
export function isqrt(value) {
  if (value < 2n) return value;
  let root = 1n << BigInt((value.toString(2).length + 1) >> 1);
  for (;;) {
    const next = (root + value / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}

/** Why there is no basis. */
export class NoBasis extends Error {
  /** @param {string} code @param {Record<string, bigint | string>} [parameters] */
  constructor(code, parameters = {}) {
    super(code);
    const texts = Object.entries(parameters).map(([name, value]) => [name, String(value)]);
    this.note = /** @type {J} */ ({ code, ...Object.fromEntries(texts) });
  }
}
