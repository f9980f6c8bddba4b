// The rows of a tally: what each evidence says of each pipe in each phase.
import { MILLION, ceilDiv, plus, total, zero } from "./figures.js";
import { claimedFormats } from "./peaks.js";
import { ESTIMATING, WITHOUT_CEILING, amountOf, undeclaredOf, under, unknownOf } from "./tallies.js";

/** @typedef {import("./figures.js").Figures} Figures */
/** @typedef {import("./peaks.js").Rating} Rating */
/** @typedef {import("./peaks.js").Kind} Kind */
/** @typedef {import("./tallies.js").Amounts} Amounts */
/** @typedef {import("./history.js").Device} Device */
/** @typedef {{phase: string, evidence: string, pipe: string | null, precision: string, declaredBy: string | null,
 *   smCycles: bigint, ns: bigint, flop: Figures, integer: Figures, clock: bigint, margin: bigint | null,
 *   mayBeInteger: boolean}} Row */
/** @typedef {{name: string, phase: string, rows: Row[], flop: Figures, integer: Figures, read: boolean,
 *   integersDistinguished: boolean, claimedRows: Row[], claimed: Figures, claimedInteger: Figures, unknown: bigint, observed: Map<string, bigint>}} Part
 *   `claimed`: the same by the share's own format, where the settings declare none */

const _NO_FIGURE = { low: 0n, measured: null, high: null };

/** Makes the rows of one part of a tally. `plain` rates low and high, `declared` measured and the precision; `beside`:
 *  whether the tally has counters of single tensor pipes beside `tensor`. */
class Maker {
  /** @param {Amounts} part @param {string} phase @param {Rating} plain @param {Rating} declared @param {string | null} by
   *  @param {boolean} beside */
  constructor(part, phase, plain, declared, by, beside) {
    this.part = part;
    this.phase = phase;
    this.plain = plain;
    this.declared = declared;
    this.by = by;
    this.beside = beside;
    /** @type {Row[]} */
    this.rows = [];
  }

  /** @param {string} evidence */
  time(evidence) {
    return amountOf(this.part, `observed_ns/${evidence}`) + amountOf(this.part, `recovered_ns/${evidence}`);
  }

  /** @param {Partial<Row> & {evidence: string, flop: Figures, integer: Figures, ns: bigint}} row */
  put(row) {
    const pipe = row.pipe ?? null;
    const precision = this.declared.precision(pipe, this.beside);
    const isNamed = this.declared.holding(pipe, this.beside) !== null && (pipe === null || /^tensor(_hmma)?$/.test(pipe));
    this.rows.push({
      phase: this.phase, pipe, precision, declaredBy: isNamed ? this.by : null, smCycles: 0n, clock: 0n, margin: null,
      mayBeInteger: false, ...row,
    });
  }

  /** @param {string} path @param {bigint} cycles */
  pipe(path, cycles) {
    const [evidence, pipe] = path.split("/");
    const ns = this.time(evidence);
    const squares = amountOf(this.part, `square_sum/${path}`);
    const off = amountOf(this.part, `uncertainty_sm_cycles/${path}`) + this.plain.deviation(squares, ns);
    const margin = this.plain.margin(evidence, pipe, this.beside);
    const sure = cycles > off ? cycles - off : 0n;
    /** @param {Kind} kind @returns {Figures} */
    const figures = (kind) => {
      if (this.plain.row === null) return _NO_FIGURE;
      const { low } = this.plain.rates(kind, pipe, this.beside);
      const { measured } = this.declared.rates(kind, pipe, this.beside);
      const bound = this.plain.bound(kind, pipe, this.beside);
      return {
        low: low === null ? 0n : (sure * low * (MILLION - margin)) / MILLION,
        measured: measured === null ? null : cycles * measured,
        high: bound === null ? null : ceilDiv((cycles + off) * bound * (MILLION + margin), MILLION),
      };
    };
    const rate = this.declared.rates("flop", pipe, this.beside).measured ?? 0n;
    const undeclared = pipe === "tensor" && this.plain.holding(pipe, this.beside) === null && !this.plain.noIntegers;
    this.put({
      evidence, pipe, smCycles: cycles, ns, flop: figures("flop"), integer: figures("integer"), clock: off * rate,
      margin: this.plain.row === null ? null : margin,
      mayBeInteger: pipe === "fp32" || undeclared,
    });
  }

  /** @param {string} pipe @param {bigint} ns */
  unread(pipe, ns) {
    /** @param {Kind} kind @returns {Figures} */
    const figures = (kind) => {
      const bound = this.plain.bound(kind, pipe, this.beside);
      const known = bound !== null && this.plain.sms !== null;
      return { low: 0n, measured: null, high: known ? this.plain.cyclesIn(ns) * bound : null };
    };
    this.put({ evidence: "gap", pipe, ns, flop: figures("flop"), integer: figures("integer") });
  }

  count() {
    const c = amountOf(this.part, "counted_flop");
    const margin = this.plain.margin("count", null, false);
    const mayBe = this.declared.countMayBeInteger(), mayBePlain = this.plain.countMayBeInteger();
    const more = ceilDiv(c * (MILLION + margin), MILLION);
    const less = (c * (MILLION - margin)) / MILLION;
    this.put({
      evidence: "count", ns: this.time("count"), margin, mayBeInteger: mayBePlain, precision: "undeclared", declaredBy: null,
      flop: { low: mayBePlain ? 0n : less, measured: c, high: more },
      integer: { low: 0n, measured: mayBe ? null : 0n, high: mayBePlain ? more : 0n },
    });
  }

