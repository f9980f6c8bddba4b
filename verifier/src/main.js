// The page: files are given, a thread verifies them, and its answer is shown.
import { h, shortened, visible } from "./dom.js";
import { accepted, refused } from "./report.js";
import { work } from "./worker.js";

/** @typedef {import("./worker.js").Answer} Answer */
/** @typedef {{name: string, file: File}} Given */
const _BOXES = ["ledgers", "keys", "tables"];
const _LISTS = [..._BOXES, "beside"]; // the last: peak tables and policies that came with the ledger
const _MOST_LISTED = 12;
const _NO_THREAD = "This browser starts no thread for this page: open it from disk in a current Chrome, Edge, Firefox or Safari.";
/** @type {Record<string, Given[]>} */
const _given = { ledgers: [], keys: [], tables: [], beside: [] };
/** @type {Worker | null} */
let _running = null;
let _script = "";

/** @param {string} id */
const at = (id) => /** @type {HTMLInputElement} */ (document.getElementById(id));
/** @param {string} words */
const say = (words) => void (at("status").textContent = visible(shortened(words)));

/** @param {number} bytes */
function size(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  return bytes < 1e6 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function listed() {
  for (const name of _LISTS) {
    const all = _given[name], shown = all.slice(0, _MOST_LISTED);
    const rows = shown.map((one) => h("li", {}, `${one.name} (${size(one.file.size)})`));
    if (all.length > shown.length) rows.push(h("li", {}, `and ${all.length - shown.length} more`));
    at(`${name}-given`).replaceChildren(...rows);
    at(`${name}-given`).dataset.count = String(all.length);
  }
  at("beside-note").hidden = !_given.beside.length;
}

/** What is shown is never of other files than those that are listed. */
function changed() {
  stop();
  at("result").replaceChildren();
  at("files").toggleAttribute("open", true);
  say("");
}

/** @param {string} list @param {Given[]} files */
function take(list, files) {
  if (!files.length) return;
  changed();
  const before = _given[list].length;
  const kept = new Map(_given[list].map((one) => [one.name, one]));
  for (const one of files) kept.set(one.name, one);
  _given[list] = [...kept.values()];
  const again = before + files.length - kept.size;
  if (again) say(`${again === 1 ? "A file takes" : `${again} files take`} the place of one with the same name.`);
  listed();
}

/** All files below a dropped folder. @param {any} handle @param {string} [above] @returns {Promise<Given[]>} */
async function filesBelow(handle, above = "") {
  const name = above + handle.name;
  if (handle.kind === "file") return [{ name, file: await handle.getFile() }];
  const found = [];
  for await (const one of handle.values()) found.push(...(await filesBelow(one, `${name}/`)));
  return found;
}

/** The same where there are no handles. @param {FileSystemEntry} entry @returns {Promise<Given[]>} */
async function filesOf(entry) {
  if (entry.isFile) {
    const file = await new Promise((done, failed) => /** @type {FileSystemFileEntry} */ (entry).file(done, failed));
    return [{ name: entry.fullPath.slice(1), file }];
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  const found = [];
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return found;
    for (const one of some) found.push(...(await filesOf(one)));
  }
}

/** What was dropped, which can be asked for only while the event lasts. Chromium reads no entry for a page that was opened
 * from disk, and the other browsers have no handles.
 * @param {any} item @returns {{name: string, isFolder: boolean, files: Promise<Given[]>} | null} */
function dropped(item) {
  const entry = item.webkitGetAsEntry(), file = item.getAsFile();
  if (entry?.isDirectory) {
    const files = item.getAsFileSystemHandle ? item.getAsFileSystemHandle().then((/** @type {any} */ handle) => filesBelow(handle)) : filesOf(entry);
    return { name: entry.name, isFolder: true, files };
  }
  return file && { name: file.name, isFolder: false, files: Promise.resolve([{ name: file.name, file }]) };
}

/** Where a file that was dropped by itself belongs, by its name. @param {string} name */
function listOf(name) {
  if (/\.(pub|pem)$/i.test(name)) return "keys";
  return /\.ya?ml$/i.test(name) ? "beside" : "ledgers";
}

/** Of a folder no key: whoever made it could have put his own into it. @param {Given[]} files */
function takeFolder(files) {
  take("ledgers", files.filter((one) => /\.jsonl?$/i.test(one.name)));
  take("beside", files.filter((one) => /\.ya?ml$/i.test(one.name)));
}

function stop() {
  _running?.terminate();
  _running = null;
  at("stop").hidden = true;
  at("progress").hidden = true;
  at("verify").disabled = false;
}

/** @param {HTMLElement} shown */
function show(shown) {
  at("result").replaceChildren(shown);
  at("files").toggleAttribute("open", false);
  say("");
  at("result").focus({ preventScroll: true });
  scrollTo(0, 0);
}

/** @param {Answer} answer */
function onAnswer(answer) {
  if ("share" in answer) {
    at("progress").value = String(answer.share);
    say(`Verifying: ${Math.floor(100 * answer.share)} %`);
    return;
  }
  stop();
  if ("accepted" in answer) show(accepted(answer.accepted));
  else if ("refused" in answer) show(refused(answer.refused));
  else say(answer.fault);
}

function onVerify() {
  changed();
  if (!_given.ledgers.length) return say("Give a ledger: a file NAME.json.");
  if (!_given.keys.length) return say("Give a public key that you trust: without one nothing is proven.");
  const address = URL.createObjectURL(new Blob([_script], { type: "text/javascript" }));
  const worker = new Worker(address);
  _running = worker;
  worker.onmessage = ({ data }) => {
    if (worker !== _running) return; // sent before it was stopped
    URL.revokeObjectURL(address);
    onAnswer(data);
  };
  worker.onerror = (event) => {
    if (worker !== _running) return;
    stop();
    say(event.message ? `This page failed, which is not a verdict: ${event.message}` : _NO_THREAD);
  };
  at("verify").disabled = true;
  at("stop").hidden = at("progress").hidden = false;
  at("progress").removeAttribute("value");
  say("Reading the files");
  const threshold = Math.max(1, Math.floor(Number(at("threshold").value)) || 1);
  worker.postMessage({ ..._given, threshold, allowReplay: at("replay").checked });
}

/** @param {DragEvent} event */
async function onDrop(event) {
  event.preventDefault();
  document.body.classList.remove("over");
  for (const one of [...(event.dataTransfer?.items ?? [])].map(dropped)) {
    if (!one) continue;
    try {
      const files = await one.files;
      if (one.isFolder) takeFolder(files);
      else take(listOf(one.name), files);
    } catch (error) {
      say(`${one.name} cannot be read: choose it with the button instead. (${/** @type {Error} */ (error).message})`);
    }
  }
}

function start() {
  _script = /** @type {HTMLElement} */ (document.currentScript).textContent ?? "";
  for (const name of _BOXES) {
    at(name).addEventListener("change", () => take(name, [...(at(name).files ?? [])].map((file) => ({ name: file.name, file }))));
  }
  at("folder").addEventListener("change", () => {
    takeFolder([...(at("folder").files ?? [])].map((file) => ({ name: file.webkitRelativePath || file.name, file })));
  });
  for (const name of ["threshold", "replay"]) at(name).addEventListener("change", changed);
  at("verify").addEventListener("click", onVerify);
  at("stop").addEventListener("click", () => {
    changed();
    say("Stopped: there is no verdict.");
  });
  at("clear").addEventListener("click", () => {
    changed();
    for (const name of _LISTS) _given[name] = [];
    for (const name of [..._BOXES, "folder"]) at(name).value = "";
    listed();
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
  document.addEventListener("dragleave", () => document.body.classList.remove("over"));
  document.addEventListener("drop", (event) => void onDrop(event));
  listed();
}

if (typeof document === "undefined") {
  const thread = /** @type {any} */ (globalThis);
  thread.onmessage = (/** @type {MessageEvent} */ { data }) => void work(data, (answer) => thread.postMessage(answer));
} else start();
