// The statement as stated against the one that was computed, member by member.
import { Refusal, isObject, shown } from "./basics.js";

/** @param {any} stated @param {any} computed @param {string} path @param {string} what @param {{leaves: number}} tally
 * @param {string} [code] */
export function same(stated, computed, path, what, tally, code = "statement_differs") {
  const differ = (/** @type {string} */ why, /** @type {string} */ where) =>
    new Refusal(code, `the ledger does not match ${what}: ${where} ${why}`, where);
  if (isObject(stated) && isObject(computed)) {
    for (const name of Object.keys(stated)) {
      const where = `${path}.${name}`;
      if (!(name in computed)) throw differ("is a member that cannot be computed", where);
      same(stated[name], computed[name], where, what, tally, code);
    }
    for (const name of Object.keys(computed)) if (!(name in stated)) throw differ("is missing", `${path}.${name}`);
    return;
  }
  if (Array.isArray(stated) && Array.isArray(computed)) {
    if (stated.length !== computed.length) {
      throw differ(`has ${stated.length} entries, recomputed are ${computed.length}`, path);
    }
    stated.forEach((one, i) => same(one, computed[i], `${path}[${i}]`, what, tally, code));
    return;
  }
  tally.leaves++;
  if (stated !== computed) throw differ(`is ${shown(stated)}, recomputed is ${shown(computed)}`, path);
}
