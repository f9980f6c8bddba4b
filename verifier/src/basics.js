// Refusals, bytes, base64 and text: what every other module needs.

/** @typedef {Record<string, any>} J An object of JSON; whole numbers in it are BigInt. */

/** Why a ledger is refused. `code` is for programs, `path` is where in statement or journal. */
export class Refusal extends Error {
  /** @param {string} code @param {string} message @param {string | null} [path] */
  constructor(code, message, path = null) {
    super(message);
    this.code = code;
    this.path = path === null ? null : path.replace(/^line (\d+)$/, "journal:$1");
  }
}

/** What keeps this verifier from a verdict: a file of the reader, or this browser. */
export class Fault extends Error {}

/** @param {any} holds @param {string} code @param {string} message @param {string | null} [path] */
export function require(holds, code, message, path = null) {
  if (!holds) throw new Refusal(code, message, path);
}

/** @param {Uint8Array} bytes */
export function hex(bytes) {
  let text = "";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text;
}

/** @param {string} text */
export function unhex(text) {
  const bytes = new Uint8Array(text.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

/** @param {string} text */
export function utf8(text) {
  return new TextEncoder().encode(text);
}

/** @param {Uint8Array} bytes @param {string} what */
export function decodeUtf8(bytes, what) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Refusal("json_not_utf8", `${what} is not valid UTF-8 text`);
  }
}

/** The type that WebCrypto's functions ask for: nothing here is shared memory. @param {Uint8Array} bytes */
export function owned(bytes) {
  return /** @type {Uint8Array<ArrayBuffer>} */ (bytes);
}

/** @param {...Uint8Array} parts */
export function joined(...parts) {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

const _DIGITS = new Int16Array(128).fill(-1);
"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789".split("").forEach((one, i) => {
  _DIGITS[one.charCodeAt(0)] = i;
});
for (const [one, value] of /** @type {[string, number][]} */ ([["+", 62], ["-", 62], ["/", 63], ["_", 63]])) {
  _DIGITS[one.charCodeAt(0)] = value;
}

/** Both alphabets, padding or none, and nothing else.
 * @param {string} text @param {string} what */
export function base64(text, what) {
  const refuse = () => new Refusal("base64", `${what} is not base64`);
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const digits = text.length - padding;
  if (digits % 4 === 1 || (padding && text.length % 4)) throw refuse();
  const bytes = new Uint8Array(Math.floor((digits * 3) / 4));
  let held = 0, bits = 0, at = 0;
  for (let i = 0; i < digits; i++) {
    const code = text.charCodeAt(i);
    const digit = code < 128 ? _DIGITS[code] : -1;
    if (digit < 0) throw refuse();
    held = ((held << 6) | digit) & 0xffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes[at++] = (held >> bits) & 0xff;
    }
  }
  if (held & ((1 << bits) - 1)) throw refuse();
  return bytes;
}

/** By code point, as every list of texts in a ledger is sorted.
 * @param {string} a @param {string} b */
export function byText(a, b) {
  if (a === b) return 0;
  const x = [...a], y = [...b];
  for (let i = 0; i < x.length && i < y.length; i++) {
    if (x[i] !== y[i]) return /** @type {number} */ (x[i].codePointAt(0)) - /** @type {number} */ (y[i].codePointAt(0));
  }
  return x.length - y.length;
}

/** @param {Iterable<string>} texts */
export function sortedTexts(texts) {
  return [...new Set(texts)].sort(byText);
}

/** An object without a prototype, so that no name in a file is anything but a name.
 * @returns {J} */
export function object() {
  return Object.create(null);
}

/** @param {any} value @returns {value is J} */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value for a message. @param {any} value */
export function shown(value) {
  if (value === undefined) return "absent";
  if (typeof value === "bigint") return String(value);
  const text = JSON.stringify(value, (_, one) => (typeof one === "bigint" ? String(one) : one));
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/** The same, with a text as `flopsd verify` quotes it. @param {any} value */
export function quoted(value) {
  return isText(value) ? `'${value.slice(0, 80)}'` : shown(value);
}

/** @param {any} value @returns {value is string} */
export function isText(value) {
  return typeof value === "string";
}

/** @param {any} value @returns {value is bigint} */
export function isInteger(value) {
  return typeof value === "bigint";
}

/** @param {any} value @returns {value is bigint} */
export function isAmount(value) {
  return typeof value === "bigint" && value >= 0n;
}

/** Notes, each once, by their JSON text: compact, with sorted members, in ASCII. @param {J[]} notes @returns {Map<string, J>} */
export function byJsonText(notes) {
  const text = (/** @type {J} */ note) => JSON.stringify(note, Object.keys(note).sort())
    .replace(/[\u007f-\uffff]/g, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const texts = new Map(notes.map((note) => [text(note), note]));
  return new Map([...texts].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Why sums have no architecture basis: each reason once, by its JSON text in ASCII, the first four.
 * @param {J[]} reasons @returns {J[]} */
export function absentReasons(reasons) {
  const known = reasons.filter(({ code }) => code !== "more_reasons");
  const sorted = [...byJsonText(known).values()];
  const more = known.length < reasons.length || sorted.length > 4;
  return [...sorted.slice(0, 4), ...(more ? [{ code: "more_reasons" }] : [])];
}
