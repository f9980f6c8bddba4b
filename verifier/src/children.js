// The children of a merged ledger that are at hand: each is verified, and its entry made again.
import { Refusal, base64, decodeUtf8, hex } from "./basics.js";
import { same } from "./compare.js";
import { jobEntry, nodeEntry } from "./entries.js";
import { parseJson } from "./json.js";
import { sha256 } from "./sha256.js";

/** @typedef {import("./basics.js").J} J */

/** The SHA-256 of a ledger's payload, whoever signed it. @param {Uint8Array} ledger @returns {{digest: string, statement: J}} */
function payloadOf(ledger) {
  const envelope = parseJson(decodeUtf8(ledger, "a child"), "a child");
  const payload = base64(String(envelope.payload), "the payload of a child");
  return { digest: hex(sha256(payload)), statement: parseJson(decodeUtf8(payload, "the payload of a child"), "the payload of a child") };
}

/** @param {J} statement @param {import("./verify.js").Given} given
 * @param {(given: import("./verify.js").Given) => Promise<import("./verify.js").Accepted>} verify @param {{leaves: number}} tally
 * @returns {Promise<{whole: boolean, unverified: string[]}>} Whether all were at hand, down to the journals, and what of them is
 *   not verified. */
export async function checkChildren(statement, given, verify, tally) {
  const { children, kind } = statement.predicate;
  const found = new Set();
  let whole = true;
  /** @type {string[]} */
  const unverified = [];
  for (const [i, file] of (given.children ?? []).entries()) {
    const { digest, statement: own } = payloadOf(file.ledger);
    const p = own.predicate ?? {};
    const entry = children.find((/** @type {J} */ one) => one.sha256 === digest);
    if (!entry) {
      const place = p.kind === "node" ? p.node?.name : p.run?.id;
      throw new Refusal("child_changed", `${file.name} is not the ledger that was merged for ${place}`, file.name);
    }
    await given.progress?.(i / /** @type {any[]} */ (given.children).length, `child ${file.name}`);
    const child = await verify({ ...given, ledger: file.ledger, journal: file.journal, children: null, progress: undefined, threshold: 0 });
    const predicate = child.statement.predicate;
    const made = predicate.kind === "node" ? nodeEntry(child.statement, digest, /** @type {any} */ (child.history), entry)
      : jobEntry(child.statement, digest, entry);
    const completeness_ = kind === "lineage" && predicate.kind === "node"
      ? { completeness: entry.completeness } : {};
    same(entry, { ...made, ...completeness_ }, `statement.predicate.children[${children.indexOf(entry)}]`, `this child: ${file.name}`, tally, "child_differs");
    const place = `statement.predicate.children[${children.indexOf(entry)}]`;
    unverified.push(...child.unverified.map((path) => path.replace("statement.predicate", place)));
    found.add(digest);
    whole &&= predicate.kind === "node";
  }
  return { whole: whole && found.size === children.length, unverified };
}
