// Strict JSON: what two readers could read differently is refused. Whole numbers become BigInt.
import { Refusal, decodeUtf8, object } from "./basics.js";

const _SCALAR = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|null|true|false|NaN|-?Infinity/y;
const _WHOLE = /^-?[0-9]+$/;
const _ESCAPES = /** @type {Record<string, string>} */ ({
  '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t",
});
const _LONE_SURROGATE = /\p{Surrogate}/u;
const _MOST_CHARACTERS = 40;
const _DEEPEST = 100;
const _MOST_PARTS = 4_000_000;
const _QUOTE = 34, _COMMA = 44, _LIST = 91, _BACKSLASH = 92, _OBJECT = 123, _TO_END = 2; // from a bracket to its other one

/** What comes first of several faults: JSON-10. @param {Uint8Array} bytes @param {string} what */
export function parseBytes(bytes, what) {
  const { parts, openers } = partsOf(bytes);
  if (parts > _MOST_PARTS) throw new Refusal("json_too_many_values", `${what} has more than ${_MOST_PARTS} parts`);
  if (openers > _DEEPEST && tooDeep(bytes)) throw new Refusal("json_too_deep", `${what} is nested too deeply`);
  return parseJson(decodeUtf8(bytes, what), what);
}

/** @param {string} text @param {string} what @returns {any} */
export function parseJson(text, what) {
  let at = 0, isHalf = false;

  /** @param {string} why */
  const notJson = (why) => new Refusal("json_malformed", `${what} is not JSON: ${why} at character ${at + 1}`);

  const skip = () => {
    for (; at < text.length; at++) {
      const code = text.charCodeAt(at);
      if (code !== 32 && code !== 10 && code !== 13 && code !== 9) return;
    }
  };

  const string = () => {
    const end = text.indexOf('"', at + 1);
    if (end < 0) throw notJson("a text without an end");
    const plain = text.slice(at + 1, end);
    if (!/[\\\u0000-\u001f]/.test(plain)) {
      at = end + 1;
      return plain;
    }
    return escaped();
  };

  const escaped = () => {
    let found = "";
    for (at++; ; ) {
      const one = text[at];
      if (one === undefined || one < " ") throw notJson("a text with a control character or without an end");
      if (one === '"') break;
      if (one !== "\\") {
        found += one;
        at++;
        continue;
      }
      const kind = text[at + 1];
      if (kind === "u") {
        const digits = text.slice(at + 2, at + 6);
        if (!/^[0-9a-fA-F]{4}$/.test(digits)) throw notJson("an escape that is none");
        found += String.fromCharCode(parseInt(digits, 16));
        at += 6;
      } else {
        if (!Object.hasOwn(_ESCAPES, kind)) throw notJson("an escape that is none");
        found += _ESCAPES[kind];
        at += 2;
      }
    }
    at++;
    isHalf ||= _LONE_SURROGATE.test(found);
    return found;
  };

  const scalar = () => {
    _SCALAR.lastIndex = at;
    const match = _SCALAR.exec(text);
    if (!match) throw notJson("no value");
    const word = match[0];
    if (word === "null" || word === "true" || word === "false") {
      at += word.length;
      return word === "null" ? null : word === "true";
    }
    if (word.length > _MOST_CHARACTERS || !_WHOLE.test(word)) {
      const begin = word.length > 40 ? `${word.slice(0, 40)}…` : word;
      throw new Refusal("json_number", `${what} contains the number '${begin}', not a whole number of at most 40 digits`);
    }
    at += word.length;
    return BigInt(word);
  };

  const members = () => {
    const found = object();
    /** @type {string | null} */
    let twice = null;
    at++;
    skip();
    if (text[at] === "}") {
      at++;
      return found;
    }
    for (;;) {
      skip();
      if (text[at] !== '"') throw notJson("no name of a member");
      const name = string();
      skip();
      if (text[at] !== ":") throw notJson("no colon");
      at++;
      if (name in found) twice ??= name;
      found[name] = value();
      skip();
      const next = text[at++];
      if (next === "}") break;
      if (next !== ",") throw notJson("no comma");
    }
    if (twice !== null) throw new Refusal("json_duplicate_member", `${what} contains the key '${twice}' twice`);
    return found;
  };

  const items = () => {
    /** @type {any[]} */
    const found = [];
    at++;
    skip();
    if (text[at] === "]") {
      at++;
      return found;
    }
    for (;;) {
      found.push(value());
      skip();
      const next = text[at++];
      if (next === "]") return found;
      if (next !== ",") throw notJson("no comma");
    }
  };

  /** @returns {any} */
  const value = () => {
    skip();
    const one = text[at];
    if (one === '"') return string();
    if (one !== "{" && one !== "[") return scalar();
    return one === "{" ? members() : items();
  };

  const found = value();
  skip();
  if (at !== text.length) throw notJson("something behind its end");
  if (isHalf) throw new Refusal("json_surrogate", `${what} is not valid UTF-8 text`);
  return found;
}

/** How often `{`, `[` and `,` occur, within texts too: what is parsed takes no more time and memory than that.
 * @param {Uint8Array} bytes */
function partsOf(bytes) {
  let openers = 0, commas = 0;
  for (const code of bytes) {
    if (code === _LIST || code === _OBJECT) openers++;
    else if (code === _COMMA) commas++;
  }
  return { parts: openers + commas, openers };
}

/** Whether objects and lists are in each other too often, which is looked at before anything else.
 * @param {Uint8Array} bytes */
function tooDeep(bytes) {
  let depth = 0, isText = false;
  for (let i = 0; i < bytes.length && depth >= 0; i++) {
    const code = bytes[i];
    if (code === _QUOTE) isText = !isText;
    else if (isText) i += code === _BACKSLASH ? 1 : 0;
    else if (code === _LIST || code === _OBJECT) {
      if (++depth > _DEEPEST) return true;
    } else if (code === _LIST + _TO_END || code === _OBJECT + _TO_END) depth--;
  }
  return false;
}

/** JSON of a statement or a report, with whole numbers as they are.
 * @param {any} value @param {string} [indent] @returns {string} */
export function writeJson(value, indent = "") {
  const deeper = indent + " ";
  if (typeof value === "bigint" || typeof value === "number" || typeof value === "boolean") return String(value);
  if (value === null || value === undefined) return "null";
  if (typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value)) {
    if (!value.length) return "[]";
    return `[\n${value.map((one) => deeper + writeJson(one, deeper)).join(",\n")}\n${indent}]`;
  }
  const names = Object.keys(value);
  if (!names.length) return "{}";
  const lines = names.map((name) => `${deeper}${JSON.stringify(name)}: ${writeJson(value[name], deeper)}`);
  return `{\n${lines.join(",\n")}\n${indent}}`;
}
