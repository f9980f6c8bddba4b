// The laws of a journal: no daemon writes one that breaks one of them.
import { Refusal, isAmount, isObject, quoted, require } from "./basics.js";
import { strangeFact } from "./facts.js";
import { KERNELS, PHASES, SEEN, WORK } from "./names.js";
import { isRefused } from "./records.js";
import { isTime, microseconds } from "./times.js";
import { elsewhereOf, sumOf, under } from "./tallies.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./tallies.js").Tally} Tally */
/** @typedef {import("./tallies.js").Share} Share */
/** @typedef {import("./history.js").Incarnation} Incarnation */
/** @typedef {import("./history.js").Device} Device */

const _SECOND = 1000000000n;

export class Laws {
  /** Law 1. @param {J} record @param {Incarnation[]} incarnations @param {J | null} last @param {string} where */
  order(record, incarnations, last, where) {
    const now = incarnations[incarnations.length - 1];
    if (record.kind === "begin") {
      const next = BigInt(incarnations.length + 1);
      require(record.incarnation === next, "law_1", `journal ${where}: incarnation ${record.incarnation}, expected ${next}`, where);
      require(!now || !("continues" in record), "law_1", `journal ${where}: only the first 'begin' of a journal may have 'continues'`, where);
      for (const name of ["run", "node", "peak_table_sha256"]) {
        const same = !now || record[name] === incarnations[0].begin[name];
        require(same, "law_1", `journal ${where}: ${name} is ${quoted(record[name])}, not ${quoted(incarnations[0]?.begin[name])}`, where);
      }
      const rotated = now?.end?.reason === "rotated";
      require(!rotated, "law_1", `journal ${where}: a 'begin' record after the journal was rotated: the run continues in another journal`, where);
      return;
    }
    require(now, "law_1", `journal ${where}: the first record is not a 'begin'`, where);
    const own = record.incarnation === now.begin.incarnation;
    require(own, "law_1", `journal ${where}: record of incarnation ${record.incarnation} within incarnation ${now.begin.incarnation}`, where);
    const late = `journal ${where}: a '${record.kind}' record after the incarnation's end`;
    require(last?.kind !== "end", "law_1", late, where);
    const sessions = Array.isArray(record.sessions) ? record.sessions : [];
    const has = sessions.some((/** @type {any} */ one) => isObject(one) && "before" in one);
    const may = !has || "continues" in incarnations[0].begin;
    require(may, "law_1", `journal ${where}: a session has counters of an earlier segment, but there is none`, where);
  }

  /** Law 13. @param {J} record @param {Incarnation} now @param {string} where */
  time(record, now, where) {
    const backwards = `journal ${where}: time runs backwards: the record is ${now.last.ns - record.ns} ns before the previous one`;
    require(record.ns >= now.last.ns, "law_13", backwards, where);
  }

  /** Laws 3 and 12.
   * @param {Device} device @param {Incarnation} now @param {Incarnation[]} all @param {string} where */
  device(device, now, all, where) {
    const { record, last } = device, disorder = `journal ${where}: device numbered out of order or named twice`;
    require(record.number === BigInt(now.devices.length), "law_3", disorder, where);
    const twice = now.devices.some((one) => one.record.uuid === record.uuid);
    require(!twice, "law_3", disorder, where);
    const counts = last.amounts.size || last.shares.size;
    require(!counts, "law_12", `journal ${where}: a device has counts before its first reading`, where);
    const metered = all.some((one) => one !== now && one.devices.some((other) => other.record.uuid === record.uuid));
    const may = last.to >= now.unendedSince || metered || "continues" in all[0].begin;
    require(may, "law_12", `journal ${where}: a device's account begins before the first daemon start`, where);
  }

  /** Law 13. @param {Tally} tally @param {J} record @param {string} where */
  lead(tally, record, where) {
    const ahead = `journal ${where}: a device's account ends after the time of its record`;
    require(tally.to <= record.ns + _SECOND, "law_13", ahead, where);
  }

