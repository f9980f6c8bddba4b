// Framing, chain and codes of a journal.
import { Refusal, hex, require, unhex, utf8 } from "./basics.js";
import { parseBytes } from "./json.js";
import { hmacSha256, sha256 } from "./sha256.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {{number: number, record: Uint8Array, code: string | null, hash: Uint8Array, head: string, end: number}} Line */

const _LONGEST = 4 * 1024 * 1024;
const _HEAD = /^\{"h":"([0-9a-f]{64})",(?:"m":"([0-9a-f]{32})",)?"r":$/;
const _HEAD_BYTES = 6 + 64 + 2 + 4;
const _CODE_BYTES = 5 + 32 + 2;
const _KEY_OF = "flopsd checkpoint key ";
const _NEXT_KEY = utf8("flopsd next key");

/** @param {Uint8Array} bytes */
const latin = (bytes) => String.fromCharCode(...bytes);

/** @param {Uint8Array} line Without its newline. @param {number} number
 * @returns {{stated: string, code: string | null, record: Uint8Array}} */
function framed(line, number) {
  const hasCode = line.length > _HEAD_BYTES + _CODE_BYTES && line[_HEAD_BYTES - 3] === 0x6d;
  const begins = _HEAD_BYTES + (hasCode ? _CODE_BYTES : 0);
  const match = _HEAD.exec(latin(line.subarray(0, begins)));
  const isObject = line[begins] === 0x7b && line[line.length - 2] === 0x7d;
  if (!match || !isObject || line[line.length - 1] !== 0x7d) {
    throw new Refusal("journal_frame", `journal line ${number}: not a framed record`, `line ${number}`);
  }
  return { stated: match[1], code: match[2] ?? null, record: line.subarray(begins, line.length - 1) };
}

/** What the codes of one incarnation must be. */
class Codes {
  /** @param {J} begin @param {Map<string, Uint8Array>} secrets By their SHA-256. */
  constructor(begin, secrets) {
    const named = begin.code_secret_sha256 ?? null;
    this.named = named !== null; // one that is not a digest is refused with its record
    const secret = secrets.get(named);
    this.key = secret ? hmacSha256(secret, utf8(`${_KEY_OF}${begin.incarnation}`)) : null;
    this.ended = false;
  }

  /** @param {string | null} code @param {Uint8Array} head @param {J} record @param {number} number */
  check(code, head, record, number) {
    const where = `line ${number}`;
    if (!this.named) {
      require(code === null, "line_code", `journal line ${number} has a code, but its daemon start declares no codes`, where);
      return;
    }
    require(!this.ended, "line_code", `journal line ${number} follows a line without a code, which must be the last of its daemon start`, where);
    if (code === null) {
      const why = `journal line ${number} has no code: altered, or put in by another process`;
      require(record.kind === "checkpoint", "line_code", why, where);
      this.ended = true;
      return;
    }
    if (this.key === null) return;
    const wanted = hex(hmacSha256(this.key, head).subarray(0, 16));
    this.key = sha256(_NEXT_KEY, this.key);
    const why = `journal line ${number} has a wrong code: the daemon that had the key did not write it there`;
    require(code === wanted, "line_code", why, where);
  }
}

/** The lines of a journal, to its end, frame and chain checked.
 * @param {Uint8Array} bytes @returns {Generator<Line>} */
export function* readLines(bytes) {
  let at = 0, number = 0;
  let hash = new Uint8Array(32);
  while (at < bytes.length) {
    const where = `line ${++number}`;
    const end = bytes.indexOf(10, at);
    const torn = `journal ${where}: no newline at its end: the file was cut or is being written`;
    require(end >= 0, "journal_frame", torn, where);
    require(end + 1 - at <= _LONGEST, "journal_frame", `journal ${where} has more than 4 MiB`, where);
    const { stated, code, record } = framed(bytes.subarray(at, end), number);
    hash = sha256(hash, record);
    const head = hex(hash);
    const broken = `journal ${where}: its hash does not continue the chain: altered, moved or left out`;
    require(head === stated, "journal_chain", broken, where);
    at = end + 1;
    yield { number, record, code, hash, head, end: at };
  }
}

/** Reads lines one by one as records: of each its JSON, then its code. */
export class Records {
  /** @param {Map<string, Uint8Array>} secrets */
  constructor(secrets) {
    this.secrets = secrets;
    /** @type {Codes | null} */
    this.codes = null;
  }

  /** @param {Line} line @returns {any} */
  read({ number, record, code, hash }) {
    const where = `journal line ${number}`;
    const found = parseBytes(record, where);
    if (found?.kind === "begin") this.codes = new Codes(found, this.secrets);
    const none = `journal line ${number} has a code, but no daemon start comes before it`;
    require(this.codes || code === null, "line_code", none, `line ${number}`);
    this.codes?.check(code, hash, found, number);
    return found;
  }
}

/** @param {string[]} texts @returns {Map<string, Uint8Array>} */
export function secretsOf(texts) {
  return new Map(texts.map((text) => [hex(sha256(unhex(text))), unhex(text)]));
}
