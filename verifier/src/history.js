// A run, from its journal: incarnations, devices with their last tallies, gaps, processes, seals.
import { Refusal, isAmount, isInteger, isText, quoted, require } from "./basics.js";
import { sortedFacts } from "./facts.js";
import { Laws, leftOpen } from "./laws.js";
import { checkKind, checkMembers } from "./records.js";
import { isTime, microseconds } from "./times.js";
import { REASONS, talliesOfColumns, tallyOfDevice } from "./tallies.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./tallies.js").Tally} Tally */
/** @typedef {{record: J, first: bigint, last: Tally, incarnation: Incarnation, known: J,
 *   journalled?: Tally, lastGap?: bigint}} Device
 *   `known`: what it is, as learned at last; `journalled`: its last tally, without the time behind the last record */
/** @typedef {{device: Device, reason: string, begin: bigint, end: bigint}} Gap */
/** `unendedSince`: when the first of those right before it began that are of its boot and have no end.
 * @typedef {{unendedSince: bigint, begin: J, sources: Map<string, J>, devices: Device[], checkpoints: bigint, last: J, end: J | null}}
 *   Incarnation `last`: its last checkpoint or end, else its begin */
/** @typedef {{process: J, facts: J, work: Map<string, bigint>, refused: J | null}} Session `refused`: why its count of
 *   operators is used no more */
const _LOOK_BACK = 63;
const _MOST_POINTS = 256;

export class History {
  constructor() {
    this.laws = new Laws();
    /** @type {Incarnation[]} */
    this.incarnations = [];
    /** @type {Gap[]} */
    this.gaps = [];
    /** @type {Map<string, Session>} */
    this.sessions = new Map();
    /** @type {J[]} */
    this.seals = [];
    /** By the end of each record, the chain's hash there. @type {Map<bigint, string>} */
    this.heads = new Map();
    /** @type {{utc: string, tallies: {device: Device, tally: Tally}[]}[]} */
    this.points = [];
    this.checkpoints = 0;
    this.stride = 1;
    this.records = 0n;
    /** @type {J | null} */
    this.lastRecord = null;
  }

  get first() {
    return this.incarnations[0].begin;
  }

  get latest() {
    return this.incarnations[this.incarnations.length - 1];
  }

  /** The base models that the settings declare, each once. @returns {J[]} */
  get bases() {
    const said = this.incarnations.map(({ begin }) => begin.declared.base).filter((base) => base !== null);
    const text = (/** @type {J} */ { name, kind, flop, method, systemic, reason }) =>
      JSON.stringify([name, kind, flop, method, systemic, reason ?? null]);
    return [...new Map(said.map((base) => [text(base), base])).values()];
  }

  /** What the settings declare: the last `begin`, but no recomputation that not all of them have, no method if another
   * has another one, or pretraining and different base models; and the only base model that any of them has. */
  get settings() {
    const each = this.incarnations.map((one) => one.begin.declared), { bases, latest: { begin: { declared: last } } } = this;
    const isKnown = each.every(({ method }) => method === null || method === last.method)
      && !(last.method === "pretraining" && bases.length > 1);
    const isAlike = each.every(({ recomputation }) => recomputation === last.recomputation);
    return {
      ...last, recomputation: isAlike ? last.recomputation : null, method: isKnown ? last.method : null,
      base: bases.length === 1 ? bases[0] : null,
    };
  }

  /** @returns {Device[]} */
  get devices() {
    return this.incarnations.flatMap((one) => one.devices);
  }

  /** @param {import("./journal.js").Line} line @param {J} record */
  add({ number, end, head }, record) {
    const where = `line ${number}`;
    checkKind(record, where);
    this.laws.order(record, this.incarnations, this.lastRecord, where);
    checkMembers(record, where);
    this.records++;
    if (record.kind === "begin") this.begin(record);
    else if (record.kind === "source") this.latest.sources.set(record.name, record.facts);
    else if (record.kind === "device") this.device(record, where);
    else if (record.kind === "evidence") this.evidence(record, where);
    else if (record.kind === "declaration") this.declared(record.sessions, "facts", where);
    else if (record.kind === "checkpoint") this.checkpoint(record, where);
    else if (record.kind === "sealed") {
      const seals = this.heads.get(record.bytes);
      require(seals === record.head_sha256, "law_15", `journal ${where} lists a seal of another journal`, where);
      this.seals.push(record);
    } else {
      this.laws.time(record, this.latest, where);
      this.latest.last = this.latest.end = record;
    }
    this.heads.set(BigInt(end), head);
    this.lastRecord = record;
  }