  busy() {
    const busy = amountOf(this.part, "busy_sm_cycles"), ns = this.time("utilization");
    const most = this.clocked(busy, ns);
    /** @param {Kind} kind @returns {Figures} */
    const figures = (kind) => {
      const rate = this.plain.ceilingRate(kind);
      return { low: 0n, measured: null, high: rate === null ? null : most * rate };
    };
    this.put({ evidence: "utilization", smCycles: busy, ns, flop: figures("flop"), integer: figures("integer") });
  }

  /** Busy cycles at most, where the clock of a part of them was read at random moments. @param {bigint} busy @param {bigint} ns */
  clocked(busy, ns) {
    const sampled = amountOf(this.part, "sampled_busy_sm_cycles");
    if (sampled > busy || this.plain.sms === null) return busy;
    const off = this.plain.deviation(amountOf(this.part, "clocked_square_sum"), ns);
    const clocked = amountOf(this.part, "clocked_sm_cycles") + off;
    return busy - sampled + (sampled < clocked ? sampled : clocked);
  }

  gap() {
    const ns = unknownOf(this.part);
    if (!ns) return;
    const open = WITHOUT_CEILING.some((reason) => amountOf(this.part, `gap_ns/${reason}`));
    /** @param {Kind} kind @returns {Figures} */
    const figures = (kind) => ({ low: 0n, measured: null, high: open ? null : this.plain.ceiling(kind, ns) });
    this.put({ evidence: "gap", ns, flop: figures("flop"), integer: figures("integer") });
  }

  all() {
    for (const [path, cycles] of under(this.part, "sm_cycles")) this.pipe(path, cycles);
    for (const [pipe, ns] of under(this.part, "unread_ns")) if (ns) this.unread(pipe, ns);
    if (amountOf(this.part, "observed_ns/count") || amountOf(this.part, "counted_flop")) this.count();
    if (this.time("utilization")) this.busy();
    this.gap();
    return this.rows;
  }
}

/** @param {Amounts} share */
function wasRead(share) {
  return ESTIMATING.some((evidence) => amountOf(share, `observed_ns/${evidence}`));
}

/** Whether integer operations are distinguished from FLOP, so that none seen means none executed. @param {Amounts} share */
function distinguishesIntegers(share) {
  const read = amountOf(share, "observed_ns/cycles") || amountOf(share, "observed_ns/activity");
  if (!read || amountOf(share, "observed_ns/count") || amountOf(share, "unread_ns/tensor_imma")) return false;
  const pipes = under(share, "sm_cycles").map(([path]) => path.split("/")[1]);
  return !pipes.includes("tensor") || pipes.some((pipe) => pipe.startsWith("tensor_"));
}

/** @param {Figures} figures @param {boolean} read @returns {Figures} */
function withZero(figures, read) {
  return figures.measured === null && read ? { ...figures, measured: 0n } : figures;
}

/** @param {Figures} figures @param {boolean} distinguished @returns {Figures} */
function integersOf(figures, distinguished) {
  return figures.measured ? figures : { ...figures, measured: distinguished ? 0n : null };
}

/** @param {Device} device @param {import("./peaks.js").Peaks} peaks */
export function rated(device, peaks) {
  const tally = device.last;
  const settings = device.known.precision;
  /** @type {[string, Amounts][]} */
  const shares = [...tally.shares, ["undeclared", undeclaredOf(tally)]];
  const beside = under(tally, "sm_cycles").some(([path]) => /\/tensor_/.test(path));
  const parts = shares.map(([name, share]) => {
    const claimed = settings === null ? claimedFormats(name) : null;
    const phase = name.split("@")[0];
    const plain = peaks.rating(device.known, null), declared = peaks.rating(device.known, claimed);
    const rows = new Maker(share, phase, plain, declared, settings?.declared_by ?? "process", beside).all();
    const byClaim = claimed === null ? rows : new Maker(share, phase, declared, declared, "process", beside).all();
    /** @type {Part} */
    const part = {
      name, phase, rows, claimedRows: byClaim, read: wasRead(share), integersDistinguished: distinguishesIntegers(share),
      flop: total(rows.map((row) => row.flop)), integer: total(rows.map((row) => row.integer)),
      claimed: total(byClaim.map((row) => row.flop)), claimedInteger: total(byClaim.map((row) => row.integer)),
      unknown: unknownOf(share), observed: new Map(under(share, "observed_ns")),
    };
    return part;
  });
  const sum = (/** @type {(part: Part) => Figures} */ of) => parts.map(of).reduce(plus, zero());
  const read = wasRead(tally), distinguishes = distinguishesIntegers(tally);
  return {
    parts, read, distinguishes,
    flop: withZero(sum((part) => part.flop), read),
    integer: integersOf(sum((part) => part.integer), distinguishes),
    claimed: withZero(sum((part) => part.claimed), read),
    claimedInteger: integersOf(sum((part) => part.claimedInteger), distinguishes),
  };
}

export { withZero, integersOf };
/** @typedef {ReturnType<typeof rated>} Rated */
