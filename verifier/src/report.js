// What the page shows of a ledger that was verified, or why it is refused.
import { curve } from "./curve.js";
import { about, duration, h, percent, table } from "./dom.js";
import { limits } from "./limits.js";
import { recordings } from "./merging.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./worker.js").Shown} Shown */
/** @typedef {import("./dom.js").Child} Child */

const _MOST_NAMED = 10;
const _EVIDENCE = /** @type {Record<string, string>} */ ({
  cycles: "hardware counters since boot", activity: "hardware percentages, an estimate", count: "counted by the vendor's software",
  operator_count: "said by the training process", utilization: "time in which anything ran, an upper bound", gap: "no reading counts, an upper bound if one is known",
});

const _DOUBTS = /** @type {Record<string, string>} */ ({
  interpretation: "This is flopsd's reading and not the text's.", secondary: "The official text of this rule was not read.",
});

/** @param {string} utc */
const time = (utc) => utc.replace("T", " ").replace(/(\.\d+)?Z$/, " UTC");

/** A code of the ledger as words. @param {string} code */
const words = (code) => code.replaceAll("_", " ");

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
  const stated = state === "refused" ? "refuse" : "accept";
  return h("div", { class: `check check-${state}`, role: "alert", "data-verdict": stated }, h("div", {}, h("p", { class: "says" }, says), ...children));
}

/** @param {import("./worker.js").Named} named */
function filesOf({ name, journalName, given }) {
  const children = given ? ` and ${given} other ledger${given === 1 ? "" : "s"}` : "";
  return h("span", { class: "mono" }, `${name}${journalName ? `, ${journalName}` : ""}${children}`);
}

const _ADVICE = /** @type {Record<string, string>} */ ({
  peak_table_unknown: "If you have that file and accept its rates, choose it as a peak table that you accept.",
  policy_unknown: "If you have that file and accept its rules, choose it as a policy that you accept.",
  journal_missing: "Give its journal too: NAME.journal.jsonl.",
  too_few_signatures: "Give the public key of whoever signed, if you trust it.",
  key_not_allowed: "Give the public key as a PEM file: BEGIN PUBLIC KEY, Ed25519 or P-256.",
  replay: "A replay metered no hardware: it is evidence of nothing but its own arithmetic. To see it all the same, accept replays.",
});

/** @param {import("./worker.js").Refused} found */
export function refused(found) {
  const { code, message, path } = found;
  const advice = Object.hasOwn(_ADVICE, code) ? _ADVICE[code] : null;
  return h("div", {}, verdict("refused", `Refused: ${message}`,
    h("p", {}, "Nothing that this ledger states is shown, since nothing of it is proven."), advice ? h("p", {}, advice) : null,
    facts([
      ["Files", filesOf(found)], ["Reason code", h("span", { class: "mono", "data-code": code }, code)],
      ["Where", h("span", { class: "mono" }, path ?? "–")],
    ])));
}

/** @param {J} figures @param {string} unit */
function triple(figures, unit) {
  const value = (/** @type {string | null} */ one, /** @type {"down" | "near" | "up"} */ towards) =>
    h("span", {}, about(one, towards), " ", one === null ? null : h("span", { class: "unit" }, unit));
  return h("dl", { class: "triple" },
    h("div", { class: "main" }, h("dt", {}, "Measured"), h("dd", {}, value(figures.measured, "near"))),
    h("div", {}, h("dt", {}, "At least"), h("dd", {}, value(figures.low, "down"))),
    h("div", {}, h("dt", {}, "At most"), h("dd", {}, value(figures.high, "up"))));
}

/** At least, measured, at most. @param {J} figures */
function three({ low, measured, high }) {
  // Else it is a part that a process counts in the time of other parts.
  const isWhole = high === null || BigInt(high) >= BigInt(low);
  return [about(low, "down"), about(measured), isWhole ? about(high, "up") : "in the time of other rows"];
}

/** @param {string} joules With three decimals. */
function energy(joules) {
  const kilowattHours = Number(joules) / 3.6e6;
  return kilowattHours < 1 ? `${joules} J` : `${about(joules.split(".")[0])} J, ${kilowattHours.toFixed(1)} kWh`;
}

