// What may not be in one merged ledger, and whether it is whole.
import { Refusal, byText, require, sortedTexts } from "./basics.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {{begin: bigint, end: bigint, boot: string, offset: bigint}} Span */

/** @param {J} child @returns {Span[]} */
function periodsOf(child) {
  return child.periods.map((/** @type {J} */ one) => ({
    begin: BigInt(one.beginNs), end: BigInt(one.endNs), boot: one.bootId, offset: BigInt(one.wallOffsetNs),
  }));
}

/** @param {Span} a @param {Span} b */
function overlap(a, b) {
  const own = a.boot !== "" && a.boot === b.boot;
  const [x, y] = own ? [0n, 0n] : [a.offset, b.offset];
  const begin = a.begin + x > b.begin + y ? a.begin + x : b.begin + y;
  const end = a.end + x < b.end + y ? a.end + x : b.end + y;
  return begin < end;
}

/** @param {J} a @param {J} b */
function atOneTime(a, b) {
  return periodsOf(a).some((x) => periodsOf(b).some((y) => overlap(x, y)));
}

/** By rank (none last), node, digest; in a lineage by run first.
 * @param {J} a @param {J} b @param {string} kind */
function order(a, b, kind) {
  const run = kind === "lineage" ? byText(a.run, b.run) : 0;
  if (run) return run;
  if (a.rank !== b.rank) {
    if (a.rank === null || b.rank === null) return a.rank === null ? 1 : -1;
    return a.rank < b.rank ? -1 : 1;
  }
  return byText(a.node ?? "", b.node ?? "") || byText(a.sha256, b.sha256);
}

/** @param {J[]} children @param {string} kind */
export function checkOrder(children, kind) {
  const twice = new Set(children.map((one) => one.sha256)).size < children.length;
  require(!twice, "child_twice", "its children cannot be merged: the same ledger is given twice");
  const sorted = children.every((one, i) => !i || order(children[i - 1], one, kind) < 0);
  require(sorted, "children_order", "the children are not in the order of the format", "statement.predicate.children");
}

/** @param {J[]} children @param {J} predicate */
export function checkTogether(children, predicate) {
  const { kind, jobNodes } = predicate;
  const refuse = (/** @type {string} */ code, /** @type {string} */ why) => new Refusal(code, `its children cannot be merged: ${why}`);
  if (kind === "job") {
    for (const child of children) {
      if (child.run !== children[0].run) throw refuse("other_run_of_child", "they are of different runs");
      if (!jobNodes.length) continue;
      const at = jobNodes.indexOf(child.node);
      if (at < 0) throw refuse("rank_differs", `${child.node} is no node of the job`);
      if (child.rank !== null && jobNodes[Number(child.rank)] !== child.node) throw refuse("rank_differs", `${child.node} has another rank`);
    }
  }
  /** @type {{device: string, span: Span, i: number}[]} */
  const devices = [];
  children.forEach((child, i) => {
    for (const times of child.deviceTimes) {
      const period = child.periods.find((/** @type {J} */ one) => one.incarnation === times.incarnation);
      if (!period) throw refuse("entry_malformed", `${child.name} has no incarnation ${times.incarnation}`);
      const span = {
        begin: BigInt(times.beginNs), end: BigInt(times.endNs), boot: period.bootId, offset: BigInt(period.wallOffsetNs),
      };
      for (const device of times.devices) devices.push({ device, span, i });
    }
    for (const other of children.slice(i + 1)) {
      if (child.run !== other.run || child.kind === "job" || !atOneTime(child, other)) continue;
      if (child.node === other.node) throw refuse("counted_twice", `node ${child.node} is in two ledgers at one time`);
      if (child.rank !== null && child.rank === other.rank) throw refuse("counted_twice", `rank ${child.rank} is in two ledgers at one time`);
    }
  });
  /** @type {Map<string, {span: Span, i: number}[]>} */
  const held = new Map();
  for (const { device, span, i } of devices) {
    const own = held.get(device) ?? [];
    if (own.some((one) => one.i !== i && overlap(one.span, span))) throw refuse("counted_twice", `${device} is counted twice at one time`);
    held.set(device, [...own, { span, i }]);
  }
}

/** What names a node in a note. @param {J} child */
function place({ rank, node }) {
  return { ...(rank === null ? {} : { rank: String(rank) }), ...(node === null ? {} : { node }) };
}