  /** Laws 4, 5 and 9 for one tally of a checkpoint. @param {Device} device @param {Tally} next @param {string} where */
  tally(device, next, where) {
    const { last, first } = device;
    const stands = grows(last, next, where);
    for (const [name, share] of last.shares) {
      const later = next.shares.get(name);
      if (!later) throw new Refusal("law_4", `journal ${where}: phase ${name} of a device is missing since this record`, where);
      grows(share, later, where);
    }
    require(!stands || alike(last, next), "law_4", `journal ${where}: a tally changed, but its time did not grow`, where);
    adds(next, next.to - first, where);
    shares(next, next.to - first, where);
  }

  /** Law 6: what is listed is what the totals grew by.
   * @param {Device} device @param {Tally} next @param {Map<string, bigint>} listed @param {string} where */
  gaps({ last }, next, listed, where) {
    for (const [path, value] of under(next, "gap_ns")) {
      const grown = value - (last.amounts.get(`gap_ns/${path}`) ?? 0n);
      const wrong = `journal ${where}: the listed gaps do not add up to the gap totals`;
      require(grown === (listed.get(path) ?? 0n), "law_6", wrong, where);
      listed.delete(path);
    }
    require(!listed.size, "law_6", `journal ${where}: the listed gaps do not add up to the gap totals`, where);
  }

  /** Law 8. @param {Device} device @param {import("./peaks.js").Peaks} peaks */
  limits(device, peaks) {
    const tally = device.last, rating = peaks.rating(device.known, null);
    const span = tally.to - device.first;
    const { sms, mhz, perSecond } = rating;
    for (const [path, cycles] of under(tally, "sm_cycles")) {
      if (sms === null || mhz === null) break;
      const evidence = path.split("/")[0];
      const time = (tally.amounts.get(`observed_ns/${evidence}`) ?? 0n) + (tally.amounts.get(`recovered_ns/${evidence}`) ?? 0n);
      const possible = rating.cyclesIn(time + (evidence === "cycles" ? 200000000n : 0n));
      const most = possible + (possible * 10000n) / 1000000n + 1n + span / 1000000n;
      const why = `device ${device.record.uuid}: pipe ${path.split("/")[1]} was active for ${cycles} cycles, of ${most} possible`;
      require(cycles <= most, "law_8", why);
    }
    const counted = tally.amounts.get("counted_flop");
    if (counted === undefined) return;
    const time = span - elsewhereOf(tally) + 60n * _SECOND;
    let most = null;
    if (perSecond !== null) {
      const whole = rating.integersPerSecond !== null && rating.integersPerSecond > perSecond;
      most = (time * (whole ? /** @type {bigint} */ (rating.integersPerSecond) : perSecond)) / _SECOND;
    } else if (sms !== null && mhz !== null) {
      const plain = peaks.rating({ ...device.known, precision: null }, null);
      const flop = plain.ceilingRate("flop"), integers = plain.ceilingRate("integer");
      if (flop !== null && integers !== null) most = rating.cyclesIn(time) * (flop + integers);
    }
    const why = `device ${device.record.uuid}: ${counted} FLOP were counted, of ${most} possible`;
    require(most === null || counted <= most, "law_8", why);
  }

  /** Law 10. @param {{process: J, facts: J}} held @param {J} one @param {J} process @param {string} what @param {string} where */
  session(held, one, process, what, where) {
    const odd = `journal ${where}: session '${one.id}' has unreadable declarations or counters: `;
    const same = ["pid", "uid", "client"].every((name) => held.process[name] === process[name]);
    require(same, "law_10", `journal ${where}: session '${one.id}' belongs to two processes`, where);
    const refused = !("refused" in one) || isRefused(one.refused);
    require(refused, "law_10", `${odd}refused is malformed`, where);
    if (what !== "facts") return;
    require(isObject(one.facts), "law_10", `${odd}facts is malformed`, where);
    const strange = strangeFact(one.facts);
    require(strange === undefined, "law_10", `${odd}${strange} is malformed or not known`, where);
    const moved = held.facts.device !== undefined && one.facts.device !== held.facts.device;
    require(!moved, "law_10", `journal ${where}: session '${one.id}' changes its device`, where);
  }

