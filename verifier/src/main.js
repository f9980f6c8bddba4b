// The page: files are given, verified in slices so that it stays responsive, and shown.
import { Fault, Refusal, base64, decodeUtf8 } from "./basics.js";
import { h } from "./dom.js";
import { parseJson } from "./json.js";
import { readKey } from "./keys.js";
import { Library } from "./library.js";
import { accepted, refused } from "./report.js";
import { SHIPPED } from "./tables.js";
import { refusal, verify } from "./verify.js";

/** @typedef {{name: string, bytes: Uint8Array}} Given */
const _SLICE_MS = 40;
const _BOXES = ["ledgers", "keys", "tables"];
const _LISTS = [..._BOXES, "beside"]; // the last: peak tables and policies that came with the ledger
/** @type {Record<string, Given[]>} */
const _given = { ledgers: [], keys: [], tables: [], beside: [] };

/** @param {string} id */
const at = (id) => /** @type {HTMLInputElement} */ (document.getElementById(id));
/** @param {string} words */
const say = (words) => void (at("status").textContent = words);

function listed() {
  for (const name of _LISTS) {
    at(`${name}-given`).replaceChildren(..._given[name].map((one) => h("li", {}, `${one.name} (${one.bytes.length} bytes)`)));
  }
}

/** @param {string} list @param {File[]} files @param {string} [folder] Where they lay, if that is known. */
async function take(list, files, folder = "") {
  for (const file of files) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const name = file.webkitRelativePath || folder + file.name;
    _given[list] = [..._given[list].filter((one) => one.name !== name), { name, bytes }];
  }
  listed();
}

/** A dropped file, or all files below a dropped folder. @param {FileSystemEntry} entry */
async function takeEntry(entry) {
  const folder = entry.fullPath.slice(1, entry.fullPath.length - entry.name.length);
  if (entry.isFile) {
    const file = await new Promise((done, failed) => /** @type {FileSystemFileEntry} */ (entry).file(done, failed));
    await take(listOf(entry.name), [file], folder);
    return;
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return;
    for (const one of some) await takeEntry(one);
  }
}

/** Where a dropped file belongs, by its name. @param {string} name */
function listOf(name) {
  if (/\.(pub|pem)$/i.test(name)) return "keys";
  return /\.ya?ml$/i.test(name) ? "beside" : "ledgers";
}

/** @param {Uint8Array} ledger */
function kindOf(ledger) {
  try {
    const { payload } = parseJson(decodeUtf8(ledger, "a ledger"), "a ledger");
    return parseJson(decodeUtf8(base64(payload, "a payload"), "a payload"), "a payload").predicate.kind;
  } catch {
    return null;
  }
}

/** The ledger, its journal, and the others as its children. */
function sorted() {
  const journals = _given.ledgers.filter((one) => /\.jsonl$/i.test(one.name));
  const ledgers = _given.ledgers.filter((one) => !journals.includes(one));
  if (!ledgers.length) throw new Fault("Give a ledger: a file NAME.json.");
  const order = ["lineage", "job", "node"];
  const kinds = new Map(ledgers.map((one) => [one, kindOf(one.bytes)]));
  const merged = ledgers.filter((one) => kinds.get(one) === "lineage" || kinds.get(one) === "job");
  const top = [...merged].sort((a, b) => order.indexOf(kinds.get(a)) - order.indexOf(kinds.get(b)))[0];
  if (!top && ledgers.length > 1) throw new Fault("Give one ledger, or that of a job with its children.");
  const ledger = top ?? ledgers[0];
  const journalOf = (/** @type {Given} */ one) => {
    const name = one.name.replace(/\.json$/i, "") + ".journal.jsonl";
    const found = journals.find((other) => other.name === name);
    return (found ?? (ledgers.length === 1 && journals.length === 1 ? journals[0] : null))?.bytes ?? null;
  };
  const children = ledgers.filter((one) => one !== ledger)
    .map((one) => ({ name: one.name, ledger: one.bytes, journal: journalOf(one) }));
  return { ledger: ledger.bytes, journal: journalOf(ledger), children: children.length ? children : null };
}

/** Lets the browser draw once in a while. */
function pace() {
  let since = performance.now();
  return async (/** @type {number} */ share) => {
    if (performance.now() - since < _SLICE_MS) return;
    at("progress").value = String(share);
    await new Promise((done) => setTimeout(done));
    since = performance.now();
  };
}

async function run() {
  const began = performance.now();
  if (!_given.keys.length) throw new Fault("Give a public key that you trust: without one nothing is proven.");
  const library = new Library(parseJson(SHIPPED, "the tables of this page"));
  for (const one of _given.beside) library.cameWith(one.bytes, one.name);
  for (const one of _given.tables) library.accept(one.bytes, one.name);
  const files = sorted();
  try {
    const keys = _given.keys.map((one) => readKey(decodeUtf8(one.bytes, one.name), one.name));
    const threshold = Math.max(1, Number(at("threshold").value) || 1);
    const found = await verify({ ...files, keys, threshold, library, allowReplay: at("replay").checked, progress: pace() });
    return accepted(found, (performance.now() - began) / 1000);
  } catch (error) {
    return refused(/** @type {any} */ (refusal(error)));
  }
}

async function onVerify() {
  at("verify").disabled = true;
  at("progress").hidden = false;
  at("result").replaceChildren();
  say("Verifying…");
  try {
    at("result").replaceChildren(await run());
    say("Done.");
    at("result").focus();
  } catch (error) {
    const known = error instanceof Fault || error instanceof Refusal;
    say(known ? error.message : `This page failed, which is no verdict: ${error}`);
  }
  at("progress").hidden = true;
  at("verify").disabled = false;
}

/** @param {DragEvent} event */
async function onDrop(event) {
  event.preventDefault();
  document.body.classList.remove("over");
  const entries = [...(event.dataTransfer?.items ?? [])].map((one) => one.webkitGetAsEntry());
  for (const entry of entries) if (entry) await takeEntry(entry);
}

for (const name of _BOXES) {
  at(name).addEventListener("change", () => void take(name, [...(at(name).files ?? [])]));
}
at("folder").addEventListener("change", () => {
  const files = [...(at("folder").files ?? [])];
  void take("ledgers", files.filter((one) => /\.jsonl?$/i.test(one.name)));
  void take("beside", files.filter((one) => /\.ya?ml$/i.test(one.name)));
});
at("verify").addEventListener("click", () => void onVerify());
at("clear").addEventListener("click", () => {
  for (const name of _LISTS) _given[name] = [];
  for (const name of [..._BOXES, "folder"]) at(name).value = "";
  at("result").replaceChildren();
  say("");
  listed();
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", () => document.body.classList.remove("over"));
document.addEventListener("drop", (event) => void onDrop(event));
