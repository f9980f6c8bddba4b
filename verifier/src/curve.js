// FLOP over time, from the checkpoints of the journal: at least, measured and at most.
import { about, duration, h, svg } from "./dom.js";
import { plus, zero } from "./figures.js";
import { microseconds } from "./times.js";
import { rated } from "./rows.js";

/** @typedef {import("./figures.js").Figures} Figures */
/** @typedef {{at: number, figures: Figures}} Spot */
const _WIDTH = 900, _HEIGHT = 250, _LEFT = 4, _TOP = 4, _BOTTOM = 4;

/** @param {import("./history.js").History} history @param {import("./peaks.js").Peaks} peaks @returns {Spot[]} */
export function course(history, peaks) {
  const begin = microseconds(history.first.utc);
  const spots = history.points.map(({ utc, tallies }) => ({
    at: Number(microseconds(utc) - begin) / 1e6,
    figures: tallies.map(({ device, tally }) => rated({ ...device, last: tally }, peaks).flop).reduce(plus, zero()),
  }));
  return [{ at: 0, figures: { low: 0n, measured: 0n, high: 0n } }, ...spots];
}

/** @param {Spot[]} spots */
export function curve(spots) {
  const end = spots[spots.length - 1];
  const span = Math.max(...spots.map((one) => one.at), 1);
  const most = spots.reduce((top, { figures }) => {
    const one = figures.high ?? figures.measured ?? figures.low;
    return one > top ? one : top;
  }, 1n);
  const x = (/** @type {number} */ at) => _LEFT + (at / span) * (_WIDTH - 2 * _LEFT);
  const y = (/** @type {bigint} */ count) => _HEIGHT - _BOTTOM - Number((count * 10000n) / most) / 10000 * (_HEIGHT - _TOP - _BOTTOM);
  const path = (/** @type {(figures: Figures) => bigint | null} */ of) => spots.filter((one) => of(one.figures) !== null)
    .map((one, i) => `${i ? "L" : "M"}${x(one.at).toFixed(1)} ${y(/** @type {bigint} */ (of(one.figures))).toFixed(1)}`).join("");
  const bounded = spots.filter((one) => one.figures.high !== null);
  const back = [...bounded].reverse().map((one) => `L${x(one.at).toFixed(1)} ${y(one.figures.low).toFixed(1)}`).join("");
  const words = `Measured ${about(end.figures.measured)} FLOP at the end, at least ${about(end.figures.low, "down")}, at most ${about(end.figures.high, "up")}`;
  return h("div", { class: "over-time" },
    h("p", { class: "sub" }, `${about(most, "up")} FLOP`),
    svg("svg", { class: "plot", viewBox: `0 0 ${_WIDTH} ${_HEIGHT}`, role: "img", "aria-label": words },
      svg("line", { class: "grid", x1: _LEFT, x2: _WIDTH - _LEFT, y1: _TOP, y2: _TOP }),
      svg("line", { class: "track", x1: _LEFT, x2: _WIDTH - _LEFT, y1: _HEIGHT - _BOTTOM, y2: _HEIGHT - _BOTTOM }),
      bounded.length > 1 ? svg("path", { class: "band-fill", d: `${path((one) => one.high)}${back}Z` }) : null,
      svg("path", { class: "line low-line", d: path((one) => one.low) }),
      svg("path", { class: "line", d: path((one) => one.measured) })),
    h("p", { class: "sub ends" }, h("span", {}, "first record"), h("span", {}, `${duration(String(span))} later`)),
    h("ul", { class: "legend" }, h("li", {}, "solid line: measured"), h("li", {}, "dashed line: at least"),
      h("li", {}, bounded.length === spots.length ? "band: from at least to at most" : "band: from at least to at most, where that is known")));
}
