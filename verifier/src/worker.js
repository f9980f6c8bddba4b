// What verifies, in a thread of its own: the page stays responsive, and stopping it is ending the thread.
import { Fault, Refusal } from "./basics.js";
import { course } from "./curve.js";
import { sorted } from "./given.js";
import { parseJson } from "./json.js";
import { readKey } from "./keys.js";
import { Library } from "./library.js";
import { SHIPPED } from "./tables.js";
import { refusal, verify } from "./verify.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {{name: string, file: Blob}} Handed */
/** @typedef {{ledgers: Handed[], keys: Handed[], tables: Handed[], beside: Handed[], threshold: number, allowReplay: boolean}} Asked */
/** @typedef {{name: string, journalName: string | null, given: number}} Named */
/** What the page shows: without classes, since it passes from one thread to another.
 * @typedef {Named & {statement: J, sha256: string, signers: import("./keys.js").Key[], others: string[], unverified: string[], leaves: number,
 *   head: string | null, tables: J[], notes: string[], records: bigint | null, course: import("./curve.js").Spot[], seconds: number}} Shown */
/** @typedef {Named & {code: string, message: string, path: string | null}} Refused */
/** @typedef {{share: number} | {accepted: Shown} | {refused: Refused} | {fault: string}} Answer */

const _EVERY_MS = 50;

/** @param {Handed} handed */
async function read({ name, file }) {
  try {
    return { name, bytes: new Uint8Array(await file.arrayBuffer()) };
  } catch (error) {
    throw new Fault(`${name} cannot be read (${/** @type {Error} */ (error).message}). Was it changed or moved since? Give it again.`);
  }
}

/** @param {Handed[]} handed */
async function readAll(handed) {
  const found = [];
  for (const one of handed) found.push(await read(one));
  return found;
}

/** @param {(answer: Answer) => void} answer */
function progress(answer) {
  let since = 0;
  return (/** @type {number} */ share) => {
    if (performance.now() - since < _EVERY_MS) return;
    since = performance.now();
    answer({ share });
  };
}

/** @param {Asked} asked @param {(answer: Answer) => void} answer @returns {Promise<Answer>} */
async function answerTo(asked, answer) {
  const began = performance.now();
  const library = new Library(parseJson(SHIPPED, "the tables of this page"));
  for (const { bytes, name } of await readAll(asked.beside)) library.cameWith(bytes, name);
  for (const { bytes, name } of await readAll(asked.tables)) library.accept(bytes, name);
  const { files, ...names } = sorted(await readAll(asked.ledgers));
  const keyFiles = await readAll(asked.keys);
  const named = { ...names, given: files.children?.length ?? 0 };
  try {
    const keys = keyFiles.map(({ bytes, name }) => readKey(new TextDecoder().decode(bytes), name));
    const { threshold, allowReplay } = asked;
    const found = await verify({ ...files, keys, threshold, library, allowReplay, progress: progress(answer) });
    const { statement, sha256, signers, unverified, leaves, head, tables, notes, history, peaks } = found;
    const points = history && peaks && history.points.length ? course(history, peaks) : [];
    const others = keys.filter(({ id }) => signers.every((one) => one.id !== id)).map((one) => one.name);
    return { accepted: { ...named, statement, sha256, signers, others, unverified, leaves, head, tables, notes, records: history?.records ?? null,
      course: points, seconds: (performance.now() - began) / 1000 } };
  } catch (error) {
    const { code, message, path } = /** @type {any} */ (refusal(error));
    return { refused: { ...named, code, message, path } };
  }
}

/** @param {Asked} asked @param {(answer: Answer) => void} answer */
export async function work(asked, answer) {
  try {
    answer(await answerTo(asked, answer));
  } catch (error) {
    const known = error instanceof Fault || error instanceof Refusal;
    answer({ fault: known ? error.message : `This page failed, which is not a verdict: ${error}` });
  }
}
