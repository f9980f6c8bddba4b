// Energy for each measured FLOP, beside published runs of the part.
import { byText } from "./basics.js";
import { MILLION, ceilDiv, joules, nanoseconds, seconds } from "./figures.js";
import { PIPES, amountOf, elsewhereOf } from "./tallies.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./statement.js").Account} Account */
/** @typedef {{part: string, precision: string, low: bigint, high: bigint, ns: bigint, mj: bigint, flop: bigint,
 *   doubt: bigint}} Spent */

const _ESTIMATED = ["cycles", "activity"];
const _FEMTO_PER_MILLI = 10n ** 12n;

/** What one device took, all its tallies together; null: it cannot be compared.
 * @param {Account[]} own @param {import("./peaks.js").Peaks} peaks @returns {Spent | null} */
function spentBy(own, peaks) {
  const row = peaks.row(own[0].device.known.peak_row);
  const tallies = own.map(({ device }) => device.last);
  if (!row || own.some(({ device }) => device.known.peak_row !== row.id)) return null;
  if (!tallies.some((one) => one.amounts.has("energy_mj"))) return null;
  const sum = (/** @type {string} */ path) => tallies.reduce((total, one) => total + amountOf(one, path), 0n);
  const j = own.reduce((total, { device }) => total + device.last.to - device.first - elsewhereOf(device.last), 0n);
  const k = _ESTIMATED.reduce((total, name) => total + sum(`observed_ns/${name}`) + sum(`recovered_ns/${name}`), 0n);
  if ((2n * j - sum("energy_ns") - k) * 100n > j) return null;
  if (PIPES.some((pipe) => pipe.startsWith("tensor") && sum(`unread_ns/${pipe}`))) return null;
  const rows = own.flatMap(({ of }) => of.parts.flatMap((part) => part.rows))
    .filter((one) => _ESTIMATED.includes(one.evidence) && one.smCycles);
  /** @type {Map<string, bigint>} */
  const formats = new Map();
  for (const one of rows) {
    if (!one.pipe?.startsWith("tensor")) continue;
    const format = one.precision === "undeclared" ? "bf16" : one.precision;
    formats.set(format, (formats.get(format) ?? 0n) + one.smCycles);
  }
  const all = [...formats.values()].reduce((a, b) => a + b, 0n);
  const precision = [...formats].find(([, cycles]) => (all - cycles) * 100n <= all)?.[0];
  if (precision === undefined) return null;
  const published = row.energy?.[precision];
  if (!published || rows.some((one) => one.flop.measured === null)) return null;
  let flop = 0n, doubt = 0n;
  for (const one of rows) {
    const measured = /** @type {bigint} */ (one.flop.measured);
    flop += measured;
    doubt += ceilDiv(measured * (one.margin ?? 0n), MILLION) + one.clock;
  }
  if (!flop) return null;
  const { low_fj_per_flop: low, high_fj_per_flop: high } = published;
  return { part: row.id, precision, low, high, ns: j, mj: sum("energy_mj"), flop, doubt };
}

/** @param {Spent[]} all @returns {J[]} */
function written(all) {
  /** @type {Map<string, Spent>} */
  const sums = new Map();
  for (const one of all) {
    const key = [one.part, one.precision, ...[one.low, one.high].map((end) => String(end).padStart(40, "0"))].join("\n");
    const held = sums.get(key);
    sums.set(key, !held ? one : {
      ...held, ns: held.ns + one.ns, mj: held.mj + one.mj, flop: held.flop + one.flop, doubt: held.doubt + one.doubt,
    });
  }
  return [...sums].sort(([a], [b]) => byText(a, b)).map(([, one]) => ratio(one));
}

/** @param {Spent} one */
function ratio({ part, precision, low, high, ns, mj, flop, doubt }) {
  const energy = mj * _FEMTO_PER_MILLI;
  const least = energy / (flop + doubt), most = flop > doubt ? ceilDiv(energy, flop - doubt) : null;
  const warning = least > high ? "ENERGY_ABOVE_PUBLISHED_RUNS"
    : most !== null && most < low ? "ENERGY_BELOW_PUBLISHED_RUNS" : null;
  return {
    name: "energy/executed", part, precision, publishedFjPerFlop: { low: String(low), high: String(high) },
    deviceSeconds: seconds(ns), energyJoules: joules(mj), measuredFlop: String(flop), doubtFlop: String(doubt),
    fjPerFlop: { low: String(least), measured: String(energy / flop), high: most === null ? null : String(most) },
    withinMargin: warning === null, warning,
  };
}

/** @param {Account[]} accounts @param {import("./peaks.js").Peaks} peaks */
export function energyRatios(accounts, peaks) {
  /** @type {Map<string, Account[]>} */
  const devices = new Map();
  for (const one of accounts) {
    const { uuid } = one.device.record;
    devices.set(uuid, [...(devices.get(uuid) ?? []), one]);
  }
  return written([...devices.values()].flatMap((own) => spentBy(own, peaks) ?? []));
}

/** Those of a merged ledger. @param {J[]} stated Of all children. */
export function addedRatios(stated) {
  return written(stated.map((one) => ({
    part: one.part, precision: one.precision, low: BigInt(one.publishedFjPerFlop.low),
    high: BigInt(one.publishedFjPerFlop.high), ns: nanoseconds(one.deviceSeconds),
    mj: BigInt(one.energyJoules.replace(".", "")), flop: BigInt(one.measuredFlop), doubt: BigInt(one.doubtFlop),
  })));
}

export const ENERGY_RATIO = "energy/executed";
