// FLOP of a model of which only the number of parameters is known.
import { NoBasis, addedKnown, isqrt } from "./bounds.js";
import { ceilDiv } from "./figures.js";
import { passedOf } from "./passed.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./bounds.js").Known} Known */
/** @typedef {import("./passed.js").Counters} Counters */
/** @typedef {import("./passed.js").Passed} Passed */
/** @typedef {{required: Known, executed: Known, assumptions: J[]}} Trained */
/** What a way to compute a model offers. @typedef {{total: bigint, train: (work: Counters) => Trained,
 *   forward: (work: Counters) => Known}} Way */

/** @param {J} facts @returns {Way} */
export function bySize(facts) {
  const total = facts.parameters_total;
  if (total < 1n) throw new NoBasis("total_is_zero");
  const trainable = /** @type {bigint | undefined} */ (facts.parameters_trainable);
  const adapted = facts.method === "lora" || facts.method === "qlora";

  const attention = (/** @type {Passed} */ { most }) => {
    const root = isqrt(total / 2400n), width = root > 1n ? root : 1n;
    return 4n * most * ceilDiv(total, 12n * width);
  };
  const through = (/** @type {Passed} */ passed) => {
    const { low, high } = passed.rows, adapters = adapted ? trainable ?? 0n : 0n;
    return {
      low: (2n * low * total) / 64n, computed: 2n * high * total,
      high: 2n * high * (total + adapters) + attention(passed),
    };
  };
  const weights = (/** @type {Known} */ { low, high }) => {
    const of = (/** @type {bigint} */ computed, /** @type {bigint} */ most) =>
      ({ low: 0n, computed: 2n * high * computed, high: 2n * high * most });
    if (all) return { weight: { ...of(total, total), low: (2n * low * total) / 64n }, notes: [] };
    if (trainable !== undefined) return { weight: of(trainable, trainable), notes: [] };
    if (adapted) return { weight: of(0n, total), notes: [{ code: "adapters_size_not_declared" }] };
    return { weight: of(total, total), notes: [{ code: "trainable_not_declared" }] };
  };
  const all = trainable !== undefined ? trainable >= total : facts.method === "full" || facts.method === "pretraining";

  /** @param {Counters} work @returns {Trained} */
  const train = (work) => {
    const passed = passedOf(work, facts, null);
    const forward = through(passed), { weight, notes } = weights(passed.rows), more = attention(passed);
    const inputs = { low: all ? forward.low : 0n, computed: forward.computed, high: forward.high + more };
    const required = addedKnown(forward, inputs, weight);
    const executed = {
      low: required.low, computed: required.computed + (facts.recomputation === "full" ? forward.computed : 0n),
      high: required.high + more + (facts.recomputation === "none" ? 0n : forward.high),
    };
    const known = [
      { code: "only_total_known" }, { code: "least_active", part: "64" }, { code: "layers_at_most", layers: "200" },
      { code: "weights_used_once" },
    ];
    return { required, executed, assumptions: [...known, ...notes] };
  };
  return { total, train, forward: (work) => through(passedOf(work, facts, null, true)) };
}