/** Segments that continue each other. @param {J[]} children @returns {J[]} A note of each that is missing. */
function missingSegments(children) {
  const parts = children.filter((one) => one.segment !== null);
  /** @type {J[]} */
  const missing = [];
  /** @type {J[]} */
  const behind = [];
  for (const child of parts) {
    const { continues, isContinued, journal, number } = child.segment;
    const same = (/** @type {J} */ one) => one.run === child.run && one.node === child.node;
    if (continues) {
      const before = parts.find((one) => one.segment.journal.sha256 === continues.sha256);
      if (before) {
        const { segment } = before;
        const fits = segment.number === continues.number && segment.isContinued &&
          ["headSha256", "bytes", "records"].every((name) => segment.journal[name] === continues[name]);
        require(fits && same(before), "segments_part", `${child.name} cannot continue ${before.name}: they differ`);
      } else missing.push({ code: "no_segment_before", ...place(child), segment: String(continues.number), ledger: child.name });
    }
    const next = parts.filter((one) => one.segment.continues?.sha256 === journal.sha256);
    require(next.length <= 1, "segments_part", `FORK: two segments continue ${child.name}: two histories of one run`);
    require(isContinued || !next.length, "segments_part", `${child.name} cannot continue: it is the last of its run`);
    if (isContinued && !next.length) {
      behind.push({ code: "no_segment_after", ...place(child), segment: String(number + 1n), ledger: child.name });
    }
  }
  return [...missing, ...behind];
}

/** @param {J[]} children @param {J} predicate */
export function completeness(children, predicate) {
  if (predicate.kind === "lineage") return ofLineage(children);
  const { jobNodes } = predicate;
  const declared = predicate.completeness?.declaredNodes ?? null;
  const nodes = new Map(children.map((one) => [`${one.rank}/${one.node}`, one]));
  const expected = jobNodes.length ? BigInt(jobNodes.length) : declared === null ? null : BigInt(declared);
  const listed = jobNodes.length && declared !== null && BigInt(declared) !== BigInt(jobNodes.length);
  require(!listed, "too_many_nodes", `its children cannot be merged: ${jobNodes.length} nodes are listed, ${declared} declared`);
  const most = expected === null || BigInt(nodes.size) <= expected;
  require(most, "too_many_nodes", `its children cannot be merged: they are of ${nodes.size} nodes, of ${expected} declared`);
  const attempts = sortedTexts(children.flatMap((one) => one.periods.map((/** @type {J} */ period) => period.attempt)));
  const holes = jobNodes.flatMap((/** @type {string} */ node, /** @type {number} */ rank) =>
    children.some((one) => one.node === node) ? [] : [{ code: "no_ledger", rank: String(rank), node }]);
  if (!jobNodes.length && expected !== null && expected > BigInt(nodes.size)) {
    holes.push({ code: "nodes_missing", missing: String(expected - BigInt(nodes.size)), nodes: String(expected) });
  }
  for (const one of nodes.values()) {
    const own = children.filter((other) => other.node === one.node).flatMap((other) => other.periods);
    for (const attempt of attempts) {
      if (own.some((/** @type {J} */ period) => period.attempt === attempt)) continue;
      holes.push({ code: "no_ledger_of_attempt", ...place(one), attempt });
    }
  }
  holes.push(...missingSegments(children));
  const open = children.filter((one) => one.ended === false)
    .map((one) => ({ code: "no_end", ...place(one), ledger: one.name, after: one.lastRecordAt }));
  const complete = holes.length ? false : expected === null || open.length ? null : true;
  const ending = expected === null ? "nodes_unknown" : "no_end";
  return {
    complete, missing: [...holes, ...open], expectedNodes: expected === null ? null : String(expected), declaredNodes: declared,
    nodes: String(nodes.size), summary: complete ? "whole" : complete === false ? "ledgers_missing" : ending,
  };
}

/** @param {J[]} children */
function ofLineage(children) {
  const all = children.map((one) => one.completeness.complete);
  const missing = children.flatMap((one) => one.completeness.missing.map((/** @type {J} */ note) => ({ ...note, job: one.run })));
  const complete = all.includes(false) ? false : all.includes(null) ? null : true;
  const unknown = children.some((one) => one.completeness.complete === null && !one.completeness.missing.length);
  const open = unknown ? "nodes_unknown" : "jobs_no_end";
  const summary = complete ? "jobs_whole" : complete === false ? "ledgers_missing" : open;
  return { complete, missing, expectedNodes: null, declaredNodes: null, nodes: null, summary };
}
