// `coverage` of a statement: time, and the gaps in it.
import { byText, object } from "./basics.js";
import { MILLION, seconds } from "./figures.js";
import { ELSEWHERE, WITHOUT_CEILING, elsewhereOf, sumOf, under, unknownOf } from "./tallies.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./history.js").Gap} Gap */
const _MOST = 1000;

/** @param {bigint} job @param {bigint} unknown */
export function coveragePpm(job, unknown) {
  return job > 0n ? String(((job - unknown) * MILLION) / job) : null;
}

/** @param {Gap} gap @param {import("./peaks.js").Peaks} peaks */
function entry(gap, peaks) {
  const { device, reason, begin, end } = gap;
  const from = device.incarnation.begin.ns;
  const ceiling = ELSEWHERE.includes(reason) ? 0n
    : WITHOUT_CEILING.includes(reason) ? null : peaks.rating(device.known, null).ceiling("flop", end - begin);
  return {
    device: device.record.uuid, incarnation: device.incarnation.begin.incarnation, reason,
    beginSeconds: seconds(begin - from), endSeconds: seconds(end - from), seconds: seconds(end - begin),
    ceiling: ceiling === null ? null : String(ceiling),
  };
}

/** @param {Gap[]} gaps @param {import("./peaks.js").Peaks} peaks */
function listed(gaps, peaks) {
  const longest = gaps.map((gap, i) => ({ gap, i, length: gap.end - gap.begin }))
    .sort((a, b) => (a.length === b.length ? a.i - b.i : a.length > b.length ? -1 : 1)).slice(0, _MOST);
  const order = (/** @type {typeof longest[0]} */ a, /** @type {typeof longest[0]} */ b) => {
    const x = a.gap, y = b.gap;
    const [m, n] = [x.device.incarnation.begin.incarnation, y.device.incarnation.begin.incarnation];
    if (m !== n) return m < n ? -1 : 1;
    if (x.begin !== y.begin) return x.begin < y.begin ? -1 : 1;
    return byText(x.device.record.uuid, y.device.record.uuid) || a.i - b.i;
  };
  return longest.sort(order).map(({ gap }) => entry(gap, peaks));
}

/** @param {import("./history.js").History} history @param {import("./statement.js").Account[]} accounts
 * @param {import("./peaks.js").Peaks} peaks */
export function coverage(history, accounts, peaks) {
  let observed = 0n, gap = 0n, recovered = 0n, span = 0n, elsewhere = 0n, unknown = 0n;
  /** @type {Map<string, bigint>} */
  const reasons = new Map();
  for (const { device } of accounts) {
    const { last } = device;
    observed += sumOf(last, "observed_ns/");
    gap += sumOf(last, "gap_ns/");
    recovered += sumOf(last, "recovered_ns/");
    span += last.to - device.first;
    elsewhere += elsewhereOf(last);
    unknown += unknownOf(last);
    for (const [reason, ns] of under(last, "gap_ns")) reasons.set(reason, (reasons.get(reason) ?? 0n) + ns);
  }
  const byReason = object();
  for (const [reason, ns] of reasons) if (ns) byReason[reason] = seconds(ns);
  return {
    observedSeconds: seconds(observed), gapSeconds: seconds(gap), recoveredSeconds: seconds(recovered),
    spanSeconds: seconds(span), coveragePpm: coveragePpm(span - elsewhere, unknown), gapSecondsByReason: byReason,
    gaps: listed(history.gaps, peaks), gapsNotListed: String(Math.max(0, history.gaps.length - _MOST)),
  };
}
