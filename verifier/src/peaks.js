// The peak table: rates, bounds, margins and ceilings of a device.
import { Refusal, isObject, object } from "./basics.js";
import { ceilDiv, percentG } from "./figures.js";
import { formatsOf } from "./tallies.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {"flop" | "integer"} Kind */
/** @typedef {{low: bigint | null, measured: bigint | null, high: bigint | null}} Rates */
/** @typedef {[string, bigint][]} Formats The formats that hold of a declaration, with their ppm. */

const _SIX = ["fp16", "bf16", "tf32", "fp8", "fp6", "fp4"];
const _INTEGER = ["int8", "int4"];
const _SECOND = 1000000000n;
const _FIXED = /** @type {Record<string, string>} */ ({
  tensor_imma: "int8", tensor_dfma: "fp64", fp64: "fp64", fp32: "fp32", fp16: "fp16",
});

/** @param {(bigint | undefined)[]} rates */
const known = (rates) => /** @type {bigint[]} */ (rates.filter((one) => one !== undefined));
/** @param {bigint[]} rates */
const least = (rates) => (rates.length ? rates.reduce((a, b) => (a < b ? a : b)) : null);
/** @param {bigint[]} rates */
const most = (rates) => (rates.length ? rates.reduce((a, b) => (a > b ? a : b)) : null);
/** @param {bigint | null} rate @returns {Rates} */
const alike = (rate) => ({ low: rate, measured: rate, high: rate });

/** TFLOP/s, a whole number or a decimal text, in FLOP/s: rounded to 10^9, half to even.
 * @param {bigint | string} value */
export function flopPerSecond(value) {
  const [whole, rest = ""] = String(value).split(".");
  const scale = 10n ** BigInt(rest.length);
  const exact = BigInt(whole + rest) * 1000n;
  const twice = 2n * (exact % scale);
  let rounded = exact / scale;
  if (twice > scale || (twice === scale && rounded % 2n)) rounded += 1n;
  return rounded * _SECOND;
}

/** What the arithmetic needs of one device, with one declaration of its tensor formats. */
export class Rating {
  /** @param {Peaks} peaks @param {J} device @param {J | null} shares The declaration: ppm by format. */
  constructor(peaks, device, shares) {
    this.table = peaks.table;
    /** @type {J | null} */
    this.row = peaks.row(device.peak_row);
    const row = this.row ?? {};
    this.tensor = row.flop_per_cycle_per_sm?.tensor ?? object();
    this.vector = row.flop_per_cycle_per_sm?.vector ?? {};
    this.disputed = row.disputed_flop_per_cycle_per_sm?.tensor ?? {};
    this.noIntegers = row.integer_tensor === false;
    this.stated = shares;
    const fits = shares !== null && Object.keys(shares).every((name) => name in this.tensor);
    /** @type {Formats | null} */
    this.formats = fits ? Object.keys(shares).map((name) => [name, shares[name]]) : null;
    this.limit(row, device);
  }

  /** @param {J} row @param {J} device */
  limit(row, device) {
    /** @type {bigint | null} */ this.sms = null;
    /** @type {bigint | null} */ this.mhz = null;
    /** @type {bigint | null} */ this.perSecond = null;
    /** @type {bigint | null} */ this.integersPerSecond = null;
    this.dense = row.peak_dense_tflop_per_s_per_chip ?? null;
    const chip = { dense: this.dense ?? {}, sparse: row.peak_sparse_tflop_per_s_per_chip ?? {} };
    const peaks = [chip.dense, chip.sparse].flatMap((one) => Object.keys(one).map((name) => ({ name, value: one[name] })));
    if (peaks.length) {
      const of = (/** @type {boolean} */ integer) =>
        most(peaks.filter((one) => _INTEGER.includes(one.name) === integer).map((one) => flopPerSecond(one.value)));
      this.perSecond = of(false);
      this.integersPerSecond = of(true);
      return;
    }
    if (this.row === null) return;
    const sms = device.sm_count ?? row.sm_count ?? null;
    const clocks = [device.sm_clock_max_mhz, row.clocks_mhz?.tensor_ref, row.clocks_mhz?.vector_ref];
    const mhz = most(clocks.filter((one) => typeof one === "bigint"));
    if (sms === null || mhz === null) return;
    this.sms = sms;
    this.mhz = mhz;
  }

  /** SM-cycles at most in so many nanoseconds; of a device with SMs and a clock. @param {bigint} ns */
  cyclesIn(ns) {
    return ceilDiv(/** @type {bigint} */ (this.sms) * /** @type {bigint} */ (this.mhz) * ns, 1000n);
  }

