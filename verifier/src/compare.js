// The statement as stated against the one that was computed, member by member.
import { Refusal, isObject } from "./basics.js";
import { isWords } from "./words.js";

/** @param {any} value */
function shown(value) {
  if (value === undefined) return "absent";
  const text = typeof value === "bigint" ? String(value) : JSON.stringify(value, (_, one) => (typeof one === "bigint" ? String(one) : one));
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/** @param {any} stated @param {any} computed @param {string} path @param {string} what @param {{leaves: number, words: Set<string>}} tally */
export function same(stated, computed, path, what, tally) {
  const differ = (/** @type {string} */ why, /** @type {string} */ where) =>
    new Refusal("mismatch", `the ledger does not match ${what}: ${where} ${why}`, where);
  if (isWords(path)) {
    tally.words.add(path.replace(/\[\d+\]/g, "[]"));
    return;
  }
  if (isObject(stated) && isObject(computed)) {
    for (const name of Object.keys(stated)) {
      const where = `${path}.${name}`;
      if (!(name in computed) && !isWords(where)) throw differ("is a member that cannot be computed", where);
      same(stated[name], computed[name], where, what, tally);
    }
    for (const name of Object.keys(computed)) if (!(name in stated)) throw differ("is missing", `${path}.${name}`);
    return;
  }
  if (Array.isArray(stated) && Array.isArray(computed)) {
    if (stated.length !== computed.length) {
      throw differ(`has ${stated.length} entries, recomputed are ${computed.length}`, path);
    }
    stated.forEach((one, i) => same(one, computed[i], `${path}[${i}]`, what, tally));
    return;
  }
  tally.leaves++;
  if (stated !== computed) throw differ(`is ${shown(stated)}, recomputed is ${shown(computed)}`, path);
}
