// Running totals of one device, out of a device record or the columns of a checkpoint.
import { Refusal, isAmount, isInteger, isObject, require, shown } from "./basics.js";
import { MILLION, percentG } from "./figures.js";
import { FORMATS, PHASES } from "./names.js";

/** @typedef {import("./basics.js").J} J */
/** Amounts by path, such as `sm_cycles/activity/fp32`.
 * @typedef {{amounts: Map<string, bigint>}} Amounts */
/** @typedef {Amounts & {to: bigint}} Share */
/** @typedef {Share & {shares: Map<string, Share>, counters: Map<string, bigint>, energyAt: bigint | null,
 *   running: {origin: string, values: Map<string, bigint>} | null}} Tally */

/** That of tallies; rows have `gap` and `operator_count` too. */
export const EVIDENCE = ["cycles", "activity", "count", "utilization"];
export const ESTIMATING = ["cycles", "activity", "count"];
export const PIPES = ["tensor", "tensor_hmma", "tensor_imma", "tensor_dfma", "fp64", "fp32", "fp16"];

export const ELSEWHERE = ["other_job", "metered_as_mig", "replaced"];
export const WITHOUT_CEILING = ["journal_replaced", "end_unknown"];
export const REASONS = [
  "starting", "stopping", "daemon_down", "source_down", "source_silent", "device_missing", "device_lost", "other_job",
  "metered_as_mig", "replaced", "driver_timeout", "driver_error", "no_permission", "not_supported", "not_a_number",
  "out_of_range", "counter_reset", "counter_stalled", "contradictory", "counters_disabled", "counters_in_use", "zero_at_full_load",
  "stale", "uncounted_work", "unknown_device", "overlap", "missed_reading", "not_journalled", "end_unknown", "journal_replaced",
];

/** By member, the names that may stand on each level below it. */
const _LEVELS = /** @type {Record<string, string[][]>} */ ({
  observed_ns: [EVIDENCE], gap_ns: [REASONS], recovered_ns: [EVIDENCE], sm_cycles: [EVIDENCE, PIPES],
  uncertainty_sm_cycles: [EVIDENCE, PIPES], square_sum: [EVIDENCE, PIPES], unread_ns: [PIPES],
  busy_sm_cycles: [], sampled_busy_sm_cycles: [], clocked_sm_cycles: [], clocked_square_sum: [], counted_flop: [], energy_mj: [], energy_ns: [],
});

/** Where an amount of 0 is not as an absent one. */
const _KEPT = ["sm_cycles", "energy_mj"];
/** What a tally has and no share of a phase. */
const _NOT_SHARED = ["counters", "energy_at_ns", "number", "phases", "running"];
const _MOST_NAMES = 5; // of a column, such as phases, a phase, sm_cycles, an evidence, a pipe

/** @returns {Tally} */
export function emptyTally() {
  return { to: 0n, amounts: new Map(), shares: new Map(), counters: new Map(), energyAt: null, running: null };
}

/** @param {Amounts} tally @param {string} member */
export function sumOf(tally, member) {
  let sum = 0n;
  for (const [path, value] of tally.amounts) if (path.startsWith(member)) sum += value;
  return sum;
}

/** @param {Amounts} tally @param {string} path */
export function amountOf(tally, path) {
  return tally.amounts.get(path) ?? 0n;
}

/** What a tally has under one member, by what is behind it in the path.
 * @param {Amounts} tally @param {string} member @returns {[string, bigint][]} */
export function under(tally, member) {
  /** @type {[string, bigint][]} */
  const found = [];
  for (const [path, value] of tally.amounts) {
    if (path.startsWith(member + "/")) found.push([path.slice(member.length + 1), value]);
  }
  return found;
}

/** @param {Amounts} tally */
export function elsewhereOf(tally) {
  return ELSEWHERE.reduce((sum, reason) => sum + amountOf(tally, `gap_ns/${reason}`), 0n);
}

/** @param {Amounts} tally */
export function unknownOf(tally) {
  const unknown = sumOf(tally, "gap_ns/") - elsewhereOf(tally) - sumOf(tally, "recovered_ns/");
  return unknown > 0n ? unknown : 0n;
}

