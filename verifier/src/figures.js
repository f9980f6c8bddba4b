// Low, measured and high, and how they are added and written.

/** @typedef {{low: bigint, measured: bigint | null, high: bigint | null}} Figures */

export const MILLION = 1000000n;

/** @returns {Figures} */
export function zero() {
  return { low: 0n, measured: null, high: 0n };
}

/** @param {Figures} a @param {Figures} b @returns {Figures} */
export function plus(a, b) {
  const measured = a.measured === null ? b.measured : b.measured === null ? a.measured : a.measured + b.measured;
  return { low: a.low + b.low, measured, high: a.high === null || b.high === null ? null : a.high + b.high };
}

/** @param {Iterable<Figures>} all @returns {Figures} */
export function total(all) {
  let sum = zero();
  for (const one of all) sum = plus(sum, one);
  return sum;
}

/** @param {bigint} a Not below zero. @param {bigint} b */
export function ceilDiv(a, b) {
  return (a + b - 1n) / b;
}

/** @param {Figures} figures */
export function written(figures) {
  const text = (/** @type {bigint | null} */ one) => (one === null ? null : String(one));
  return { low: String(figures.low), measured: text(figures.measured), high: text(figures.high) };
}

/** @param {import("./basics.js").J} stated @returns {Figures} */
export function readFigures(stated) {
  const number = (/** @type {string | null} */ one) => (one === null ? null : BigInt(one));
  return { low: BigInt(stated.low), measured: number(stated.measured), high: number(stated.high) };
}

/** @param {bigint} ns */
export function seconds(ns) {
  const sign = ns < 0n ? "-" : "", size = ns < 0n ? -ns : ns;
  return `${sign}${size / 1000000000n}.${String(size % 1000000000n).padStart(9, "0")}`;
}

/** @param {string} text @returns {bigint} */
export function nanoseconds(text) {
  const [whole, rest] = text.replace("-", "").split(".");
  const size = BigInt(whole) * 1000000000n + BigInt(rest);
  return text.startsWith("-") ? -size : size;
}

/** @param {bigint | null} mj */
export function joules(mj) {
  return mj === null ? null : `${mj / 1000n}.${String(mj % 1000n).padStart(3, "0")}`;
}

/** C's `%g` of a fraction up to 1: six significant digits, half to even. @param {bigint} over @param {bigint} under */
export function percentG(over, under) {
  if (!over) return "0";
  let exponent = 0;
  for (let one = over; one < under; one *= 10n) exponent--;
  const scale = 10n ** BigInt(5 - exponent);
  const twice = 2n * ((over * scale) % under);
  let digits = (over * scale) / under;
  if (twice > under || (twice === under && digits % 2n)) digits += 1n;
  if (digits === 1000000n) {
    digits = 100000n;
    exponent++;
  }
  const trim = (/** @type {string} */ text) => text.replace(/\.?0+$/, "");
  const text = String(digits);
  if (exponent < -4) return `${trim(`${text[0]}.${text.slice(1)}`)}e-${String(-exponent).padStart(2, "0")}`;
  return exponent === 0 ? trim(`${text[0]}.${text.slice(1)}`) : trim(`0.${"0".repeat(-exponent - 1)}${text}`);
}
