// The peak tables and policies that this verifier ships, and those that the reader accepts by hand.
import { Fault, Refusal, decodeUtf8, hex } from "./basics.js";
import { Peaks } from "./peaks.js";
import { readPolicy } from "./policy.js";
import { sha256 } from "./sha256.js";
import { parseYaml } from "./yaml.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./policy.js").Policy} Policy */

export class Library {
  /** @param {{peaks: {sha256: string, content: J}[], policies: {sha256: string, content: J}[]}} shipped */
  constructor(shipped) {
    /** @type {Map<string, Peaks>} */
    this.tables = new Map(shipped.peaks.map(({ sha256: digest, content }) => [digest, new Peaks(content, digest, true)]));
    /** @type {Map<string, Policy>} */
    this.rules = new Map(shipped.policies.map(({ sha256: digest, content }) => [digest, readPolicy(content, digest, true)]));
    /** @type {Map<string, string>} */
    this.beside = new Map();
  }

  /** A file that came with the ledger: it is named where the ledger asks for it, and never used.
   * @param {Uint8Array} bytes @param {string} name */
  cameWith(bytes, name) {
    if (bytes.length <= 1 << 20) this.beside.set(hex(sha256(bytes)), name);
  }

  /** @param {string} digest */
  _missing(digest) {
    const name = this.beside.get(digest);
    return name ? `${name} came with the ledger and is the sender's: read it, and give it by hand if you accept it` : "give it if you trust it";
  }

  /** A file that the reader accepts. @param {Uint8Array} bytes @param {string} name */
  accept(bytes, name) {
    if (bytes.length > 1 << 20) throw new Fault(`${name} has more than 1 MiB`);
    const found = parseYaml(decodeUtf8(bytes, name));
    const digest = hex(sha256(bytes));
    if (found?.schema === "flopsd-peaks/1") {
      if (!this.tables.has(digest)) this.tables.set(digest, new Peaks(found, digest, false));
    } else if (!this.rules.has(digest)) this.rules.set(digest, readPolicy(found, digest, false));
  }

  /** @param {string} digest @returns {Peaks} */
  peaks(digest) {
    const found = this.tables.get(digest);
    if (found) return found;
    throw new Refusal("peak_table_unknown", `a peak table that is not flopsd's own, with SHA-256 ${digest}: ${this._missing(digest)}`);
  }

  /** @param {J} named @returns {Policy} */
  policy(named) {
    const found = this.rules.get(named.sha256);
    if (found) return found;
    throw new Refusal("policy_unknown", `policy '${named.id}' with SHA-256 ${named.sha256} is not here: ${this._missing(named.sha256)}`);
  }
}