/** @param {J} predicate */
function figures(predicate) {
  const { executed, guidelines, integerOperations, architecture } = predicate.totals;
  const card = (/** @type {string} */ title, /** @type {string} */ meaning, /** @type {Child[]} */ ...children) =>
    h("div", { class: "card" }, h("h3", {}, title), ...children, h("p", { class: "meaning" }, meaning));
  const isWhole = !predicate.completeness || predicate.completeness.complete === true;
  const part = (/** @type {J} */ sums) => three(isWhole ? sums : { ...sums, high: null });
  const claimed = guidelines.asClaimed;
  const bounded = executed.high !== null && guidelines.high !== null;
  const left = bounded ? BigInt(executed.high) - BigInt(guidelines.high) : 0n;
  return section("figures", "Figures",
    h("div", { class: "cards" },
      card("Executed", "What the accelerators executed, whatever for.", triple(executed, "FLOP"),
        "operator_count" in executed.byEvidence ? h("p", { class: "note" }, "The measured figure and the lower bound include software's count by "
          + "the training process, which nobody checked. Work that the process cannot count is in neither.") : null,
        executed.mayBeIntegerFlop === "0" ? null : h("p", { class: "note" }, `${about(executed.mayBeIntegerFlop, "up")} FLOP of what was measured `
          + "may be integer: no counter distinguishes them.")),
      card("Counts under the Guidelines", "What directly contributes to parameter updates; cumulative adds generated data.",
        triple(guidelines, "FLOP"), h("h4", {}, "Cumulative"), triple(guidelines.cumulative, "FLOP"),
        left > 0n ? h("p", { class: "note" }, `Up to ${about(String(left), "up")} FLOP that were executed are left out: `
          + "the settings declare them as evaluation, which no counter shows.") : null,
        ...(claimed ? [h("h4", {}, "If what the training processes state is true"), triple(claimed, "FLOP")] : [])),
      card("Integer operations", "Of tensor cores, beside the FLOP.", triple(integerOperations, "operations")),
      architecture ? card("By the model's shape", "From what the training process declared.", triple({ ...architecture, measured: architecture.computed }, "FLOP")) : null),
    table("FLOP executed, by phase", ["Phase", "At least", "Measured", "At most"],
      Object.keys(executed.byPhase).map((phase) => [phase, ...part(executed.byPhase[phase])]), [1, 2, 3]),
    table("FLOP executed, by evidence", ["Evidence", "At least", "Measured", "At most"],
      Object.keys(executed.byEvidence).map((name) => [
        h("span", {}, words(name), Object.hasOwn(_EVIDENCE, name) ? h("span", { class: "sub" }, _EVIDENCE[name]) : null),
        ...part(executed.byEvidence[name]),
      ]), [1, 2, 3]),
    facts([
      ["Energy", predicate.energyJoules === null ? "no counter" : energy(predicate.energyJoules)],
      ["Device time without an energy reading",
        `${isOpen(predicate.coverage) ? "at least " : ""}${duration(predicate.energyUncountedSeconds)}`],
      ["Device time", `${isOpen(predicate.coverage) ? "at least " : ""}${duration(predicate.deviceSeconds)}`],
      ["Device time of the job that is known", known(predicate.coverage)],
    ]));
}

/** What a finding is not without. @param {J} one */
function conditions(one) {
  const found = [], base = one.aboveOnlyIfBase, isOpen = one.state === "above" || one.state === "indeterminate";
  if (one.restsOn) found.push("This rests on the count of operators by its training processes, which nobody checked.");
  if (one.stateIfClaimsHold !== null) found.push(`It is ${one.stateIfClaimsHold} if what its processes claim is true.`);
  if (base) {
    const risk = base.systemic === null ? "" : ` carries ${base.systemic ? "" : "no "}systemic risk and`;
    found.push(`Above only if the base model${risk} took from ${about(base.leastFlop, "down")} to ${about(base.mostFlop, "up")} FLOP.`);
  }
  if (isOpen && Object.hasOwn(_DOUBTS, one.status)) found.push(_DOUBTS[one.status]);
  if (isOpen && one.assumes) found.push(`It assumes: ${one.assumes}.`);
  if (isOpen && one.otherConditions.length) found.push(`Not decided here: ${one.otherConditions.join("; ")}.`);
  if (one.state === "above" && one.since) found.push(`The rule applies from ${one.since}.`);
  return found.map((text) => h("span", { class: "sub" }, text));
}

