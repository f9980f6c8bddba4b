// What passed a model in one phase, by the counters of its processes: rows, and pairs of positions in each layer.
import { NoBasis, isqrt } from "./bounds.js";
import { ceilDiv } from "./figures.js";

/** @typedef {import("./bounds.js").Known} Known */
/** @typedef {Map<string, bigint>} Counters */
/** @typedef {"square" | "skips" | "either"} Kernel */
/** `least`, `most`: squares of the lengths. `pairs`: of a layer; `executed`: those that were computed at least.
 * @typedef {{rows: Known, head: Known, least: bigint, most: bigint, pairs: Known, executed: bigint, again: bigint,
 *   unlabelled: bigint, headCounted: boolean}} Passed */

/** @param {any} attention @returns {Kernel} */
export function kernelOf(attention) {
  if (attention === "eager") return "square";
  const text = attention ?? "";
  return text.includes("flash") || text.includes("flex") ? "skips" : "either";
}

/** @param {Counters} work @param {bigint} n @param {bigint} p @param {bigint} q @param {bigint | null} most @param {boolean} cached */
function squares(work, n, p, q, most, cached) {
  if (p > n) throw new NoBasis("padding_contradicts", { padding: p, tokens: n });
  if (q > n && n > 0n) throw new NoBasis("sequences_contradict", { sequences: q, tokens: n, counter: "tokens" });
  const least = q ? ceilDiv(n * n, q) : n;
  const counted = work.get("square_pairs");
  if (counted === undefined) {
    const longest = n * (most !== null && most < n ? most : n);
    return [least, least > longest ? least : longest];
  }
  if (counted < least || (!cached && counted > n * n)) {
    const said = { pairs: counted, counter: "square_pairs", tokens: n };
    throw q ? new NoBasis("pairs_of_sequences_contradict", { ...said, sequences: q }) : new NoBasis("pairs_contradict", said);
  }
  return [counted, counted];
}

/** @param {bigint} t */
const causal = (t) => (t * (t + 1n)) / 2n;

/** Causal pairs of `tokens`, in sequences as alike as can be. @param {bigint} tokens @param {bigint} sequences */
function alike(tokens, sequences) {
  const count = sequences && sequences < tokens ? sequences : tokens;
  if (!count) return 0n;
  const each = tokens / count, more = tokens % count;
  return (count - more) * causal(each) + more * causal(each + 1n);
}

/** @param {Counters} work Of one phase. @param {import("./basics.js").J} facts @param {bigint | null} most Positions of the model.
 * @param {boolean} [cached] Forward passes alone: earlier passes may be attended to. @returns {Passed} */
export function passedOf(work, facts, most, cached = false) {
  const of = (/** @type {string} */ name) => work.get(name) ?? 0n;
  const n = of("tokens"), p = of("padding_tokens"), q = cached ? 0n : of("sequences");
  const [least, largest] = squares(work, n, p, q, most, cached);
  const packing = facts.packing === true, kernel = kernelOf(facts.attention);
  const half = (least + n) / 2n, real = alike(n - p, q), unpadded = half - p * isqrt(largest);
  const low = packing ? n - p : real > unpadded ? real : unpadded;
  const masks = kernel === "square" || (kernel === "either" && (p > 0n || packing));
  return {
    rows: { low: n - p, computed: n, high: n }, ...headOf(work, n, p), least, most: largest,
    pairs: { low, computed: masks ? least : half, high: largest }, executed: kernel === "square" ? least : low,
  };
}

/** @param {Counters} work @param {bigint} n @param {bigint} p */
function headOf(work, n, p) {
  const of = (/** @type {string} */ name) => work.get(name) ?? 0n;
  const headless = of("headless_tokens"), unlabelled = of("unlabelled_tokens"), again = of("fused_head_tokens");
  const certain = n - headless - unlabelled;
  const counted = headless + unlabelled + again;
  const head = { low: certain > p ? certain - p : 0n, computed: certain, high: n - headless };
  return { head, again, unlabelled, headCounted: counted > 0n };
}

/** Of models with a head. @param {Counters} work */
export function checkHead(work) {
  const of = (/** @type {string} */ name) => work.get(name) ?? 0n;
  const headless = of("headless_tokens"), unlabelled = of("unlabelled_tokens"), fused = of("fused_head_tokens");
  if (headless + unlabelled + fused > of("tokens")) {
    throw new NoBasis("head_tokens_contradict", { headless, unlabelled, fused, tokens: of("tokens") });
  }
}