  /** Law 10. @param {Map<string, bigint>} held @param {J} work @param {string} where @returns {Map<string, bigint>} */
  work(held, work, where) {
    const found = new Map(held);
    for (const phase of Object.keys(work)) {
      const known = PHASES.includes(phase) && isObject(work[phase]);
      require(known, "law_10", `journal ${where}: '${phase}' is not a phase`, where);
      for (const name of Object.keys(work[phase])) {
        require(WORK.includes(name) || SEEN.includes(name), "law_10", `journal ${where}: '${name}' is not a counter of a session`, where);
        require(isAmount(work[phase][name]) && work[phase][name] <= 10n ** 30n, "law_10", `journal ${where}: ${name} is not a count`, where);
        found.set(`${phase}/${name}`, work[phase][name]);
      }
    }
    for (const [path, value] of held) {
      require((found.get(path) ?? 0n) >= value, "law_10", `journal ${where}: ${path} fell since the record before`, where);
    }
    for (const phase of Object.keys(work)) this.windows((name) => found.get(`${phase}/${name}`) ?? 0n, where);
    return found;
  }

  /** Law 10 of kernels in windows. @param {(name: string) => bigint} of @param {string} where */
  windows(of, where) {
    const whole = of("kernel_window_ns"), seen = KERNELS.filter((kind) => of(`kernel_ns_${kind}`) > 0n);
    const sum = seen.reduce((known, kind) => known + of(`kernel_ns_${kind}`), 0n);
    const possible = sum <= 128n * whole && (whole === 0n || of("kernel_windows") > 0n)
      && seen.every((kind) => of(`kernel_launches_${kind}`) > 0n);
    require(possible, "law_10", `journal ${where}: a session reports more kernels than a device can run`, where);
  }

  /** Laws 7, 8, 11 and 16, over all incarnations.
   * @param {import("./history.js").History} history @param {import("./peaks.js").Peaks} peaks */
  finish(history, peaks) {
    /** @type {Map<string, Device[]>} */
    const devices = new Map();
    for (const device of history.devices) {
      const { uuid } = device.record;
      devices.set(uuid, [...(devices.get(uuid) ?? []), device]);
    }
    for (const [uuid, all] of devices) overlap(uuid, all);
    for (const device of history.devices) {
      peaks.row(device.known.peak_row);
      require(peaks.isOfItsRow(device.known), "peak_row_other", `the journal rates ${device.record.uuid} by row ${quoted(device.known.peak_row)}, which in the peak table does not match its name ${quoted(device.known.model)} and PCI id`);
      this.limits(device, peaks);
    }
    for (const [uuid, all] of devices) {
      const sum = (/** @type {(tally: Tally) => bigint} */ of) => all.reduce((total, one) => total + of(one.last), 0n);
      const recovered = sum((tally) => sumOf(tally, "recovered_ns/"));
      require(recovered <= sum((tally) => sumOf(tally, "gap_ns/")), "law_11", `device ${uuid}: more gap time was recovered than its gaps have`);
      const job = all.reduce((total, one) => total + one.last.to - one.first - elsewhereOf(one.last), 0n);
      const energy = sum((tally) => tally.amounts.get("energy_ns") ?? 0n);
      require(energy <= job, "law_11", `device ${uuid}: energy covers more time than the device's job time`);
    }
    leftOpen(history, (uuid, begin) => {
      throw new Refusal("law_16", `${uuid} is not accounted for all of the time up to the end or the begin of start ${begin}`);
    });
  }
}

const _TAKEN_OVER = ["metered_as_mig", "replaced"];

/** The devices that a killed start left open and none took up. Law 16: no time is left out, or `leftOut` is called.
 * @param {import("./history.js").History} history @param {(uuid: string, start: bigint) => void} [leftOut]
 * @returns {Device[]} */
export function leftOpen(history, leftOut = () => {}) {
  /** @type {Map<Device, import("./history.js").Gap>} */
  const gaps = new Map(history.gaps.map((gap) => [gap.device, gap]));
  /** @type {Map<string, Device>} */
  const open = new Map();
  /** @type {Map<string, string>} */
  const boots = new Map();
  for (const { begin, end, devices, checkpoints } of history.incarnations) {
    for (const device of devices) {
      const { uuid } = device.record, gap = gaps.get(device), before = open.get(uuid), { to } = device.last;
      const goesOn = before ? goesOnAt(before, begin) : null;
      if (goesOn !== null && device.first > goesOn) leftOut(uuid, begin.incarnation);
      open.delete(uuid);
      const moved = (boots.get(uuid) ?? begin.boot_id) !== begin.boot_id;
      const retired = checkpoints > 0n && moved && to <= begin.ns;
      boots.set(uuid, begin.boot_id);
      if (end !== null) {
        if (end.reason !== "rotated" && !retired && to < end.ns) leftOut(uuid, begin.incarnation);
      } else if (!retired && !(gap && _TAKEN_OVER.includes(gap.reason) && gap.end === to)) open.set(uuid, device);
    }
  }
  return [...open.values()];
}

