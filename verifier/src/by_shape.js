// FLOP of a plain Llama, by its matrices.
import { LEVELS } from "./bounds.js";
import { isInteger, isObject, isText } from "./basics.js";
import { ceilDiv } from "./figures.js";
import { checkHead, kernelOf, passedOf } from "./passed.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./bounds.js").Known} Known */
/** @typedef {import("./passed.js").Counters} Counters */
/** @typedef {import("./passed.js").Passed} Passed */
/** @typedef {import("./by_size.js").Way} Way */
/** @typedef {import("./by_size.js").Trained} Trained */
/** @typedef {"low" | "computed" | "high"} Level */
/** @typedef {"all" | "adapters" | "none"} Weights */
/** @typedef {{forward: bigint, inputs: bigint, weights: bigint, scores: bigint, layers: bigint, layersAttention: bigint,
 *   spare: bigint}} Sums */

const _SIZES = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"];
const _MAY_HAVE = ["num_key_value_heads", "head_dim", "max_position_embeddings"];
const _FLAGS = ["attention_bias", "mlp_bias", "tie_word_embeddings"];
const _WITHOUT_EFFECT = [
  "_name_or_path", "attention_dropout", "bos_token_id", "dtype", "eos_token_id", "hidden_act", "initializer_range",
  "pad_token_id", "pretraining_tp", "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta", "torch_dtype",
  "transformers_version", "use_cache",
];
const _KNOWN = new Set(["model_type", "architectures", ..._SIZES, ..._MAY_HAVE, ..._FLAGS, ..._WITHOUT_EFFECT]);
const _LARGEST = 1000000000n;
const _MOST_LAYERS = 2000n;
export const MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/** @param {any} config @returns {boolean} */
export function isPlainLlama(config) {
  if (!isObject(config) || config.model_type !== "llama" || Object.keys(config).some((name) => !_KNOWN.has(name))) return false;
  const isSize = (/** @type {string} */ name) => isInteger(config[name]) && config[name] >= 1n && config[name] <= _LARGEST;
  if (!_SIZES.every(isSize) || !_MAY_HAVE.every((name) => !(name in config) || isSize(name))) return false;
  if (!_FLAGS.every((name) => !(name in config) || typeof config[name] === "boolean")) return false;
  const named = config.architectures, heads = /** @type {bigint} */ (config.num_attention_heads);
  const keys = /** @type {bigint} */ (config.num_key_value_heads ?? heads);
  const isCausal = named === undefined || (Array.isArray(named) && named.every(isText) && named[0]?.endsWith("ForCausalLM"));
  const divides = "head_dim" in config || config.hidden_size % heads === 0n;
  return isCausal && divides && heads % keys === 0n && config.num_hidden_layers <= _MOST_LAYERS;
}

/** @param {Record<string, bigint>} config */
function shapesOf(config) {
  const d = config.hidden_size, e = config.intermediate_size, heads = config.num_attention_heads;
  const size = config.head_dim ?? d / heads, a = heads * size, k = (config.num_key_value_heads ?? heads) * size;
  const matrices = /** @type {Record<string, [bigint, bigint]>} */ ({
    q_proj: [d, a], k_proj: [d, k], v_proj: [d, k], o_proj: [a, d], gate_proj: [d, e], up_proj: [d, e], down_proj: [e, d],
  });
  let layer = 2n * d + (config.attention_bias ? a + 2n * k + d : 0n) + (config.mlp_bias ? 2n * e + d : 0n);
  for (const name of MATRICES) layer += matrices[name][0] * matrices[name][1];
  const table = config.vocab_size * d;
  const total = config.num_hidden_layers * layer + table * (config.tie_word_embeddings ? 1n : 2n) + d;
  return { matrices, total, width: a, head: d * config.vocab_size };
}

/** One walk through the model. */
class Walk {
  /** @param {J} config @param {Weights} trained @param {Map<string, bigint>} ranks Of adapters, by matrix. */
  constructor(config, trained, ranks) {
    this.shapes = shapesOf(config);
    this.count = /** @type {bigint} */ (config.num_hidden_layers);
    this.all = trained === "all";
    this.ranks = trained === "adapters" ? ranks : new Map();
    /** @type {Sums} */
    this.sums = { forward: 0n, inputs: 0n, weights: 0n, scores: 0n, layers: 0n, layersAttention: 0n, spare: 0n };
    this.last = 0n;
  }

