// What the page shows of a ledger that was verified, or why it is refused.
import { course, curve } from "./curve.js";
import { about, duration, h, percent, table } from "./dom.js";
import { limits } from "./limits.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./verify.js").Accepted} Accepted */
/** @typedef {import("./dom.js").Child} Child */

const _MOST_ROWS = 200;

/** @param {string} id @param {string} title @param {...Child} children */
function section(id, title, ...children) {
  return h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), ...children);
}

/** @param {[string, Child][]} pairs @param {string} [cls] */
function facts(pairs, cls = "facts") {
  return h("dl", { class: cls }, ...pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/** @param {"verified" | "in-part" | "refused"} state @param {string} says @param {...Child} children */
function verdict(state, says, ...children) {
  const cls = state === "verified" ? "check-verified" : state === "refused" ? "check-refused" : "check-in-part";
  const stated = state === "refused" ? "refuse" : "accept";
  return h("div", { class: `check ${cls}`, role: "alert", "data-verdict": stated }, h("div", {}, h("p", { class: "says" }, says), ...children));
}

/** @param {{code: string, message: string, path: string | null}} found */
export function refused({ code, message, path }) {
  const more = code === "peak_table_unknown" || code === "policy_unknown"
    ? "If you have that file and accept its rates or rules, give it above as accepted."
    : "No figure of a ledger that is refused is shown.";
  return h("div", {}, verdict("refused", `Refused: ${message}`, h("p", {}, more),
    facts([["Reason code", h("span", { class: "mono", "data-code": code }, code)], ["Where", h("span", { class: "mono" }, path ?? "not known")]])));
}

/** @param {J} figures @param {string} unit */
function triple(figures, unit) {
  const value = (/** @type {string | null} */ one) => h("span", {}, about(one), " ", one === null ? null : h("span", { class: "unit" }, unit));
  return h("dl", { class: "triple" },
    h("div", { class: "main" }, h("dt", {}, "Measured"), h("dd", {}, value(figures.measured))),
    h("div", {}, h("dt", {}, "At least"), h("dd", {}, value(figures.low))),
    h("div", {}, h("dt", {}, "At most"), h("dd", {}, value(figures.high))));
}

/** @param {J} predicate */
function figures(predicate) {
  const { executed, guidelines, integerOperations, architecture } = predicate.totals;
  const card = (/** @type {string} */ title, /** @type {string} */ meaning, /** @type {Child[]} */ ...children) =>
    h("div", { class: "card" }, h("h3", {}, title), ...children, h("p", { class: "meaning" }, meaning));
  const claimed = guidelines.asClaimed;
  return section("figures", "Figures",
    h("div", { class: "cards" },
      card("Executed", "What the accelerators executed, whatever for.", triple(executed, "FLOP")),
      card("Counts under the Guidelines", "What directly contributes to parameter updates; cumulative adds generated data.",
        triple(guidelines, "FLOP"), h("h4", {}, "Cumulative"), triple(guidelines.cumulative, "FLOP"),
        ...(claimed ? [h("h4", {}, "If the training processes say the truth"), triple(claimed, "FLOP")] : [])),
      card("Integer operations", "Of tensor cores, beside the FLOP.", triple(integerOperations, "operations")),
      architecture ? card("By the model's shape", "Stated, and not verified here.", triple({ ...architecture, measured: architecture.computed }, "FLOP")) : null),
    table("Executed, by phase", ["Phase", "At least", "Measured", "At most"], Object.keys(executed.byPhase).map((phase) => {
      const one = executed.byPhase[phase];
      return [phase, about(one.low), about(one.measured), about(one.high)];
    }), [1, 2, 3]),
    table("Executed, by evidence", ["Evidence", "At least", "Measured", "At most"], Object.keys(executed.byEvidence).map((name) => {
      const one = executed.byEvidence[name];
      return [name, about(one.low), about(one.measured), about(one.high)];
    }), [1, 2, 3]),
    facts([
      ["Energy", predicate.energyJoules === null ? "no counter" : `${predicate.energyJoules} J`],
      ["Device time without an energy counter", duration(predicate.energyUncountedSeconds)],
      ["Device time", duration(predicate.deviceSeconds)],
      ["Not unknown, of the job's device time", percent(predicate.coverage.coveragePpm)],
    ]));
}

/** @param {J[]} findings */
function answer(findings) {
  if (!findings.length) return section("findings", "Rules", h("p", {}, "The ledger was judged by no policy."));
  const chip = (/** @type {string | null} */ state) =>
    state === null ? h("span", { class: "none" }, "does not apply") : h("span", { class: `chip chip-${state}` }, `\u00a0${state}`);
  const rows = findings.map((one) => [
    h("span", {}, one.title, h("span", { class: "sub" }, `${one.policy}: ${one.rule}; ${one.citation}`)), chip(one.state),
    one.threshold === null ? "–" : `${one.threshold.comparison.replace("_", " ")} ${shownFraction(one.threshold.low)}` +
      (one.threshold.low === one.threshold.high ? "" : ` to ${one.threshold.high === null ? "no end" : shownFraction(one.threshold.high)}`),
    about(one.value.low), about(one.value.high), one.applies === null ? "not declared" : one.applies ? "yes" : "no",
  ]);
  return section("findings", "Rules",
    table("Each rule of each policy", ["Rule", "State", "Threshold, FLOP", "At least", "At most", "Applies"], rows, [3, 4]));
}

/** @param {string} text A count, or a shownFraction of two. */
function shownFraction(text) {
  const [over, under] = text.split("/");
  return under === undefined ? about(over) : `${about(over)} / ${under.length > 4 ? about(under) : under}`;
}

/** @param {J} coverage */
function gaps(coverage) {
  const reasons = Object.keys(coverage.gapSecondsByReason);
  if (!reasons.length) return section("gaps", "Gaps", h("p", {}, "Every device was read in all of its time."));
  const listed = coverage.gaps ?? [];
  const rows = listed.slice(0, _MOST_ROWS).map((/** @type {J} */ one) => [
    h("span", { class: "mono" }, one.device), one.reason, String(one.incarnation), duration(one.beginSeconds), duration(one.seconds),
    one.ceiling === null ? "no ceiling" : about(one.ceiling),
  ]);
  const hidden = listed.length - rows.length + Number(coverage.gapsNotListed ?? 0);
  return section("gaps", "Gaps",
    table("Time without a reading, by reason", ["Reason", "Time"], reasons.map((name) => [name, duration(coverage.gapSecondsByReason[name])]), [1]),
    rows.length ? table("The longest gaps", ["Device", "Reason", "Start of the daemon", "Begins after", "Length", "FLOP at most"], rows, [2, 3, 4, 5]) : null,
    hidden > 0 ? h("p", { class: "note" }, `${hidden} more gaps are not shown here; they are in every sum.`) : null);
}

/** @param {J} predicate */
function parts(predicate) {
  if (predicate.kind === "node") {
    const rows = predicate.devices.map((/** @type {J} */ one) => [
      h("span", { class: "mono" }, one.uuid), one.model, one.evidence, about(one.executed.low), about(one.executed.measured),
      about(one.executed.high), duration(one.spanSeconds),
    ]);
    return section("devices", "Devices",
      table("Accelerators", ["Device", "Model", "Evidence", "At least", "Measured", "At most", "Time"], rows, [3, 4, 5, 6]));
  }
  const rows = predicate.children.map((/** @type {J} */ one) => [
    h("span", { class: "mono" }, one.name), one.run, one.rank === null ? "–" : String(one.rank), about(one.totals.executed.low),
    about(one.totals.executed.measured), about(one.totals.executed.high), percent(one.coverage.coveragePpm),
  ]);
  return section("children", "Ledgers that were added up",
    table("Children", ["Ledger", "Run", "Rank", "At least", "Measured", "At most", "Coverage"], rows.slice(0, _MOST_ROWS), [2, 3, 4, 5, 6]),
    rows.length > _MOST_ROWS ? h("p", { class: "note" }, `${rows.length - _MOST_ROWS} more are not shown.`) : null);
}

/** @param {Accepted} found @param {number} seconds */
export function accepted(found, seconds) {
  const { predicate } = found.statement;
  const whole = !found.unverified.length;
  const says = whole ? "Verified: every figure was computed again and is equal."
    : "Verified in part: what is named below was not computed again.";
  const name = predicate.kind === "lineage" ? predicate.lineage.name : predicate.run.id;
  const by = found.signers.map((one) => `${one.kind} ${one.id}`);
  return h("div", {},
    verdict(whole ? "verified" : "in-part", says,
      h("p", {}, `${found.leaves} values compared, ${found.history ? `${found.history.records} records, ` : ""}in ${seconds.toFixed(1)} s.`),
      ...found.unverified.map((one) => h("p", { class: "mono" }, one))),
    section("ledger", `${predicate.kind} ${name}`,
      facts([
        ["Node", predicate.node?.name ?? "–"], ["Platform", predicate.run?.platform ?? "–"], ["Sealed at", predicate.method.sealedAt],
        ["flopsd", predicate.method.flopsdVersion],
      ]),
      facts([
        ["Signed by, as SHA-256 of the key", h("span", {}, ...by.map((one) => h("span", { class: "sub mono" }, one)))],
        ["SHA-256 of the payload", h("span", { class: "mono" }, found.sha256)],
        ["Chain hash of the journal's last record", h("span", { class: "mono" }, found.head ?? "–")],
      ], "facts digests")),
    answer(predicate.findings), figures(predicate),
    found.history && found.peaks && found.history.points.length
      ? section("course", "Over time", curve(course(found.history, found.peaks))) : null,
    parts(predicate), gaps(predicate.coverage),
    section("limits", "What this ledger does not say", h("ul", { class: "missing" }, ...limits(found).map((one) => h("li", {}, one)))));
}