/** @param {J[]} findings */
function answer(findings) {
  if (!findings.length) return section("findings", "Rules", h("p", {}, "No policy was applied to this ledger."));
  const chip = (/** @type {string | null} */ state) =>
    state === null ? h("span", { class: "none" }, "does not apply") : h("span", { class: `chip chip-${state}` }, `\u00a0${state}`);
  const rows = findings.map((one) => [
    h("span", {}, one.title, h("span", { class: "sub" }, `${one.policy}: ${one.rule}; ${one.citation}`), ...conditions(one)), chip(one.state),
    one.threshold === null ? "–" : `${words(one.threshold.comparison)} ${shownThreshold(one.threshold)}`,
    about(one.value.low, "down"), about(one.value.high, "up"), one.applies === null ? "not known" : one.applies ? "yes" : "no",
  ]);
  return section("findings", "Rules",
    h("p", { class: "note" }, "Below: even the upper bound does not cross the threshold. Above: the lower bound crosses it. " +
      "Indeterminate: this ledger does not decide it."),
    table("Each rule of each policy", ["Rule", "State", "Threshold, FLOP", "At least", "At most", "Applies"], rows, [3, 4]));
}

/** @param {J} threshold */
function shownThreshold({ low, high }) {
  if (low === high) return shownFraction(low);
  return high === null ? `a value of ${shownFraction(low)} or more` : `a value from ${shownFraction(low)} to ${shownFraction(high)}`;
}

/** @param {string} text A count, or a fraction of two. */
function shownFraction(text) {
  const [over, under] = text.split("/");
  return under === undefined ? about(over) : `${about(over)} / ${about(under)}`;
}

/** Whether it is not known how long some gaps were. @param {J} coverage */
function isOpen({ gapSecondsByReason }) {
  return "end_unknown" in gapSecondsByReason || "journal_replaced" in gapSecondsByReason;
}

/** @param {J} coverage */
function known(coverage) {
  return `${isOpen(coverage) && coverage.coveragePpm !== null ? "at most " : ""}${percent(coverage.coveragePpm)}`;
}

/** @param {J} coverage */
function gaps(coverage) {
  const took = (/** @type {string} */ reason, /** @type {string} */ seconds) =>
    `${isOpen({ gapSecondsByReason: { [reason]: seconds } }) ? "at least " : ""}${duration(seconds)}`;
  const reasons = Object.keys(coverage.gapSecondsByReason);
  const none = coverage.coveragePpm === null ? "No device time was metered." : "Every device was read in all of its time.";
  if (!reasons.length) return section("gaps", "Gaps", h("p", {}, none));
  const listed = coverage.gaps ?? [];
  const longest = [...listed].sort((a, b) => Number(b.seconds) - Number(a.seconds));
  const rows = longest.map((/** @type {J} */ one) => [
    h("span", { class: "mono" }, one.device), took(one.reason, one.seconds), about(one.ceiling, "up"), words(one.reason), duration(one.beginSeconds),
    String(one.incarnation),
  ]);
  return section("gaps", "Gaps",
    h("p", { class: "note" }, "In a gap it is not known what a device did. What no running counter recovered and no training process counted adds nothing to the measured figure, and to the upper bound all that the device can do, if that is known. Time that was another job's or another device's is in no figure."),
    table("Time without a reading, by reason", ["Reason", "Time"], reasons.map((name) => [words(name), took(name, coverage.gapSecondsByReason[name])]), [1]),
    rows.length ? table("Single gaps, the longest first", ["Device", "Length", "FLOP at most", "Reason", "Begins after", "Start of the daemon"], rows, [1, 2, 4, 5],
      Number(coverage.gapsNotListed ?? 0)) : null);
}