/** A format, or several that are a whole, as a share's name has them: ppm by format. null: it is none.
 * @param {string} text @returns {Record<string, bigint> | null} */
export function formatsOf(text) {
  if (FORMATS.includes(text)) return { [text]: MILLION };
  const parts = text.split(",").map((one) => one.split(":"));
  const found = Object.fromEntries(parts.map(([name, share]) => [name, ppmOf(share)]));
  const names = Object.keys(found).sort();
  const whole = names.reduce((sum, name) => sum + found[name], 0n);
  const written = names.map((name) => `${name}:${percentG(found[name], MILLION)}`).join(",");
  const isOne = names.every((name) => FORMATS.includes(name) && found[name]) && whole === MILLION;
  return isOne && names.length > 1 && written === text ? found : null;
}

/** @param {string | undefined} share 0 where it is none. */
function ppmOf(share) {
  const ppm = Math.round(Number(share) * 1e6);
  return Number.isSafeInteger(ppm) && ppm > 0 ? BigInt(ppm) : 0n;
}

/** Reads the members of tallies, in a shape that is the same for one value and for a column of values. */
class Reader {
  /** @param {Tally[]} tallies @param {string} where @param {boolean} columns */
  constructor(tallies, where, columns) {
    this.tallies = tallies;
    this.where = where;
    this.columns = columns;
    /** Tallies and shares that have a time. */
    this.timed = new Set();
  }

  /** @param {string} what @returns {Refusal} */
  refusal(what) {
    return new Refusal("record_malformed", `journal ${this.where}: ${what}`, this.where);
  }

  /** @param {any} value @param {string} path @param {boolean} signed
   * @param {(tally: Tally, value: bigint) => void} put */
  leaf(value, path, signed, put) {
    const list = this.columns ? value : [value];
    if (!Array.isArray(list)) throw this.refusal(`${path} is not a column`);
    if (list.length !== this.tallies.length) throw this.refusal(`${path} has ${list.length} values`);
    list.forEach((one, i) => {
      if (one === null && this.columns) return;
      if (signed ? !isInteger(one) : !isAmount(one)) throw this.refusal(`${path}: ${shown(one)} is not a count`);
      put(this.tallies[i], one);
    });
  }

  /** @param {any} value @param {string} path @param {string[][] | null} levels null: any names, one level
   * @param {(tally: Tally, path: string, value: bigint) => void} put */
  tree(value, path, levels, put) {
    if (levels !== null && !levels.length) {
      this.leaf(value, path, false, (tally, one) => put(tally, path, one));
      return;
    }
    if (!isObject(value)) throw this.refusal(`${path} is not an object`);
    for (const name of Object.keys(value)) {
      if (levels !== null && !levels[0].includes(name)) throw this.refusal(`${path}: '${name}' is not a name of it`);
      this.tree(value[name], path ? `${path}/${name}` : name, levels === null ? [] : levels.slice(1), put);
    }
  }

  /** A member that no clause names, which is ignored; of columns, if it is one. @param {any} value @param {string} path */
  ignore(value, path) {
    if (!this.columns) return;
    const isPart = isObject(value) && path.split("/").length < _MOST_NAMES;
    if (!isPart && !(Array.isArray(value) && value.length === this.tallies.length)) throw this.refusal(`${path} is not a column`);
    for (const [name, part] of Object.entries(isPart ? value : {})) this.ignore(part, `${path}/${name.replaceAll("/", "_")}`);
  }

  /** @param {J} found @param {(tally: Tally) => Share} into @param {string} [of] the name of a share */
  amounts(found, into, of) {
    for (const member of Object.keys(found)) {
      const value = found[member];
      if (member === "to_ns") this.leaf(value, member, true, (tally, one) => {
        into(tally).to = one;
        this.timed.add(into(tally));
      });
      else if (Object.hasOwn(_LEVELS, member)) {
        this.tree(value, member, _LEVELS[member], (tally, path, one) => {
          const { amounts } = into(tally);
          if (one || _KEPT.includes(member)) amounts.set(path, one);
        });
      } else if (of && _NOT_SHARED.includes(member)) throw this.refusal(`'${member}' is not a member of a share`);
      else this.ignore(value, of ? `phases/${of.replaceAll("/", "_")}/${member.replaceAll("/", "_")}` : member.replaceAll("/", "_"));
    }
  }

