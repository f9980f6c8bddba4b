// Rows of evidence `operator_count`: what training processes counted of the operators that they ran on a device.
import { byClaims } from "./claims.js";
import { counted } from "./sessions.js";
import { plus, total, zero } from "./figures.js";
import { withZero } from "./rows.js";
import { PHASES } from "./names.js";

/** @typedef {import("./figures.js").Figures} Figures */
/** @typedef {import("./history.js").History} History */
/** @typedef {import("./history.js").Session} Session */
/** @typedef {import("./statement.js").Account} Account */
/** `settings`: the phase that the settings declare for all of the device's time, or `undeclared`.
 * @typedef {{uuid: string, phase: string, settings: string, flop: Figures,
 *   claimed: Figures}} Counted By what processes claim it adds `claimed` */

export const OPERATOR_COUNT = "operator_count";
const _ORDER = ["train", "evaluate", "generate", "other"];

/** @param {bigint} a @param {bigint} b */
const lesser = (a, b) => (a < b ? a : b);
/** @param {bigint} a @param {bigint} b */
const beyond = (a, b) => (a > b ? a - b : 0n);

/** Sessions whose count of operators is in use. @param {History} history */
export function countingSessions(history) {
  return [...history.sessions.values()].filter((one) => one.refused === null);
}

/** @param {Session[]} sessions @param {string} phase */
export function leavesOut(sessions, phase) {
  return sessions.some(({ facts }) => [facts.not_counted, facts.operators_not_counted].some((one) => one && phase in one));
}

/** @param {Account[]} own Of one device. @param {string} phase */
function figuresOf(own, phase) {
  const parts = own.flatMap(({ of }) => of.parts.filter((part) => part.phase === phase));
  return withZero(total(parts.map((part) => part.flop)), parts.some((part) => part.read));
}

/** What sessions count by phase. @param {Session[]} sessions */
function countsOf(sessions) {
  return new Map(PHASES.map((phase) => [phase, sessions.reduce((sum, one) => sum + counted(one, "operator_flop", [phase]), 0n)]));
}

/** @param {Account[]} own */
const figuresOfAll = (own) => own.map(({ of }) => of.flop).reduce(plus, zero());

/** What the counts `c` add by phase to `low` and `measured` of what was read.
 * @param {Map<string, bigint>} c @param {Figures} whole @param {Map<string, Figures>} read @param {import("./rows.js").Row[]} rows */
function added(c, whole, read, rows) {
  const open = rows.filter((row) => row.evidence === "gap" || row.evidence === "utilization")
    .reduce((/** @type {bigint | null} */ sum, row) => (sum === null || row.flop.high === null ? null : sum + row.flop.high), 0n);
  const all = [...c.values()].reduce((a, b) => a + b, 0n);
  const room = (/** @type {bigint} */ known) => (open === null ? beyond(all, known) : lesser(open, beyond(all, known)));
  let left = room(whole.low), leftMeasured = room(whole.measured ?? 0n);
  /** @type {Map<string, bigint[]>} */
  const found = new Map();
  for (const phase of _ORDER) {
    const figures = read.get(phase) ?? zero(), count = /** @type {bigint} */ (c.get(phase));
    const low = lesser(beyond(count, figures.low), left);
    const measured = lesser(beyond(count, figures.measured ?? 0n), leftMeasured);
    left -= low;
    leftMeasured -= measured;
    found.set(phase, [low, measured]);
  }
  return found;
}

/** @param {Account[]} own @param {Session[]} sessions @returns {Counted[] | null} null: more was counted than can be. */
function rowsOf(own, sessions) {
  const { uuid } = own[0].device.record;
  const c = countsOf(sessions), whole = figuresOfAll(own);
  const all = [...c.values()].reduce((a, b) => a + b, 0n);
  if (whole.high !== null && all > whole.high) return null;
  const phases = new Set(own.map(({ device }) => device.incarnation.begin.declared.phase ?? "undeclared"));
  const settings = phases.size === 1 ? [...phases][0] : "undeclared";
  const read = new Map(_ORDER.map((phase) => [phase, figuresOf(own, phase)])), byClaim = byClaims(own, "claimed");
  const more = added(c, whole, read, own.flatMap(({ of }) => of.parts.flatMap((part) => part.rows)));
  const claimed = added(c, total(byClaim.values()), byClaim, own.flatMap(({ of }) => of.parts.flatMap((part) => part.claimedRows)));
  /** @type {Counted[]} */
  const rows = [];
  for (const phase of _ORDER) {
    const [low, measured] = /** @type {bigint[]} */ (more.get(phase));
    if (!low && !measured) continue;
    const [claimedLow, point] = /** @type {bigint[]} */ (claimed.get(phase)), known = byClaim.get(phase) ?? zero();
    const least = beyond(known.low + claimedLow, known.measured ?? 0n);
    const fits = phase === "evaluate" || known.high === null || /** @type {bigint} */ (c.get(phase)) <= known.high;
    rows.push({
      uuid, phase, settings, flop: { low, measured, high: 0n },
      claimed: { low: claimedLow, measured: point > least ? point : least, high: fits ? 0n : (byClaim.get("evaluate") ?? zero()).high },
    });
  }
  return rows;
}

/** @param {History} history @param {Account[]} accounts */
export function operatorRows(history, accounts) {
  /** @type {Map<string, Account[]>} */
  const devices = new Map();
  for (const one of accounts) {
    const { uuid } = one.device.record;
    devices.set(uuid, [...(devices.get(uuid) ?? []), one]);
  }
  const sessions = countingSessions(history);
  /** @type {Counted[]} */
  const rows = [];
  /** @type {Map<string, bigint>} */
  const exceeding = new Map();
  /** Figures and counts of the devices that have both. @type {{figures: Figures, count: bigint}} */
  const beside = { figures: zero(), count: 0n };
  for (const [uuid, own] of devices) {
    const counting = sessions.filter(({ facts }) => facts.device === uuid);
    const found = rowsOf(own, counting), figures = figuresOfAll(own);
    if (found === null) exceeding.set(uuid, /** @type {bigint} */ (figures.high));
    else rows.push(...found);
    const count = [...countsOf(counting).values()].reduce((a, b) => a + b, 0n);
    if (!count || figures.measured === null) continue;
    beside.figures = plus(beside.figures, figures);
    beside.count += count;
  }
  return { rows, exceeding, beside };
}
