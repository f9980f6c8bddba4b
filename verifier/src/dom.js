// Elements of the page. Text is always text: nothing in a ledger becomes markup.

const _SVG = "http://www.w3.org/2000/svg";
const _SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/** @typedef {Node | string | null | undefined} Child */

/** @param {Element} element @param {Record<string, any>} attributes @param {Child[]} children */
function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child !== null && child !== undefined) element.append(child);
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

/** Three digits and a power of ten, as print has them. @param {string | bigint | null} count */
export function about(count) {
  if (count === null) return "not known";
  const digits = String(count);
  if (digits.length <= 4) return digits;
  const number = Number(digits.slice(0, 17));
  const [mantissa] = number.toExponential(2).split("e");
  const carried = mantissa.startsWith("10") ? "1.00" : mantissa;
  const power = digits.length - 1 + (Number(digits.slice(0, 17)).toExponential(2).endsWith(`e+${Math.min(digits.length, 17)}`) ? 1 : 0);
  const raised = [...String(power)].map((one) => _SUPERSCRIPTS[Number(one)]).join("");
  return `${carried}\u00a0×\u00a010${raised}`;
}

/** @param {string} seconds As a ledger writes them. */
export function duration(seconds) {
  const all = Number(seconds);
  if (all < 120) return `${Number(all.toFixed(3))} s`;
  if (all < 7200) return `${(all / 60).toFixed(1)} min`;
  return all < 172800 ? `${(all / 3600).toFixed(1)} h` : `${(all / 86400).toFixed(1)} days`;
}

/** @param {string | null} ppm */
export function percent(ppm) {
  return ppm === null ? "not known" : `${Number((Number(ppm) / 10000).toFixed(2))} %`;
}

/** @param {string} caption @param {string[]} heads @param {Child[][]} rows @param {number[]} [numeric] Columns of numbers. */
export function table(caption, heads, rows, numeric = []) {
  const cls = (/** @type {number} */ i) => (numeric.includes(i) ? "n" : null);
  const cell = (/** @type {Child} */ one, /** @type {number} */ i) =>
    i === 0 ? h("th", { scope: "row", class: cls(i) }, one) : h("td", { class: cls(i) }, one);
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption),
      h("thead", {}, h("tr", {}, ...heads.map((one, i) => h("th", { scope: "col", class: cls(i) }, one)))),
      h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map(cell))))));
}