  /** @param {J} found */
  running(found) {
    if (!isObject(found)) throw this.refusal("running is not an object");
    for (const origin of Object.keys(found)) {
      const held = found[origin];
      if (!isObject(held)) throw this.refusal("running has no object by origin");
      for (const name of Object.keys(held)) {
        if (name !== "ns" && name !== "elapsed" && !PIPES.includes(name)) throw this.refusal(`running: '${name}'`);
        this.leaf(held[name], `running/${name}`, name === "ns", (tally, one) => {
          tally.running ??= { origin, values: new Map() };
          if (tally.running.origin !== origin) throw this.refusal("running has more than one origin");
          tally.running.values.set(name, one);
        });
      }
      const whole = this.tallies.every(({ running }) =>
        running === null || running.origin !== origin || (running.values.has("ns") && running.values.has("elapsed")));
      if (!whole) throw this.refusal("running without ns or elapsed");
    }
  }

  /** @param {J} found */
  phases(found) {
    if (!isObject(found)) throw this.refusal("phases is not an object");
    for (const name of Object.keys(found)) {
      const [phase, formats] = name.split("@");
      const known = PHASES.includes(phase) && (formats === undefined || formatsOf(formats)) && isObject(found[name]);
      if (!known) throw this.refusal(`'${name}' is not a phase`);
      /** @param {Tally} tally */
      const share = (tally) => {
        let held = tally.shares.get(name);
        if (!held) tally.shares.set(name, (held = { to: 0n, amounts: new Map() }));
        return held;
      };
      this.amounts(found[name], share, name);
      const held = this.tallies.map(({ shares }) => shares.get(name));
      if (!held.every((one) => !one || this.timed.has(one))) throw this.refusal(`'${name}' has no to_ns`);
    }
  }

  /** @param {J} found */
  tally(found) {
    const { phases, counters, running, energy_at_ns: energyAt, ...rest } = found;
    this.amounts(rest, (tally) => tally);
    if (!this.tallies.every((one) => this.timed.has(one))) throw this.refusal("a tally has no to_ns");
    if (phases !== undefined) this.phases(phases);
    if (running !== undefined) this.running(running);
    if (counters !== undefined) this.tree(counters, "", null, (tally, path, one) => tally.counters.set(path, one));
    if (energyAt !== undefined) this.leaf(energyAt, "energy_at_ns", true, (tally, one) => void (tally.energyAt = one));
  }
}

/** @param {J} record A device record. @param {string} where */
export function tallyOfDevice(record, where) {
  const tally = emptyTally();
  require(isInteger(record.to_ns), "record_malformed", `journal ${where}: a device without to_ns`, where);
  new Reader([tally], where, false).tally(record);
  return tally;
}

/** @param {any} columns @param {number} count @param {string} where */
export function talliesOfColumns(columns, count, where) {
  const tallies = Array.from({ length: count }, emptyTally);
  require(isObject(columns), "record_malformed", `journal ${where}: tallies is not an object`, where);
  const held = withoutEmpty(columns);
  require(!count || "to_ns" in held, "record_malformed", `journal ${where}: tallies without to_ns`, where);
  new Reader(tallies, where, true).tally(held);
  return tallies;
}

/** Columns without objects that hold no column, which are as absent. undefined: nothing is left of a part.
 * @param {any} value @param {number} [names] that lead to it @returns {any} */
function withoutEmpty(value, names = 0) {
  if (!isObject(value) || names === _MOST_NAMES) return value;
  const parts = Object.entries(value).map(([name, part]) => [name, withoutEmpty(part, names + 1)]);
  const kept = parts.filter(([, part]) => part !== undefined);
  return kept.length || !names ? Object.fromEntries(kept) : undefined;
}

/** What the shares leave of a tally. An amount of which nothing is left is left out.
 * @param {Tally} tally @returns {Amounts} */
export function undeclaredOf(tally) {
  const amounts = new Map(tally.amounts);
  for (const share of tally.shares.values()) {
    for (const [path, value] of share.amounts) amounts.set(path, (amounts.get(path) ?? 0n) - value);
  }
  if (tally.shares.size) for (const [path, rest] of amounts) if (rest === 0n) amounts.delete(path);
  return { amounts };
}
