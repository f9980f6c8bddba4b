// Elements of the page. Text is always text: nothing in a ledger becomes markup.

const _SVG = "http://www.w3.org/2000/svg";
const _SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

const _UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\u034f\u115f\u1160\u3164\uffa0]/gu;
const _MOST_ROWS = 50;
const _MOST_CHARACTERS = 1000;

/** @typedef {Node | string | null | undefined} Child */

/** Text of a file as it can be seen: what would turn its direction, hide or move a part of it is spelled out.
 * @param {string} text */
export function visible(text) {
  return text.replace(_UNSEEN, (one) => `\\u{${/** @type {number} */ (one.codePointAt(0)).toString(16)}}`);
}

/** What a browser lays out without a pause. @param {string} text */
export function shortened(text) {
  return text.length > _MOST_CHARACTERS ? `${text.slice(0, _MOST_CHARACTERS)}… (${text.length} characters)` : text;
}

/** @param {Element} element @param {Record<string, any>} attributes @param {Child[]} children */
function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : visible(String(value)));
  }
  for (const child of children) if (child !== null && child !== undefined) element.append(typeof child === "string" ? visible(shortened(child)) : child);
  return element;
}

/** @param {string} tag @param {Record<string, any>} [attributes] @param {...Child} children */
export function h(tag, attributes = {}, ...children) {
  return /** @type {HTMLElement} */ (filled(document.createElement(tag), attributes, children));
}

/** @param {string} tag @param {Record<string, any>} [attributes] @param {...Child} children */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(_SVG, tag), attributes, children);
}

/** Three digits and a power of ten, as print has them; a whole power of ten and a count below a thousand are exact. A
 * bound is rounded so that it still holds.
 * @param {string | bigint | null} count @param {"down" | "near" | "up"} [towards] */
export function about(count, towards = "near") {
  if (count === null) return towards === "up" ? "no bound known" : "not known";
  const digits = String(count);
  if (digits.length <= 3) return digits;
  let power = digits.length - 1;
  const raised = () => `10${[...String(power)].map((one) => _SUPERSCRIPTS[Number(one)]).join("")}`;
  if (/^10+$/.test(digits)) return raised();
  const rest = digits.slice(3), half = BigInt(rest) * 2n - 10n ** BigInt(rest.length);
  const odd = Number(digits[2]) % 2 === 1;
  const isUp = towards === "up" ? BigInt(rest) > 0n : towards === "near" && (half > 0n || (half === 0n && odd));
  let three = Number(digits.slice(0, 3)) + (isUp ? 1 : 0);
  if (three === 1000) {
    three = 100;
    power++;
  }
  return `${(three / 100).toFixed(2)}\u00a0×\u00a0${raised()}`;
}

/** @param {string} seconds As a ledger writes them. */
export function duration(seconds) {
  const all = Number(seconds);
  if (all < 120) return `${Number(all.toFixed(3))} s`;
  if (all < 7200) return `${(all / 60).toFixed(1)} min`;
  return all < 172800 ? `${(all / 3600).toFixed(1)} h` : `${(all / 86400).toFixed(1)} days`;
}

/** Rounded down. @param {string | null} ppm */
export function percent(ppm) {
  return ppm === null ? "not known" : `${Math.floor(Number(ppm) / 100) / 100} %`;
}

/** Of more rows than a reader reads the first; `hidden` more are nowhere.
 * @param {string} caption @param {string[]} heads @param {Child[][]} rows @param {number[]} [numeric] Columns of numbers.
 * @param {number} [hidden] */
export function table(caption, heads, rows, numeric = [], hidden = 0) {
  const cls = (/** @type {number} */ i) => (numeric.includes(i) ? "n" : null);
  const cell = (/** @type {Child} */ one, /** @type {number} */ i) =>
    i === 0 ? h("th", { scope: "row", class: cls(i) }, one) : h("td", { class: cls(i) }, one);
  const more = hidden + Math.max(0, rows.length - _MOST_ROWS);
  return h("div", {},
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      h("table", {}, h("caption", {}, caption),
        h("thead", {}, h("tr", {}, ...heads.map((one, i) => h("th", { scope: "col", class: cls(i) }, one)))),
        h("tbody", {}, ...rows.slice(0, _MOST_ROWS).map((row) => h("tr", {}, ...row.map(cell)))))),
    more ? h("p", { class: "note" }, `${more} more are not shown; they are in every sum.`) : null);
}
