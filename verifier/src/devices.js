// `devices` of a statement: each accelerator, as described in its last incarnation, with the sums over its tallies.
import { byText, object } from "./basics.js";
import { plus, seconds, written, zero } from "./figures.js";
import { OPERATOR_COUNT } from "./operators.js";
import { sumOf } from "./tallies.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./statement.js").Account} Account */
/** @typedef {import("./rows.js").Row} Row */

/** @param {import("./operators.js").Counted} counted @returns {Row} */
function rowOf({ phase, flop }) {
  return {
    phase, evidence: OPERATOR_COUNT, pipe: null, precision: "undeclared", declaredBy: null, smCycles: 0n, ns: 0n, flop,
    integer: zero(), clock: 0n, margin: null, mayBeInteger: false,
  };
}

/** @param {Account[]} accounts @param {import("./operators.js").Counted[]} operators */
function work(accounts, operators) {
  /** @type {Map<string, Row>} */
  const rows = new Map();
  for (const row of [...accounts.flatMap(({ of }) => of.parts.flatMap((part) => part.rows)), ...operators.map(rowOf)]) {
    const key = [row.phase, row.evidence, row.pipe ?? "", row.precision].join("\n");
    const held = rows.get(key);
    rows.set(key, !held ? row : {
      ...held, smCycles: held.smCycles + row.smCycles, ns: held.ns + row.ns, flop: plus(held.flop, row.flop),
      integer: plus(held.integer, row.integer), clock: held.clock + row.clock, declaredBy: held.declaredBy ?? row.declaredBy,
    });
  }
  return [...rows.keys()].sort(byText).map((key) => {
    const row = /** @type {Row} */ (rows.get(key));
    return {
      phase: row.phase, evidence: row.evidence, pipe: row.pipe, precision: row.precision,
      precisionDeclaredBy: row.declaredBy, smCycles: String(row.smCycles), seconds: seconds(row.ns),
      flop: written(row.flop), integerOperations: written(row.integer), clockUncertaintyFlop: String(row.clock),
    };
  });
}

/** @param {import("./tallies.js").Tally} tally */
function counters(tally) {
  const found = object();
  for (const [name, value] of tally.counters) found[name] = String(value);
  if (tally.running === null) return found;
  const { origin, values } = tally.running;
  const cycles = object();
  for (const [name, value] of values) if (name !== "ns" && name !== "elapsed") cycles[name] = String(value);
  found.running = { origin, elapsedSmCycles: String(values.get("elapsed") ?? 0n), smCycles: cycles };
  return found;
}

/** @param {Account[]} accounts @param {import("./operators.js").Counted[]} operators @param {import("./peaks.js").Peaks} peaks
 * @param {(devices: import("./history.js").Device[]) => J} energyOf */
export function deviceEntries(accounts, operators, peaks, energyOf) {
  /** @type {Map<string, Account[]>} */
  const all = new Map();
  for (const one of accounts) {
    const { uuid } = one.device.record;
    all.set(uuid, [...(all.get(uuid) ?? []), one]);
  }
  const entries = [...all.values()].map((own) => {
    const { known, last } = own[own.length - 1].device;
    const row = peaks.row(known.peak_row);
    const counts = operators.filter((one) => one.uuid === known.uuid);
    const sum = (/** @type {string} */ member) => own.reduce((total, { device }) => total + sumOf(device.last, member), 0n);
    const id = known.pci_device_id;
    return {
      uuid: known.uuid, index: known.index, source: known.source, vendor: known.vendor, model: known.model,
      serial: known.serial, pciBusId: known.pci_bus_id,
      pciDeviceId: id === null ? null : `0x${id.toString(16).padStart(4, "0")}`, driver: known.driver,
      parent: known.parent, smCount: known.sm_count, smCountExpected: row?.sm_count ?? null,
      smClockMaxMhz: known.sm_clock_max_mhz, peakRow: known.peak_row, peakStatus: row?.status ?? null,
      evidence: known.evidence, evidenceReason: known.evidence_reason, sharedWith: known.shared_with,
      executed: written([...own.map(({ of }) => of.flop), ...counts.map(({ flop }) => flop)].reduce(plus, zero())),
      integerOperations: written(own.map(({ of }) => of.integer).reduce(plus, zero())),
      ...energyOf(own.map(({ device }) => device)),
      observedSeconds: seconds(sum("observed_ns/")), gapSeconds: seconds(sum("gap_ns/")),
      recoveredSeconds: seconds(sum("recovered_ns/")),
      spanSeconds: seconds(own.reduce((total, { device }) => total + device.last.to - device.first, 0n)),
      counters: counters(last), work: work(own, counts),
    };
  });
  return entries.sort((a, b) => (a.index === b.index ? byText(a.uuid, b.uuid) : a.index < b.index ? -1 : 1));
}