/** Where the account of a device goes on, on the clock of another start; null: no record has the time.
 * @param {Device} before @param {J} begin @returns {bigint | null} */
function goesOnAt({ incarnation, last }, begin) {
  if (incarnation.begin.boot_id === begin.boot_id) return last.to;
  if (!isTime(incarnation.last.utc)) return null;
  const passed = begin.wall_ns - microseconds(incarnation.last.utc) * 1000n;
  return passed < 0n ? 0n : begin.ns - passed - (incarnation.last.ns - last.to);
}

/** Law 7. @param {string} uuid @param {Device[]} tracked */
function overlap(uuid, tracked) {
  const all = tracked.filter((one) => one.first < one.last.to);
  all.forEach((one, i) => {
    for (const other of all.slice(i + 1)) {
      if (one.incarnation.begin.boot_id !== other.incarnation.begin.boot_id) continue;
      const none = one.first === one.last.to || other.first === other.last.to;
      const apart = none || one.last.to <= other.first || other.last.to <= one.first;
      require(apart, "law_7", `device ${uuid} is counted twice at the same time`);
    }
  });
}

/** Law 4. @param {Share} last @param {Share} next @param {string} where @returns {boolean} Whether no time passed. */
function grows(last, next, where) {
  require(next.to >= last.to, "law_4", `journal ${where}: to_ns fell since the record before`, where);
  for (const [path, value] of last.amounts) {
    const now = next.amounts.get(path) ?? 0n;
    require(now >= value, "law_4", `journal ${where}: ${path} fell since the record before`, where);
  }
  const gone = last.amounts.has("energy_mj") && !next.amounts.has("energy_mj");
  require(!gone, "law_4", `journal ${where}: energy_mj is gone since the record before`, where);
  if (next.to !== last.to || sumOf(next, "recovered_ns/") !== sumOf(last, "recovered_ns/")) return false;
  require(isSame(last.amounts, next.amounts), "law_4", `journal ${where}: a tally grew, but its time did not`, where);
  return true;
}

/** @param {Map<string, bigint>} one @param {Map<string, bigint>} other */
function isSame(one, other) {
  return one.size === other.size && [...one].every(([name, value]) => other.get(name) === value);
}

/** What two tallies have beside their amounts. @param {Tally} one @param {Tally} other */
function alike(one, other) {
  const none = new Map();
  return isSame(one.counters, other.counters) && energyAt(one) === energyAt(other) && one.running?.origin === other.running?.origin
    && isSame(one.running?.values ?? none, other.running?.values ?? none) && one.shares.size === other.shares.size;
}

/** @param {Tally} tally */
function energyAt({ counters, energyAt: at, to }) {
  return counters.has("energy_mj") ? at ?? to : null;
}

/** Law 9. @param {Tally} tally @param {bigint} span @param {string} where */
function shares(tally, span, where) {
  let left = span;
  /** @type {Map<string, bigint>} */
  const sums = new Map();
  for (const share of tally.shares.values()) {
    left -= share.to;
    for (const [path, value] of share.amounts) sums.set(path, (sums.get(path) ?? 0n) + value);
  }
  const much = `journal ${where}: the phases of a device exceed its totals`;
  require(left >= 0n, "law_9", much, where);
  for (const [path, value] of sums) require(value <= (tally.amounts.get(path) ?? 0n), "law_9", much, where);
  for (const share of tally.shares.values()) adds(share, share.to, where);
}

/** Law 5. @param {Share} tally @param {bigint} span @param {string} where */
function adds(tally, span, where) {
  const sum = sumOf(tally, "observed_ns/") + sumOf(tally, "gap_ns/");
  require(sum === span, "law_5", `journal ${where}: a tally does not add up: observed + gap is not its span`, where);
}
