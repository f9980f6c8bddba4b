// Comparisons of what was counted with what the model's shape and its tokens need.
import { warning } from "./codes.js";
import { MILLION, ceilDiv, readFigures, zero, plus } from "./figures.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./figures.js").Figures} Figures */

const _MARGIN_PPM = 300000n;

/** @param {bigint | null} a @param {bigint | null} b @param {boolean} up */
function ratio(a, b, up) {
  if (a === null || b === null || b === 0n) return null;
  return up ? ceilDiv(a * MILLION, b) : (a * MILLION) / b;
}

/** @param {J} bounds @returns {Figures} */
function ofBounds(bounds) {
  return readFigures({ low: bounds.low, measured: bounds.computed, high: bounds.high });
}

/** @param {J} point @returns {Figures} */
function ofPoint({ computed }) {
  const one = BigInt(computed);
  return { low: one, measured: one, high: one };
}

/** @param {string} name @param {Figures} over @param {Figures} under @param {bigint} margin */
export function pair(name, over, under, margin) {
  const measured = ratio(over.measured, under.measured, false);
  const text = (/** @type {bigint | null} */ one) => (one === null ? null : String(one));
  const off = measured === null ? null : measured > MILLION ? measured - MILLION : MILLION - measured;
  const within = off === null ? null : off <= margin;
  return {
    name,
    ratioPpm: {
      low: text(ratio(over.low, under.high, false)), measured: text(measured), high: text(ratio(over.high, under.low, true)),
    },
    marginPpm: String(margin), withinMargin: within, warning: warning(name, text(measured), within),
  };
}

/** What counters measured, beside what training processes count of the same devices.
 * @param {{figures: Figures, count: bigint}} beside */
export function besideOperators({ figures, count }) {
  if (!count) return [];
  const all = { low: count, measured: count, high: count };
  return [pair("executed/operator_count", figures, all, _MARGIN_PPM)];
}

/** @param {J} byPhase As written @param {J} guidelines As written @param {import("./architecture.js").Basis} basis
 * @param {import("./history.js").History} history */
export function reconciliation(byPhase, guidelines, basis, history) {
  if (basis.stated === null) return [];
  const margin = BigInt(basis.stated.marginPpm);
  const declared = Object.keys(byPhase).filter((name) => name !== "undeclared").map((name) => readFigures(byPhase[name]));
  const known = declared.reduce(plus, zero());
  const rest = byPhase.undeclared ? readFigures(byPhase.undeclared).high : 0n;
  const executed = { ...known, high: known.high === null || rest === null ? null : known.high + rest };
  const found = [
    pair("executed/architecture", executed, ofBounds(basis.stated.executed), margin),
    pair("guidelines/architecture", readFigures(guidelines), ofBounds(basis.stated), margin),
  ];
  const framework = [...history.sessions.values()].flatMap((one) => [...one.work])
    .reduce((most, [path, value]) => (path.endsWith("/framework_flop") && value > most ? value : most), 0n);
  if (framework && BigInt(basis.stated.computed ?? 0)) {
    const all = { low: framework, measured: framework, high: framework };
    found.push(pair("framework/architecture", all, ofPoint(basis.stated), margin));
  }
  return found;
}
