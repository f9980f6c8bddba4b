// The counters of a training process, by phase.
import { object } from "./basics.js";
import { SEEN } from "./names.js";

/** @typedef {import("./history.js").Session} Session */

/** Whether it counted work, and not only what it saw of kernels. @param {Session} session */
export const hasWork = (session) => [...session.work.keys()].some((path) => !SEEN.includes(path.split("/")[1]));

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