/** What a device's figures are known by, also by earlier daemon starts and by processes. @param {J} device */
function knownBy({ work, evidence, observedSeconds, recoveredSeconds }) {
  const found = new Set(work.map((/** @type {J} */ row) => row.evidence));
  found.delete("gap");
  if (Number(observedSeconds) || Number(recoveredSeconds)) found.add(evidence); // it may have been idle
  return Object.keys(_EVIDENCE).filter((name) => found.has(name)).map(words).join(", ") || words("gap");
}

/** @param {J} predicate */
function parts(predicate) {
  if (predicate.kind === "node") {
    const rows = predicate.devices.map((/** @type {J} */ one) => [
      h("span", { class: "mono" }, one.uuid), one.model, knownBy(one), ...three(one.executed), duration(one.spanSeconds),
    ]);
    return section("devices", "Devices",
      table("FLOP executed by each accelerator", ["Device", "Model", "Evidence", "At least", "Measured", "At most", "Time"], rows, [3, 4, 5, 6]));
  }
  const rows = predicate.children.map((/** @type {J} */ one) => [
    h("span", { class: "mono" }, one.name, one.replay ? h("span", { class: "sub" }, "REPLAY: no evidence") : null), one.run, one.rank === null ? "–" : String(one.rank), ...three(one.totals.executed),
    known(one.coverage),
  ]);
  return section("children", "Ledgers that were added up",
    table("FLOP executed in each", ["Ledger", "Run", "Rank", "At least", "Measured", "At most", "Time known"], rows, [2, 3, 4, 5, 6]));
}

/** What the verdict rests on, and what it leaves out: two lists. @param {Shown} found */
function grounds(found) {
  const { predicate } = found.statement;
  const { signers, others, records, leaves, given, unverified, notes } = found;
  const merged = predicate.kind !== "node", nodes = (predicate.children ?? []).every((/** @type {J} */ one) => one.kind === "node");
  const count = (/** @type {number | bigint} */ number, /** @type {string} */ noun) => `${number} ${noun}${String(number) === "1" ? "" : "s"}`;
  const names = signers.map((one) => one.name).join(", ");
  const holds = [
    `Signed by ${count(signers.length, "key")} that you gave: ${names}.`,
    merged ? "Its sums and findings follow from the entries of the ledgers that it adds up."
      : `The journal is the one that was sealed: ${count(records ?? 0, "record")} in an unbroken chain, by the laws of the format.`,
    ...(given ? [`${count(given, "ledger")} that it adds up: ${nodes ? "each follows from its own journal, and its entry from it"
      : "each follows from what it states of its own nodes, and its entry from it"}.`] : []),
    `${count(leaves, "value")} of the ledger computed again: all are equal.`,
  ];
  const open = unverified.slice(0, _MOST_NAMED).map((one) => h("span", {}, "Not computed again: ", h("span", { class: "mono" }, one)));
  if (unverified.length > open.length) open.push(h("span", {}, `and ${unverified.length - open.length} more`));
  if (notes.includes("children-not-given")) {
    open.push(h("span", {}, given && !nodes ? "The ledgers of the jobs' nodes: verify each job's ledger with those of its nodes."
      : `${count(predicate.children.length, "ledger")} are added up, and not all were given: the figures of the others were taken as they stand.`));
  }
  if (merged && predicate.completeness.complete !== true) {
    open.unshift(h("span", {}, `Whether these are all of its ledgers: ${complete(predicate.completeness)}.`));
  }
  if (given) open.push(h("span", {}, "The signatures of the ledgers that it adds up: whoever added them up checked those, and signed which ledgers they are."));
  if (!merged && predicate.node.rank !== null && !predicate.node.jobNodes.length) {
    const others = predicate.node.rank ? "The other nodes of the job" : "Other nodes of the job, if it has any";
    open.unshift(h("span", {}, `${others}: this is rank ${predicate.node.rank}, and its answer is of this node alone.`));
  }
  if (!merged && predicate.segment) open.unshift(h("span", {}, "The rest of the run: this is one segment of a rotated run."));
  if (!merged && predicate.incarnations[predicate.incarnations.length - 1].endReason === null) {
    open.unshift(h("span", {}, "The end of the run: sealed while it went on, or after it was killed; later work is not in it."));
  }
  if (others.length) open.unshift(h("span", {}, `A signature by ${others.join(", ")}: there is none that is valid, although you gave this key.`));
  if (predicate.replay) open.unshift(h("span", {}, merged ? `Work of hardware in all of it: ${recordings(predicate)}.` : "This is the replay of a recording: no hardware was metered."));
  const list = (/** @type {string} */ title, /** @type {Child[]} */ rows) =>
    h("div", {}, h("p", {}, title), h("ul", {}, ...rows.map((one) => h("li", {}, one))));
  const whose = h("span", {}, "Whose keys these are, and that the compute took place. ", h("a", { href: "#limits" }, "What this ledger does not say"));
  return h("div", { class: "grounds" }, list("Verified", holds), list("Not verified", [...open, whose]));
}