  /** The formats that hold of the declaration for a pipe; null: nothing is declared of it.
   * @param {string | null} pipe @param {boolean} beside Whether another tensor pipe was read in the tally.
   * @returns {Formats | null} */
  holding(pipe, beside) {
    if (this.formats === null || pipe === null) return this.formats;
    if (pipe === "tensor") return this.formats.length > 1 && beside ? null : this.formats;
    if (pipe !== "tensor_hmma") return null;
    const six = this.formats.filter(([name]) => _SIX.includes(name));
    return six.length ? six : null;
  }

  /** @param {string} name */
  top(name) {
    const rates = known([this.tensor[name], this.disputed[name]]);
    return most(rates);
  }

  /** @param {Formats} formats @param {Kind} kind @param {boolean} tops */
  mix(formats, kind, tops) {
    let sum = 0n, parts = 0n;
    for (const [name, ppm] of formats) {
      parts += ppm;
      if (_INTEGER.includes(name) !== (kind === "integer")) continue;
      sum += ppm * /** @type {bigint} */ (tops ? this.top(name) : this.tensor[name]);
    }
    return tops ? ceilDiv(sum, parts) : sum / parts;
  }

  /** Operations per SM-cycle of a pipe. @param {Kind} kind @param {string} pipe @param {boolean} beside @returns {Rates} */
  rates(kind, pipe, beside) {
    if (this.row === null) return alike(null);
    const declared = pipe === "tensor" || pipe === "tensor_hmma" ? this.holding(pipe, beside) : null;
    if (kind === "integer" && (this.noIntegers || (pipe !== "tensor_imma" && pipe !== "tensor"))) return alike(0n);
    if (declared) {
      const rate = this.mix(declared, kind, false);
      return { low: rate, measured: rate, high: this.mix(declared, kind, true) };
    }
    return kind === "integer" ? this.integers(pipe) : this.floats(pipe);
  }

  /** @param {string} pipe @returns {Rates} */
  integers(pipe) {
    const high = most(known(_INTEGER.map((name) => this.top(name) ?? undefined)));
    if (pipe === "tensor") return { low: 0n, measured: null, high };
    return { low: least(known(_INTEGER.map((name) => this.tensor[name]))), measured: this.tensor.int8 ?? null, high };
  }

  /** @param {string} pipe @returns {Rates} */
  floats(pipe) {
    if (pipe === "tensor_imma") return alike(0n);
    if (pipe === "tensor_dfma") return alike(this.tensor.fp64 ?? null);
    if (pipe === "fp64" || pipe === "fp16") return alike(this.vector[pipe] ?? null);
    if (pipe === "fp32") return { ...alike(this.vector.fp32 ?? null), low: 0n };
    const names = [...new Set([...Object.keys(this.tensor), ...Object.keys(this.disputed)])];
    const counted = names.filter((name) => (pipe === "tensor" ? !_INTEGER.includes(name) : _SIX.includes(name)));
    const smallest = least(known(counted.map((name) => this.tensor[name])));
    const low = pipe === "tensor" && !this.noIntegers ? 0n : smallest;
    const measured = this.tensor.bf16 ?? this.tensor.fp16 ?? null;
    return { low, measured, high: most(known(counted.map((name) => this.top(name) ?? undefined))) };
  }

  /** @param {Kind} kind @param {string} pipe @param {boolean} beside @returns {bigint | null} */
  bound(kind, pipe, beside) {
    const { high } = this.rates(kind, pipe, beside);
    if (high !== null || this.row === null) return high;
    const name = kind === "integer" ? "int8" : pipe.replace("tensor_", "");
    /** @type {bigint | undefined} */
    const times = this.table.unrated_pipe_bounds?.[name]?.times_fp32;
    /** @type {bigint | undefined} */
    const rate = this.vector.fp32;
    return times === undefined || rate === undefined ? null : rate * times;
  }

  /** @param {Kind} kind @returns {bigint | null} */
  ceilingRate(kind) {
    if (this.row === null) return null;
    if (kind === "integer") return this.bound("integer", "tensor_imma", false);
    let sum = this.rates("flop", "tensor", false).high ?? 0n;
    for (const pipe of ["fp64", "fp32", "fp16"]) {
      const rate = this.bound("flop", pipe, false);
      if (rate === null) return null;
      sum += rate;
    }
    return sum;
  }

  /** The most that the device can do in so many nanoseconds. @param {Kind} kind @param {bigint} ns @returns {bigint | null} */
  ceiling(kind, ns) {
    const perSecond = kind === "flop" ? this.perSecond : this.integersPerSecond;
    if (this.perSecond !== null || this.integersPerSecond !== null) {
      return perSecond === null ? null : ceilDiv(ns * perSecond, _SECOND);
    }
    const rate = this.ceilingRate(kind);
    if (rate === null || this.sms === null || this.mhz === null) return null;
    return ceilDiv(ns * this.sms * this.mhz * rate, 1000n);
  }

