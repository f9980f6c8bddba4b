// Which of the given files is the ledger, which its journal, and which are its children.
import { Fault, base64 } from "./basics.js";
import { parseBytes } from "./json.js";

/** @typedef {{name: string, bytes: Uint8Array}} File_ */

const _LARGEST_LEDGER = 64 * 1024 * 1024;
const _ORDER = ["lineage", "job", "node"];

/** @param {Uint8Array} ledger */
function kindOf(ledger) {
  if (ledger.length > _LARGEST_LEDGER) return null; // the verification refuses it, unread
  try {
    const { payload } = parseBytes(ledger, "a ledger");
    return parseBytes(base64(payload, "a payload"), "a payload").predicate.kind;
  } catch {
    return null;
  }
}

/** Whether a file can be a ledger, as flopsd takes it of a folder: of those that only end in .json none is meant.
 * @param {File_} one @param {boolean} hasJournal */
export function mayBeLedger({ name, bytes }, hasJournal) {
  return hasJournal || name.endsWith(".ledger.json") || new TextDecoder("latin1").decode(bytes).includes('"payloadType"');
}

/** The one to verify: of several that which adds the others up. @param {File_[]} ledgers */
function topOf(ledgers) {
  if (ledgers.length === 1) return ledgers[0];
  const kinds = new Map(ledgers.map((one) => [one, kindOf(one.bytes)]));
  const highest = _ORDER.slice(0, 2).find((kind) => [...kinds.values()].includes(kind));
  const tops = ledgers.filter((one) => kinds.get(one) === highest);
  if (highest && tops.length === 1) return tops[0];
  const named = (highest ? tops : ledgers).slice(0, 4).map((one) => one.name).join(", ");
  throw new Fault(`Several ledgers were given, and none adds the others up: ${named}. Give one at a time, or that of a job or lineage with its children.`);
}

/** @param {File_[]} files */
export function sorted(files) {
  const journals = files.filter((one) => /\.jsonl$/i.test(one.name));
  const journalOf = (/** @type {File_} */ one) => {
    const name = one.name.replace(/\.json$/i, "") + ".journal.jsonl";
    return journals.find((other) => other.name === name) ?? null;
  };
  const rest = files.filter((one) => !journals.includes(one));
  const ledgers = rest.length === 1 ? rest : rest.filter((one) => mayBeLedger(one, journalOf(one) !== null));
  if (!ledgers.length) throw new Fault("Give a ledger: a file NAME.json.");
  const ledger = topOf(ledgers);
  let journal = journalOf(ledger);
  if (!journal && ledgers.length === 1 && journals.length) {
    if (journals.length > 1) throw new Fault(`Which journal is that of ${ledger.name}? Give one alone: ${journals.slice(0, 4).map((one) => one.name).join(", ")}.`);
    [journal] = journals;
  }
  const children = ledgers.filter((one) => one !== ledger)
    .map((one) => ({ name: one.name, ledger: one.bytes, journal: journalOf(one)?.bytes ?? null }));
  return { name: ledger.name, journalName: journal?.name ?? null, files: { ledger: ledger.bytes, journal: journal?.bytes ?? null, children: children.length ? children : null } };
}