  /** @param {J} record */
  begin(record) {
    const declared = record.declared ?? { phase: null, method: null, recomputation: null, base: null };
    const before = this.incarnations.at(-1);
    const goesOn = before !== undefined && before.end === null && before.begin.boot_id === record.boot_id;
    const unendedSince = goesOn ? before.unendedSince : record.ns;
    this.incarnations.push({ unendedSince, begin: { ...record, declared }, sources: new Map(), devices: [], checkpoints: 0n, last: record, end: null });
  }

  /** @param {J} record @param {string} where */
  device(record, where) {
    const now = this.latest;
    const tally = tallyOfDevice(record, where);
    const device = { record, first: tally.to, last: tally, incarnation: now, known: record };
    this.laws.device(device, now, this.incarnations, where);
    now.devices.push(device);
  }

  /** @param {J} record @param {string} where */
  evidence(record, where) {
    const device = this.latest.devices[Number(record.number)];
    require(device, "record_malformed", `journal ${where}: not a record of flopsd-journal/1: ${record.number} is missing or not known`, where);
    this.laws.time(record, this.latest, where);
    const { source, evidence, evidence_reason, evidence_fix, shared_with } = record;
    device.known = { ...device.known, source, evidence, evidence_reason, evidence_fix, shared_with };
    if (!("identity" in record)) return;
    const named = device.known.peak_row === null;
    require(named, "record_malformed", `journal ${where}: a device with a peak_row must not be identified again`, where);
    device.known = { ...device.known, ...record.identity };
  }

  /** @param {J[]} sessions @param {"facts" | "work"} what @param {string} where */
  declared(sessions, what, where) {
    for (const one of sessions) {
      const process = { pid: one.pid, uid: one.uid, client: one.client };
      const held = this.sessions.get(one.id) ?? { process, facts: {}, work: new Map(), refused: null };
      this.laws.session(held, one, process, what, where);
      if ("before" in one) this.laws.work(new Map(), one.before, where);
      if (what === "facts") {
        held.facts = sortedFacts(one.facts);
        held.refused = one.refused ?? held.refused;
      } else held.work = this.laws.work(held.work, one.work, where);
      this.sessions.set(one.id, held);
    }
  }

  /** @param {J} record @param {string} where */
  checkpoint(record, where) {
    const now = this.latest;
    let before = -1n;
    for (const number of record.devices) {
      require(number > before, "law_3", `journal ${where}: the devices of a checkpoint are not in order`, where);
      before = number;
    }
    for (const number of record.devices) {
      require(now.devices[Number(number)], "record_malformed", `journal ${where}: not a record of flopsd-journal/1: ${number} is missing or not known`, where);
    }
    const tallies = talliesOfColumns(record.tallies, record.devices.length, where);
    const devices = record.devices.map((/** @type {bigint} */ number) => now.devices[Number(number)]);
    for (const gap of record.gaps) this.checkGap(gap, where);
    for (const [i, device] of devices.entries()) this.laws.tally(device, tallies[i], where);
    const listed = this.listed(record, tallies, where);
    for (const [i, device] of devices.entries()) {
      this.laws.gaps(device, tallies[i], listed.get(device.record.number) ?? new Map(), where);
      listed.delete(device.record.number);
      device.last = tallies[i];
    }
    require(!listed.size, "law_6", `journal ${where}: the listed gaps do not add up to the gap totals`, where);
    if (record.sessions !== undefined) this.declared(record.sessions, "work", where);
    this.laws.time(record, now, where);
    for (const { last } of now.devices) this.laws.lead(last, record, where);
    now.checkpoints++;
    now.last = record;
    this.point(record);
  }

