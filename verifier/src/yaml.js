// The YAML that peak tables and policies are written in: block and flow maps and lists, plain, quoted and folded text.
// Anything else (anchors, tags, several documents, tabs) is refused: another reader could read it differently.
import { Fault, object } from "./basics.js";

/** @typedef {{indent: number, text: string, number: number}} Row */

/** @param {string} text @returns {any} */
function plain(text) {
  if (text === "" || text === "null" || text === "~") return null;
  if (text === "true") return true;
  if (text === "false") return false;
  if (/^-?(0|[1-9][0-9]*)$/.test(text)) return BigInt(text);
  return text; // a decimal stays the text that it is
}

class Yaml {
  /** @param {string} text */
  constructor(text) {
    const begun = text.replace(/^\uFEFF?((?:[ \t]*(?:#.*)?\r?\n)*)---[ \t]*\r?\n/, "$1\n"); // a mark that there is one document
    this.lines = begun.split("\n");
    this.at = 0;
  }

  /** @param {string} why @returns {Fault} */
  refusal(why) {
    return new Fault(`line ${this.at + 1} of the YAML file: ${why}`);
  }

  /** The next line that says something. @returns {Row | null} */
  peek() {
    for (; this.at < this.lines.length; this.at++) {
      const line = this.lines[this.at];
      if (line.includes("\t")) throw this.refusal("a tab");
      const text = line.trim();
      if (text && !text.startsWith("#")) return { indent: line.length - line.trimStart().length, text, number: this.at };
    }
    return null;
  }

  /** @param {number} indent @returns {any} */
  block(indent) {
    const row = this.peek();
    if (!row || row.indent < indent) return null;
    return row.text.startsWith("- ") || row.text === "-" ? this.list(row.indent) : this.map(row.indent);
  }

  /** @param {number} indent */
  list(indent) {
    const found = [];
    for (let row = this.peek(); row && row.indent === indent && /^-( |$)/.test(row.text); row = this.peek()) {
      const inner = row.text.slice(1).trimStart();
      const shift = row.text.length - inner.length;
      if (inner === "") {
        this.at++;
        found.push(this.block(indent + 1));
      } else if (/^[A-Za-z_][\w.-]*:( |$)/.test(inner)) {
        this.lines[row.number] = " ".repeat(indent + shift) + inner;
        found.push(this.map(indent + shift));
      } else found.push(this.value(inner, indent));
    }
    return found;
  }

  /** @param {number} indent */
  map(indent) {
    const found = object();
    for (let row = this.peek(); row && row.indent >= indent; row = this.peek()) {
      if (row.indent !== indent) throw this.refusal("an indent that fits nowhere");
      const match = /^("[^"\\]*"|[A-Za-z_0-9][^:#"'{}[\],]*):(?: +(.*))?$/.exec(row.text);
      if (!match) throw this.refusal("no member of a map");
      const name = match[1].startsWith('"') ? match[1].slice(1, -1) : match[1];
      if (name in found) throw this.refusal(`'${name}' twice`);
      const rest = (match[2] ?? "").trim();
      if (rest && !rest.startsWith("#")) found[name] = this.value(rest, indent);
      else {
        this.at++;
        const next = this.peek();
        const list = next !== null && next.indent === indent && /^-( |$)/.test(next.text);
        found[name] = list ? this.list(indent) : this.block(indent + 1);
      }
    }
    return found;
  }

  /** What begins on this line behind a colon or a dash. @param {string} text @param {number} indent */
  value(text, indent) {
    if (/^>-?$/.test(text)) return this.folded(indent, text === ">");
    if (/^[&*!|%@`>]/.test(text)) throw this.refusal(`'${text[0]}' is not read here`);
    if (/^[{["']/.test(text)) {
      let whole = text;
      this.at++;
      for (let flow = this.flow(whole); ; flow = this.flow(whole)) {
        if (flow !== undefined) return flow;
        const row = this.peek();
        if (!row) throw this.refusal("no end of a value");
        whole += " " + row.text;
        this.at++;
      }
    }
    let whole = text.replace(/ #.*$/, "").trim();
    if (/: |:$/.test(whole)) throw this.refusal("a colon in a plain text");
    this.at++;
    for (let row = this.peek(); row && row.indent > indent; row = this.peek()) {
      whole += " " + row.text.replace(/ #.*$/, "").trim();
      this.at++;
    }
    return plain(whole);
  }

  /** @param {number} indent @param {boolean} newline */
  folded(indent, newline) {
    const words = [];
    this.at++;
    for (; this.at < this.lines.length; this.at++) {
      const line = this.lines[this.at];
      const text = line.trim();
      if (!text) break;
      if (line.length - line.trimStart().length <= indent) break;
      words.push(text);
    }
    return words.join(" ") + (newline ? "\n" : "");
  }

  /** @param {string} text @returns {any} undefined: it goes on in the next line */
  flow(text) {
    let at = 0;
    const skip = () => {
      while (text[at] === " ") at++;
    };
    const quoted = () => {
      const quote = text[at++];
      let found = "";
      for (; at < text.length; at++) {
        const one = text[at];
        if (one === quote && quote === "'" && text[at + 1] === "'") at++;
        else if (one === quote) {
          at++;
          return found;
        } else if (one === "\\" && quote === '"') throw this.refusal("an escape");
        found += one;
      }
      return undefined;
    };
    /** @param {boolean} name */
    const word = (name) => {
      const begin = at;
      while (at < text.length && !/[,{}[\]]/.test(text[at]) && !(text[at] === ":" && (name || /[ ]/.test(text[at + 1] ?? " ")))) at++;
      return text.slice(begin, at).trim();
    };
    /** @returns {any} */
    const value = () => {
      skip();
      if (text[at] === '"' || text[at] === "'") return quoted();
      if (text[at] === "{" || text[at] === "[") return group(text[at] === "{");
      return at < text.length ? plain(word(false)) : undefined;
    };
    /** @param {boolean} isMap @returns {any} */
    const group = (isMap) => {
      const map = object();
      /** @type {any[]} */
      const list = [];
      const close = isMap ? "}" : "]";
      for (at++; ; ) {
        skip();
        if (text[at] === close) {
          at++;
          return isMap ? map : list;
        }
        if (at >= text.length) return undefined;
        if (isMap) {
          const name = /["']/.test(text[at]) ? quoted() : word(true);
          skip();
          if (at >= text.length) return undefined;
          if (name === undefined || text[at++] !== ":" || name in map) throw this.refusal("a member of a flow map");
          map[name] = value();
          if (map[name] === undefined) return undefined;
        } else {
          const one = value();
          if (one === undefined) return undefined;
          list.push(one);
        }
        skip();
        if (at >= text.length) return undefined;
        if (text[at] === ",") at++;
        else if (text[at] !== close) throw this.refusal("no comma in a flow value");
      }
    };
    const found = value();
    if (found === undefined) return undefined;
    skip();
    if (at < text.length && !text.slice(at).startsWith("#")) throw this.refusal("something behind a value");
    return found;
  }
}

/** @param {string} text @returns {any} */
export function parseYaml(text) {
  const reader = new Yaml(text);
  const found = reader.block(0);
  if (reader.peek()) throw reader.refusal("something behind the last value");
  return found;
}
