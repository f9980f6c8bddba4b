// The counters of a training process, by phase.
import { object } from "./basics.js";
import { SEEN } from "./names.js";

/** @typedef {import("./history.js").Session} Session */

/** Whether it counted work, in a phase or in any, and not only what it saw of kernels. @param {Session} session @param {string} [inPhase] */
export const hasWork = (session, inPhase) => [...session.work.keys()].some((path) => {
  const [phase, name] = path.split("/");
  return !SEEN.includes(name) && (inPhase === undefined || phase === inPhase);
});

/** @param {Session} session */
export function workOf(session) {
  const found = object();
  for (const [path, value] of session.work) {
    const [phase, name] = path.split("/");
    found[phase] ??= object();
    found[phase][name] = String(value);
  }
  return found;
}

/** The sum of a counter over phases. @param {Session} session @param {string} name @param {string[]} [phases] */
export function counted(session, name, phases) {
  let sum = 0n;
  for (const [path, value] of session.work) {
    const [phase, counter] = path.split("/");
    if (counter === name && (!phases || phases.includes(phase))) sum += value;
  }
  return sum;
}
