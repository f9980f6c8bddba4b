// What training processes claim of shares of tallies, and figures by it.
import { plus, zero } from "./figures.js";
import { withZero } from "./rows.js";

/** @typedef {import("./figures.js").Figures} Figures */
/** @typedef {Map<string, Figures>} ByPhase */

/** @param {ByPhase} map @param {string} phase @param {Figures} figures */
export function add(map, phase, figures) {
  map.set(phase, plus(map.get(phase) ?? zero(), figures));
}

/** What a share claims beyond the settings; null: nothing.
 * @param {import("./history.js").Device} device @param {import("./rows.js").Part} part */
export function claimOf(device, part) {
  const [name, format = null] = part.name.split("@");
  if (name === "undeclared" || !part.rows.length) return null;
  const phase = device.incarnation.begin.declared.phase === name ? null : name;
  const precision = device.known.precision === null ? format : null;
  return phase === null && precision === null ? null : { phase, precision };
}

/** Figures by what the processes claim, without counts of operators.
 * @param {import("./statement.js").Account[]} accounts @param {"claimed" | "claimedInteger"} kind */
export function byClaims(accounts, kind) {
  /** @type {ByPhase} */
  const found = new Map();
  for (const { device, of } of accounts) {
    const settings = device.incarnation.begin.declared.phase;
    const claims = of.parts.some((part) => claimOf(device, part) !== null);
    if (!claims && settings !== null) {
      if (of.parts.some((part) => part.rows.length || part.read)) add(found, settings, of[kind]);
      continue;
    }
    for (const part of of.parts) {
      if (!part.rows.length && !part.read) continue;
      const figures = kind === "claimed" ? withZero(part.claimed, part.read) : part.claimedInteger;
      add(found, part.phase === "undeclared" ? settings ?? "undeclared" : part.phase, figures);
    }
  }
  return found;
}
