// The children of a merged ledger that are at hand: each is verified, and its entry made again.
import { Refusal, isText } from "./basics.js";
import { same } from "./compare.js";
import { jobEntry, nodeEntry } from "./entries.js";
import { parseBytes } from "./json.js";
import { readEnvelope } from "./keys.js";
import { checkDevices, checkDifferent } from "./merging.js";

/** @typedef {import("./basics.js").J} J */

/** The SHA-256 of a ledger's payload, whoever signed it. @param {Uint8Array} ledger @returns {{digest: string, own: J}} */
function payloadOf(ledger) {
  const { payload, sha256 } = readEnvelope(ledger);
  return { digest: sha256, own: parseBytes(payload, "the payload of a child") };
}

/** A ledger's run and node, by which an entry knows that it was changed. @param {any} run @param {any} node */
const placeOf = (run, node) => [run, node].map((one) => (isText(one) ? JSON.stringify(one) : "")).join();

/** A child says itself of which job it is and which nodes that has: none was dropped from the list when it was merged.
 * @param {J} merged @param {any} own @param {string} name @param {{leaves: number}} tally */
function ofThisJob(merged, own, name, tally) {
  const nodes = merged.kind === "job" ? merged.jobNodes : [own?.node?.name];
  same(own?.node?.jobNodes, nodes, `${name}: node.jobNodes`, "the nodes of the merged ledger", tally, "child_differs");
  if (merged.kind === "job") same(own?.run, merged.run, `${name}: run`, "the run of the merged ledger", tally, "child_differs");
}

/** @param {J} statement @param {import("./verify.js").Given} given
 * @param {(given: import("./verify.js").Given) => Promise<import("./verify.js").Accepted>} verify @param {{leaves: number}} tally
 * @returns {Promise<{whole: boolean, unverified: string[]}>} Whether all were at hand, down to the journals, and what of them is
 *   not verified. */
export async function checkChildren(statement, given, verify, tally) {
  const { children, kind } = statement.predicate;
  const found = new Set();
  /** By run and node, the file that was not merged. @type {Map<string, string>} */
  const others = new Map();
  /** What a lineage's children count, by their digests. @type {Map<string, J[]>} */
  const below = new Map(children.filter((/** @type {J} */ one) => one.kind === "node").map((/** @type {J} */ one) => [one.sha256, [one]]));
  let whole = true;
  /** @type {string[]} */
  const unverified = [];
  for (const [i, file] of (given.children ?? []).entries()) {
    const { digest, own } = payloadOf(file.ledger);
    const entry = children.find((/** @type {J} */ one) => one.sha256 === digest);
    if (!entry) {
      const { run, node } = own?.predicate ?? {};
      others.set(placeOf(run?.id, node?.name), file.name);
      continue;
    }
    const place = `statement.predicate.children[${children.indexOf(entry)}]`;
    if (entry.kind === "node") {
      ofThisJob(statement.predicate, own?.predicate, file.name, tally);
      if (file.journal === null) { // unchanged, and no more is known of it
        found.add(digest);
        whole = false;
        continue;
      }
    }
    await given.progress?.(i / /** @type {any[]} */ (given.children).length, `child ${file.name}`);
    const child = await verify({ ...given, ledger: file.ledger, journal: file.journal, children: null, progress: undefined, keys: null });
    const predicate = child.statement.predicate;
    const made = predicate.kind === "node" ? nodeEntry(child.statement, digest, /** @type {any} */ (child.history), entry)
      : jobEntry(child.statement, digest, entry);
    const completeness_ = kind === "lineage" && predicate.kind === "node"
      ? { completeness: entry.completeness } : {};
    same(entry, { ...made, ...completeness_ }, place, `this child: ${file.name}`, tally, "child_differs");
    unverified.push(...child.unverified.map((path) => path.replace("statement.predicate", place)));
    found.add(digest);
    if (predicate.kind === "job") below.set(digest, predicate.children);
    whole &&= predicate.kind === "node";
  }
  for (const { name, sha256, run, node } of children) {
    const other = found.has(sha256) ? undefined : others.get(placeOf(run, node));
    if (other !== undefined) throw new Refusal("child_changed", `${other} is not the ledger that was merged for ${name}`, other);
  }
  if (kind === "lineage") {
    checkDifferent([...below.values()].flat());
    checkDevices([...below.values()]);
  }
  return { whole: whole && found.size === children.length, unverified };
}
