// The verifier as a command: what its words mean, and what it prints. docs/conformance.md has the contract.
import fs from "node:fs";
import path from "node:path";
import { mayBeLedger } from "./src/given.js";
import { parseJson, writeJson } from "./src/json.js";
import { readKey } from "./src/keys.js";
import { Library } from "./src/library.js";
import { SHIPPED } from "./src/tables.js";
import { compareHistories, refusal, verify } from "./src/verify.js";

export const USAGE = `usage: node cli.mjs LEDGER --key FILE [--key FILE ...] [--threshold N] [--journal FILE] [--children FOLDER]
                [--peaks FILE] [--policy FILE] [--also LEDGER] [--allow-replay] [--json]
Exit 0: verified. 3: refused. 5: verified but for what is named. 2: wrong usage.`;
const VALUES = ["--key", "--threshold", "--journal", "--children", "--peaks", "--policy", "--also"];
const ONCE = ["--threshold", "--journal", "--children"];
const STATUS = { accepted: 0, refused: 3, inPart: 5 };

/** @param {string[]} words */
function parsed(words) {
  /** @type {Record<string, string[]>} */
  const options = Object.fromEntries(VALUES.map((name) => [name, []]));
  const flags = new Set();
  /** @type {string[]} */
  const files = [];
  for (let i = 0; i < words.length; i++) {
    const [word, ...rest] = words[i].split("=");
    if (VALUES.includes(word)) {
      const value = words[i].includes("=") ? rest.join("=") : words[++i];
      if (value === undefined) throw new Error(`${word} without a value`);
      options[word].push(value);
    } else if (words[i] === "--json" || words[i] === "--allow-replay") flags.add(words[i]);
    else if (words[i].startsWith("--")) throw new Error(`unknown option ${words[i]}`);
    else files.push(words[i]);
  }
  if (files.length !== 1) throw new Error("one ledger is needed");
  if (!options["--key"].length) throw new Error("a key that you trust is needed: --key FILE");
  const again = ONCE.find((name) => options[name].length > 1);
  if (again !== undefined) throw new Error(`${again} is given twice`);
  const [threshold = "1"] = options["--threshold"];
  if (!/^[1-9][0-9]{0,8}$/.test(threshold)) throw new Error(`--threshold ${threshold}: not a whole number from 1`);
  return { ledger: files[0], options, flags, threshold: Number(threshold) };
}

/** A FIFO would never end. @param {string} file */
function read(file) {
  if (!fs.statSync(file).isFile()) throw new Error(`${file}: not a regular file`);
  try {
    return new Uint8Array(fs.readFileSync(file));
  } catch (error) {
    throw new Error(`${file}: ${/** @type {Error} */ (error).message}`);
  }
}
/** @param {string} file */
const maybe = (file) => (fs.statSync(file, { throwIfNoEntry: false })?.isFile() ? read(file) : null);
/** @param {string} ledger */
const journalOf = (ledger) => ledger.replace(/\.json$/, "") + ".journal.jsonl";

const _COMPANION = /^\.(peaks|policy)-[0-9a-f]{16}\.yaml$/;

/** Tells of the peak tables and policies that came with a ledger. @param {string} ledger @param {Library} library */
function nameCompanions(ledger, library) {
  const stem = path.basename(ledger).replace(/\.json$/, "");
  for (const name of fs.readdirSync(path.dirname(ledger))) {
    if (!name.startsWith(stem) || !_COMPANION.test(name.slice(stem.length))) continue;
    const file = path.join(path.dirname(ledger), name);
    const found = fs.statSync(file, { throwIfNoEntry: false });
    if (found?.isFile() && found.size <= 1 << 20) library.cameWith(read(file), name);
  }
}

/** @param {string} folder */
function childrenIn(folder) {
  const found = /** @type {string[]} */ (fs.readdirSync(folder, { recursive: true })).filter((name) => name.endsWith(".json"));
  return found.sort().flatMap((name) => {
    const file = path.join(folder, name);
    const ledger = maybe(file);
    const journal = ledger && maybe(journalOf(file));
    return ledger && mayBeLedger({ name, bytes: ledger }, journal !== null) ? [{ name, ledger, journal }] : [];
  });
}

/** @param {string[]} words @param {string} [folder] What files are relative to. */
async function verdict(words, folder = ".") {
  const { ledger, options, flags, threshold } = parsed(words);
  const at = (/** @type {string} */ file) => path.resolve(folder, file);
  const library = new Library(parseJson(SHIPPED, "the tables that this verifier ships"));
  const [below] = options["--children"];
  const children = below === undefined ? null : childrenIn(at(below));
  const given = (/** @type {string} */ file, /** @type {string | undefined} */ journal) => ({
    ledger: read(at(file)), journal: journal === undefined ? maybe(journalOf(at(file))) : read(at(journal)), keys, children, library,
    threshold, allowReplay: flags.has("--allow-replay"),
  });
  /** @type {import("./src/keys.js").Key[]} */
  let keys = [];
  try {
    keys = options["--key"].map((file) => readKey(Buffer.from(read(at(file))).toString("utf8"), path.basename(file)));
    for (const file of [...options["--peaks"], ...options["--policy"]]) library.accept(read(at(file)), path.basename(file));
    nameCompanions(at(ledger), library);
    const found = await verify(given(ledger, options["--journal"][0]));
    for (const other of options["--also"]) compareHistories(found, await verify(given(other, undefined)));
    return found;
  } catch (error) {
    return refusal(error);
  }
}

/** Exit status and what is printed. @param {string[]} words @param {string} [folder] */
export async function command(words, folder) {
  const found = await verdict(words, folder);
  const json = words.includes("--json");
  if (found.verdict === "refuse") {
    const { code, path: where, message } = found;
    return { status: STATUS.refused, out: json ? writeJson({ verified: false, code, path: where, message }) : `REFUSED: ${message}` };
  }
  const { unverified, leaves, statement, tables, notes } = found;
  const whole = !unverified.length;
  const status = whole ? STATUS.accepted : STATUS.inPart;
  if (json) {
    const told = { verified: whole, code: null, path: null, notVerified: unverified, compared: leaves };
    return { status, out: writeJson({ ...told, predicate: statement.predicate }) };
  }
  const lines = [
    `${whole ? "VERIFIED" : "VERIFIED IN PART"}: ${leaves} values computed again and equal`,
    ...unverified.map((one) => `not verified: ${one}`),
    ...(notes.includes("children-not-given") ? ["not every ledger that it is made of was given with its journal"] : []),
    ...tables.filter((one) => !one.own).map((one) => `accepted by you: ${one.what} ${one.sha256}`),
  ];
  return { status, out: lines.join("\n") };
}