  /** Margin in ppm. @param {string} evidence @param {string | null} pipe @param {boolean} beside @returns {bigint} */
  margin(evidence, pipe, beside) {
    const general = this.table.margins[evidence]?.ppm ?? 0n;
    if (pipe === null || !pipe.startsWith("tensor")) return general;
    const declared = this.holding(pipe, beside);
    const counted = (/** @type {string} */ name) =>
      pipe === "tensor" || (pipe === "tensor_hmma" ? _SIX.includes(name)
        : pipe === "tensor_imma" ? _INTEGER.includes(name) : name === "fp64");
    const names = declared ? declared.map(([name]) => name) : Object.keys(this.tensor).filter(counted);
    const own = this.row?.margins?.[evidence] ?? {};
    return most(names.map((name) => own[name]?.ppm ?? general)) ?? general;
  }

  /** @param {string | null} pipe @param {boolean} beside */
  precision(pipe, beside) {
    if (pipe !== null && pipe in _FIXED) return _FIXED[pipe];
    const formats = this.holding(pipe, beside);
    if (formats === null) return "undeclared";
    if (formats.length === 1) return formats[0][0];
    const parts = formats.reduce((sum, [, ppm]) => sum + ppm, 0n);
    const sorted = [...formats].sort(([a], [b]) => (a < b ? -1 : 1));
    return sorted.map(([name, ppm]) => `${name}:${percentG(ppm, parts)}`).join(",");
  }

  /** Whether a vendor's count may hold integer operations. */
  countMayBeInteger() {
    if (this.noIntegers) return false;
    if (this.stated === null) return true;
    const formats = Object.assign(object(), this.tensor, this.dense);
    return !Object.keys(this.stated).every((name) => name in formats && !_INTEGER.includes(name));
  }

  /** How far a clock that was read at random moments may be off, in SM-cycles: see the page's note on square_sum.
   * @param {bigint} squares @param {bigint} ns */
  deviation(squares, ns) {
    if (!squares || this.sms === null || this.mhz === null) return 0n;
    const widest = (/** @type {bigint} */ time) => {
      const cycles = this.cyclesIn(time);
      return cycles + cycles / 100n + 1n;
    };
    const c = widest(58000000n), h = widest(ns), one = 1n << 60n;
    const steps = [[4n, 5n], ...Array.from({ length: 19 }, (_, i) => [1n, 2n ** BigInt(i + 1)])];
    const found = steps.map(([n, d]) => {
      const fixed = ceilDiv(one * 182n * d, 10n * n) * c;
      const f = ceilDiv(one * (3n * n * (d - n) + 2n * n * n), 6n * d * (d - n));
      const first = ceilDiv(f * squares, c), second = ceilDiv(one * n, 8n * d) * h;
      return fixed + (first < second ? first : second);
    });
    return ceilDiv(/** @type {bigint} */ (least(found)), one);
  }
}

/** A peak table, read from its file. */
export class Peaks {
  /** @param {J} table @param {string} sha256 @param {boolean} own Whether this verifier ships it. */
  constructor(table, sha256, own) {
    if (!isObject(table) || table.schema !== "flopsd-peaks/1") {
      throw new Refusal("peak_table_unknown", "the peak table is not of schema flopsd-peaks/1");
    }
    this.table = table;
    this.sha256 = sha256;
    this.own = own;
    /** @type {Map<string, J>} */
    this.rows = new Map((table.accelerators ?? []).map((/** @type {J} */ row) => [row.id, row]));
    /** @type {Map<J, Map<string, Rating>>} */
    this.ratings = new Map();
  }

  /** @param {string | null} id @returns {J | null} */
  row(id) {
    if (id === null) return null;
    const row = this.rows.get(id);
    if (!row) throw new Refusal("peak_row_unknown", `the peak table has no row '${id}'`);
    return row;
  }

  /** Whether a device's row is one with its name, its PCI id, or both where there are rows with either. @param {J} device */
  isOfItsRow({ peak_row, model, pci_device_id }) {
    const rows = [...this.rows.values()];
    const named = rows.filter((row) => row.names?.includes(model));
    const found = rows.filter((row) => row.pci_device_ids?.some((/** @type {string} */ id) => BigInt(id) === pci_device_id));
    const both = named.length && found.length ? named.filter((row) => found.includes(row)) : [...named, ...found];
    return peak_row === null || both.some((row) => row.id === peak_row);
  }

  /** @param {J} device As learned at last. @param {J | null} claimed A training process's ppm by format. @returns {Rating} */
  rating(device, claimed) {
    const held = this.ratings.get(device) ?? new Map();
    this.ratings.set(device, held);
    const key = claimed === null ? "" : Object.keys(claimed).map((name) => `${name}:${claimed[name]}`).join(",");
    const found = held.get(key) ?? new Rating(this, device, device.precision?.shares_ppm ?? claimed);
    held.set(key, found);
    return found;
  }
}

/** The format in a share's name, as ppm by format; null: it has none. @param {string} name */
export function claimedFormats(name) {
  return formatsOf(name.split("@")[1] ?? "");
}