/** @param {Shown} found @returns {["verified" | "in-part", string]} */
function judged({ statement, unverified, notes }) {
  const { replay, kind } = statement.predicate;
  if (replay) return ["in-part", kind === "node" ? "Verified, but a replay: no hardware was metered." : `Verified, but ${recordings(statement.predicate)}.`];
  if (unverified.length) return ["in-part", "Verified in part: some figures were not computed again."];
  if (notes.includes("children-not-given")) return ["in-part", "Verified in part: the sums hold, but not every ledger below them was given."];
  return ["verified", "Verified: every figure was computed again and is equal."];
}

/** @param {J} completeness */
function complete({ complete: is, missing }) {
  if (is === true) return "yes, of what was known when they were added up";
  const named = [...new Set(missing.map((/** @type {J} */ one) => `${words(one.code)}${one.node ? ` of ${one.node}` : ""}`))];
  const more = named.length > _MOST_NAMED ? `, and ${named.length - _MOST_NAMED} more` : "";
  return `${is === false ? "no" : "not known"}${named.length ? ` (${named.slice(0, _MOST_NAMED).join(", ")}${more})` : ""}`;
}

/** @param {Shown} found */
export function accepted(found) {
  const { predicate } = found.statement;
  const [state, says] = judged(found);
  const name = predicate.kind === "lineage" ? predicate.lineage.name : predicate.run.id;
  const titles = /** @type {Record<string, string>} */ ({ node: "A node of run", job: "The job of run", lineage: "Lineage" });
  const by = found.signers.map((one) => `${one.name}: ${one.kind} ${one.id}`);
  /** @type {[string, Child][]} */
  const where = predicate.kind === "node" ? [["Node", predicate.node.name]]
    : [["Ledgers added up", String(predicate.children.length)], ["Complete", complete(predicate.completeness)]];
  if (predicate.run) where.push(["Platform", predicate.run.platform ?? "not known"]);
  /** @type {[string, Child][]} */
  const head = found.head === null ? [] : [["Chain hash of the last record", h("span", { class: "mono" }, found.head)]];
  return h("div", {},
    verdict(state, says, facts([["Files", filesOf(found)], ["Time taken", `${Math.max(0.1, found.seconds).toFixed(1)} s`]]), grounds(found)),
    section("ledger", `${titles[predicate.kind]} ${name}`,
      facts([
        ...where, ["First record", time(predicate.startedAt ?? predicate.incarnations[0].startedAt)], ["Sealed", time(predicate.method.sealedAt)],
        ["By flopsd", predicate.method.flopsdVersion],
      ]),
      facts([
        ["Signed by, as SHA-256 of the key", h("span", {}, ...by.map((one) => h("span", { class: "sub mono" }, one)))],
        ["SHA-256 of the payload", h("span", { class: "mono" }, found.sha256)], ...head,
      ], "facts digests")),
    figures(predicate), answer(predicate.findings),
    found.course.length ? section("course", "Over time", curve(found.course)) : null,
    parts(predicate), gaps(predicate.coverage),
    section("limits", "What this ledger does not say", h("ul", { class: "missing" }, ...limits(found).map((one) => h("li", {}, one)))));
}