  /** @param {bigint} rows @param {bigint} head Rows of the head. @param {bigint} pairs @param {boolean} input Whether it has a gradient. */
  through(rows, head, pairs, input) {
    const { sums } = this;
    let x = input || this.all;
    for (let i = 0n; i < this.count; i++) {
      const before = sums.forward;
      const [q, k, v] = ["q_proj", "k_proj", "v_proj"].map((name) => this.matrix(name, rows, x));
      const c = 2n * pairs * this.shapes.width;
      sums.forward += 2n * c;
      sums.inputs += c * BigInt(Number(q) + Number(k) + Number(q || k) + Number(v));
      const any = q || k || v;
      if (any) sums.scores += c;
      const middle = this.matrix("o_proj", rows, any) || x;
      const inner = ["gate_proj", "up_proj"].map((name) => this.matrix(name, rows, middle));
      x = this.matrix("down_proj", rows, inner[0] || inner[1]) || middle;
      if (!x) continue;
      sums.layers += sums.forward - before;
      sums.layersAttention += 2n * c;
      sums.spare += this.last;
    }
    const c = 2n * head * this.shapes.head;
    sums.forward += c;
    if (x) sums.inputs += c;
    if (this.all) sums.weights += c;
    return sums;
  }

  /** @param {string} name @param {bigint} rows @param {boolean} x Whether what it reads has a gradient. */
  matrix(name, rows, x) {
    const { sums } = this, [inputs, outputs] = this.shapes.matrices[name], rank = this.ranks.get(name) ?? 0n;
    const c = 2n * rows * inputs * outputs;
    sums.forward += c;
    if (x) sums.inputs += c;
    if (this.all) sums.weights += c;
    this.last = c;
    if (!rank) return x || this.all;
    const i = 2n * rows * inputs * rank, j = 2n * rows * rank * outputs;
    sums.forward += i + j;
    sums.inputs += x ? i + j : j;
    sums.weights += i + j;
    this.last = j;
    return true;
  }
}

/** @param {Sums} sums */
const totalOf = (sums) => sums.forward + sums.inputs + sums.weights;
const _note = (/** @type {string} */ code, /** @type {J} */ parameters = {}) =>
  ({ code, ...Object.fromEntries(Object.entries(parameters).map(([name, value]) => [name, String(value)])) });

/** How it was trained, and what of that has to be assumed. @param {J} facts @param {bigint} total @param {bigint} adapters */
function trainingOf(facts, total, adapters) {
  const notes = [];
  const { lora } = facts, t = /** @type {bigint | undefined} */ (facts.parameters_trainable);
  let { method } = facts;
  if (method === undefined) notes.push(_note("method_not_declared"));
  else if ((method === "full" || method === "pretraining") && t !== undefined && t < total) {
    method = "partial";
    notes.push(_note("full_taken_as_partial", { trainable: t, total }));
  } else if (method === "partial") notes.push(_note("frozen_not_declared"));
  const adapted = method === "lora" || method === "qlora";
  const detailed = adapted && Array.isArray(lora?.target_modules), vague = adapted && !detailed;
  if (vague) notes.push(_note("adapters_not_declared"));
  let surplus = 0n, fewer = false;
  if (detailed && t !== undefined && t !== adapters) {
    notes.push(_note("adapters_differ", { trainable: t, named: adapters }));
    surplus = t > adapters ? t - adapters : 0n;
    fewer = t < adapters;
  }
  const weights = (/** @type {Level} */ level) => {
    if (detailed && !(fewer && level === "low")) return "adapters";
    if (method === "full" || method === "pretraining") return "all";
    return level === "low" || (level === "computed" && vague) ? "none" : "all";
  };
  return { method, t, vague, surplus, weights, notes };
}