  /** Kept for the curve over time: so few that a journal of any length takes little memory. @param {J} record */
  point(record) {
    if (this.checkpoints++ % this.stride) return;
    const ended = this.incarnations.slice(0, -1).flatMap((one) => one.devices);
    const tallies = [...ended, ...this.latest.devices].map((device) => ({ device, tally: device.last }));
    this.points.push({ utc: record.utc, tallies });
    if (this.points.length < _MOST_POINTS) return;
    this.points = this.points.filter((_, i) => i % 2 === 0);
    this.stride *= 2;
  }

  /** @param {J} gap @param {string} where */
  checkGap(gap, where) {
    const odd = `journal ${where}: not a record of flopsd-journal/1: `;
    const whole = Array.isArray(gap) && gap.length === 4 && isAmount(gap[0]) && isInteger(gap[1]) && isInteger(gap[2]);
    require(whole && isText(gap[3]), "record_malformed", `${odd}a gap has a device, a begin, an end and a reason`, where);
    require(REASONS.includes(gap[3]), "record_malformed", `${odd}${quoted(gap[3])} is not known`, where);
    require(this.latest.devices[Number(gap[0])], "record_malformed", `${odd}${gap[0]} is missing or not known`, where);
  }

  /** The gaps of a checkpoint: kept as intervals, and added up by device and reason. Each lies within its device's time,
   * behind the one before it.
   * @param {J} record @param {Tally[]} tallies @param {string} where @returns {Map<bigint, Map<string, bigint>>} */
  listed(record, tallies, where) {
    /** @type {Map<bigint, Map<string, bigint>>} */
    const sums = new Map();
    for (const [number, begin, end, reason] of record.gaps) {
      const device = this.latest.devices[Number(number)];
      const to = (tallies[record.devices.indexOf(number)] ?? device.last).to;
      const within = begin >= (device.lastGap ?? device.first) && end <= to;
      require(within, "law_6", `journal ${where}: a gap of device ${device.record.uuid} overlaps another one or lies outside the device's time`, where);
      const backwards = `journal ${where}: a gap is empty or ends before it begins`;
      require(end > begin, "law_6", backwards, where);
      device.lastGap = end;
      const held = sums.get(number) ?? new Map();
      held.set(reason, (held.get(reason) ?? 0n) + end - begin);
      sums.set(number, held);
      this.gap({ device, reason, begin, end });
    }
    return sums;
  }

  /** @param {Gap} gap */
  gap(gap) {
    const least = Math.max(0, this.gaps.length - _LOOK_BACK);
    for (let i = this.gaps.length - 1; i >= least; i--) {
      const last = this.gaps[i];
      if (last.device !== gap.device) continue;
      if (last.reason !== gap.reason || last.end !== gap.begin) break;
      last.end = gap.end;
      return;
    }
    this.gaps.push({ ...gap });
  }

  /** When each daemon ran, on the wall clock, up to its last record with a time. */
  periods() {
    return this.incarnations.map(({ begin, last }) => ({ begin: begin.wall_ns, end: begin.wall_ns + last.ns - begin.ns }));
  }

  /** The laws over the whole journal, and the time behind its last record.
   * @param {string} sealedAt @param {import("./peaks.js").Peaks} peaks */
  finish(sealedAt, peaks) {
    this.laws.finish(this, peaks);
    const open = new Set([...leftOpen(this), ...(this.latest.end === null ? this.latest.devices : [])]);
    for (const device of this.devices.filter((one) => open.has(one))) {
      const { last, incarnation } = device;
      const age = (microseconds(sealedAt) - microseconds(incarnation.last.utc)) * 1000n;
      const length = age > 1000n ? age : 1000n;
      const known = age >= 0n && age <= 2n * incarnation.begin.checkpoint_ns;
      const reason = known ? "not_journalled" : "end_unknown";
      const amounts = new Map(last.amounts);
      amounts.set(`gap_ns/${reason}`, (amounts.get(`gap_ns/${reason}`) ?? 0n) + length);
      device.journalled = last;
      device.last = { ...last, amounts, to: last.to + length };
      this.gaps.push({ device, reason, begin: last.to, end: last.to + length });
    }
  }
}