/** @param {J} facts @returns {Way} */
export function byShape(facts) {
  const { model_config: config, lora, recomputation } = facts;
  const { matrices, total, head: headWeights } = shapesOf(config);
  const named = /** @type {string[]} */ (lora?.target_modules ?? []);
  const ranks = new Map(MATRICES.filter((name) => named.includes(name) || named.includes("all-linear")).map((name) => [name, lora.r]));
  let adapters = 0n;
  const layers = /** @type {bigint} */ (config.num_hidden_layers);
  for (const [name, rank] of ranks) adapters += layers * rank * (matrices[name][0] + matrices[name][1]);
  const training = trainingOf(facts, total, adapters);
  const most = config.max_position_embeddings ?? null;
  const kernel = kernelOf(facts.attention);

  /** What adapters that are not named cost each way. @param {bigint} n @param {Level} level */
  const unnamed = (n, level) => {
    const { t, vague, surplus } = training, known = vague ? t ?? 0n : 0n;
    return 2n * n * { low: 0n, computed: known, high: known + surplus }[level];
  };

  /** @param {Passed} passed @param {Level} level @param {boolean} input @param {bigint} [pairs] @param {Level} [rows] */
  const walked = (passed, level, input, pairs = passed.pairs[level], rows = level) => {
    const sums = new Walk(config, training.weights(level), ranks).through(passed.rows[rows], passed.head[rows], pairs, input);
    const { t } = training, n = passed.rows[level];
    if (training.method === "partial" && t !== undefined && level !== "low") {
      const largest = 2n * n * t;
      if (sums.weights > largest) sums.weights = largest;
    }
    const extra = unnamed(n, level);
    sums.forward += extra;
    sums.inputs += extra;
    sums.weights += extra;
    return sums;
  };

  const theirs = /** @type {bigint | undefined} */ (facts.parameters_total);
  const explained = [total, ...(lora ? [total + adapters, total + (training.t ?? 0n)] : [])];
  const differs = theirs !== undefined && theirs !== 0n && !explained.includes(theirs);
  /** @param {Known} bounds @param {Passed} passed @param {bigint} passes */
  const widened = ({ low, computed, high }, passed, passes) => {
    if (!differs || theirs === undefined) return { low, computed, high };
    const more = theirs < total ? total : theirs;
    const inProportion = ceilDiv(high * more, total), beside = high + 2n * passed.rows.high * passes * (more - total);
    const least = explained.some((one) => theirs < one) ? 0n : low;
    return { low: least, computed, high: inProportion > beside ? inProportion : beside };
  };

  /** @param {Counters} work @returns {Trained} */
  const train = (work) => {
    const passed = passedOf(work, facts, most);
    checkHead(work);
    const low = walked(passed, "low", false), computed = walked(passed, "computed", training.vague);
    const high = walked(passed, "high", true);
    const least = walked(passed, "low", false, passed.executed, "computed");
    const atLeast = totalOf(least) + (recomputation === "full" ? least.layers - least.spare : 0n);
    const hooked = recomputation === "full" || recomputation === "selective";
    const deep = hooked ? walked(passed, "computed", true) : computed;
    const again = recomputation === "full" ? deep.layers - deep.spare : recomputation === "selective" ? deep.layersAttention : 0n;
    const twice = (/** @type {Sums} */ sums) => (kernel === "square" ? 0n : sums.scores);
    const executed = {
      low: atLeast > totalOf(low) ? atLeast : totalOf(low),
      computed: totalOf(deep) + again + twice(deep) + 2n * headWeights * passed.again,
      high: totalOf(high) + (recomputation === "none" ? 0n : high.layers) + twice(high)
        + 2n * headWeights * (passed.again + passed.unlabelled),
    };
    const required = { low: totalOf(low), computed: totalOf(computed), high: totalOf(high) };
    return { required: widened(required, passed, 3n), executed: widened(executed, passed, 4n), assumptions: assumptions(work, passed) };
  };

  /** @param {Counters} work @param {Passed} passed */
  const assumptions = (work, passed) => [
    _note("products_only"),
    ...(most !== null && !work.has("square_pairs") && passed.rows.high > most ? [_note("lengths_not_counted", { most })] : []),
    ...training.notes,
    ...(differs ? [_note("parameters_differ", { process: theirs, configuration: total })] : []),
    ...(recomputation === undefined ? [_note("recomputation_not_declared")] : []),
    ...(recomputation === "selective" ? [_note("selective_is_attention")] : []),
    ...(kernel === "either" ? [_note("kernel_not_known")] : []),
    _note(passed.headCounted ? "head_as_counted" : "head_taken_for_all"),
    ...(facts.packing === true ? [_note("documents_packed")] : []),
  ];

  /** @param {Counters} work @returns {Known} */
  const forward = (work) => {
    const passed = passedOf(work, facts, most, true);
    checkHead(work);
    const [low, computed, high] = LEVELS.map((level) => {
      const trained = training.weights(level), n = passed.rows[level];
      const walk = new Walk(config, trained === "all" || level === "low" ? "none" : trained, ranks);
      return walk.through(n, passed.head[level], passed.pairs[level], false).forward + unnamed(n, level);
    });
    return widened({ low, computed, high }, passed, 1n);
  };
  return { total, train, forward };
}
