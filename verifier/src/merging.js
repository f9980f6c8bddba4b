// What may not be in one merged ledger, and whether it is whole.
import { Refusal, byText, isObject, isText, require, sortedTexts } from "./basics.js";

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
  if (a.boot === b.boot && a.begin === b.begin) return true;
  const own = a.boot !== "" && a.boot === b.boot;
  const [x, y] = own ? [0n, 0n] : [a.offset, b.offset];
  const begin = a.begin + x > b.begin + y ? a.begin + x : b.begin + y;
  const end = a.end + x < b.end + y ? a.end + x : b.end + y;
  return begin < end;
}

/** For each child that is a segment the first journal of its chain. @param {J[]} children @returns {(string | undefined)[]} */
function chainsOf(children) {
  /** @type {Map<string, string>} */
  const first = new Map();
  const parts = children.filter(({ segment }) => segment).sort((a, b) => Number(a.segment.number - b.segment.number));
  for (const { segment: { journal, continues } } of parts) first.set(journal.sha256, first.get(continues?.sha256) ?? journal.sha256);
  return children.map(({ segment }) => first.get(segment?.journal.sha256));
}

/** The order of segments of one chain is known, whatever wall clocks said. @param {Span} a @param {Span} b
 * @param {string | undefined} chain @param {string | undefined} other */
function twice(a, b, chain, other) {
  return overlap(a, b) && (a.boot === b.boot || chain === undefined || chain !== other);
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

/** Whether a child has what its place depends on; one that has not is refused as malformed. @param {J} child */
function hasPlace(child) {
  return isObject(child) && isText(child.run) && (child.node === null || isText(child.node)) && isText(child.sha256)
    && (child.rank === null || typeof child.rank === "bigint");
}

/** Before the entries are checked one by one: an entry at the wrong place is refused for that, whatever else it lacks.
 * @param {any} children @param {string} kind */
export function checkOrder(children, kind) {
  if (!Array.isArray(children) || !children.every(hasPlace)) return;
  const sorted = children.every((one, i) => !i || order(children[i - 1], one, kind) <= 0);
  require(sorted, "children_order", "the children are not in the order of the format", "statement.predicate.children");
}

/** @param {J[]} children */
export function checkDifferent(children) {
  const twice = new Set(children.map((one) => one.sha256)).size < children.length;
  require(!twice, "child_twice", "its children cannot be merged: the same ledger is given twice");
}

/** @param {J[]} children @param {J} predicate */
export function checkTogether(children, predicate) {
  const { kind, jobNodes } = predicate;
  const refuse = (/** @type {string} */ code, /** @type {string} */ why) => new Refusal(code, `its children cannot be merged: ${why}`);
  if (kind === "job") {
    if (new Set(jobNodes).size < jobNodes.length) throw refuse("rank_differs", "the job's node list has a name twice, so the rank of that node is ambiguous");
    for (const child of children) {
      if (child.run !== predicate.run.id) throw refuse("other_run_of_child", `${child.name} is of run '${child.run}', not of '${predicate.run.id}'`);
      if (!jobNodes.length) continue;
      const at = jobNodes.indexOf(child.node);
      if (at < 0) throw refuse("rank_differs", `${child.name} is of node '${child.node}', which is not among the job's nodes`);
      if (child.rank === null || jobNodes[Number(child.rank)] !== child.node) {
        throw refuse("rank_differs", `${child.name} gives node '${child.node}' ${child.rank === null ? "no rank" : `rank ${child.rank}`}; by the job's node list it has ${at}`);
      };
    }
  }
  const chains = chainsOf(children);
  children.forEach((child, i) => {
    for (const { incarnation } of child.deviceTimes) {
      const known = child.periods.some((/** @type {J} */ one) => one.incarnation === incarnation);
      if (!known) throw refuse("entry_malformed", `${child.name} has no incarnation ${incarnation}`);
    }
    children.slice(i + 1).forEach((other, k) => {
      const isTwice = (/** @type {Span} */ x) => periodsOf(other).some((y) => twice(x, y, chains[i], chains[i + 1 + k]));
      if (child.run !== other.run || !periodsOf(child).some(isTwice)) return;
      if (kind === "lineage") throw refuse("counted_twice", `job '${child.run}' is given twice for the same time: ${child.name} and ${other.name}`);
      if (child.node === other.node) throw refuse("counted_twice", `node '${child.node}' is given twice for the same time: ${child.name} and ${other.name}`);
      if (child.rank !== null && child.rank === other.rank) throw refuse("counted_twice", `rank ${child.rank} is given twice for the same time: ${child.name} and ${other.name}`);
    });
  });
  checkDevices(children.map((child) => [child]), chains);
}

/** No device is counted by two at one time. @param {J[][]} groups Entries, of each that counts.
 * @param {(string | undefined)[]} chains Of those that are segments. */
export function checkDevices(groups, chains = []) {
  /** @type {Map<string, {span: Span, i: number}[]>} */
  const held = new Map();
  groups.forEach((entries, i) => {
    for (const { deviceTimes, periods } of entries) {
      for (const times of deviceTimes) {
        const period = periods.find((/** @type {J} */ one) => one.incarnation === times.incarnation);
        const span = {
          begin: BigInt(times.beginNs), end: BigInt(times.endNs), boot: period.bootId, offset: BigInt(period.wallOffsetNs),
        };
        for (const device of times.devices) {
          const own = held.get(device) ?? [], again = own.some((one) => one.i !== i && twice(one.span, span, chains[one.i], chains[i]));
          require(!again, "counted_twice", `its children cannot be merged: device ${device} is counted twice at the same time`);
          held.set(device, [...own, { span, i }]);
        }
      }
    }
  });
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
    if (continues) {
      const before = parts.find((one) => one.segment.journal.sha256 === continues.sha256);
      if (before) {
        const { segment } = before;
        const fits = before.node === child.node && segment.number === continues.number && segment.isContinued &&
          ["headSha256", "bytes", "records"].every((name) => segment.journal[name] === continues[name]);
        require(fits, "segments_part", `its children cannot be merged: ${child.name} cannot continue ${before.name}: the journal of that ledger is not the closed segment ${continues.number} that it names`);
      } else missing.push({ code: "no_segment_before", ...place(child), segment: String(continues.number), ledger: child.name });
    }
    const next = parts.filter((one) => one.segment.continues?.sha256 === journal.sha256);
    require(next.length <= 1, "segments_part", `its children cannot be merged: FORK: ${next.map(({ name }) => name).slice(0, 2).join(" and ")} both continue ${child.name}: they are two histories of one run`);
    require(isContinued || !next.length, "segments_part", `its children cannot be merged: ${next[0]?.name} cannot continue ${child.name}, which is the last of its run`);
    if (isContinued && !next.length) {
      behind.push({ code: "no_segment_after", ...place(child), segment: String(number + 1n), ledger: child.name });
    }
  }
  return [...missing, ...behind];
}

const MOST_NODES = 100_000n;

/** @typedef {{rank: bigint | null, node: string, attempts: Set<string>}} Slot */

/** The nodes of a job: by rank where each child has one, else by name. @param {J[]} children @returns {Slot[]} */
function slotsOf(children) {
  const ranked = children.every((one) => one.rank !== null);
  /** @type {Map<bigint | string, Slot>} */
  const found = new Map();
  for (const { rank, node, periods } of children) {
    const slot = found.get(ranked ? rank : node) ?? { rank: ranked ? rank : null, node, attempts: new Set() };
    if (node < slot.node) slot.node = node;
    for (const { attempt } of periods) slot.attempts.add(attempt);
    found.set(ranked ? rank : node, slot);
  }
  return [...found.values()].sort((a, b) => (a.rank !== null && b.rank !== null ? Number(a.rank - b.rank) : byText(a.node, b.node)));
}

/** Nodes without a ledger. @param {Slot[]} slots @param {J[]} children @param {string[]} jobNodes
 * @param {bigint | null} expected @returns {J[]} */
function absentNodes(slots, children, jobNodes, expected) {
  if (jobNodes.length) {
    const here = new Set(children.map((one) => one.node));
    return jobNodes.map((node, rank) => ({ code: "no_ledger", rank: String(rank), node })).filter(({ node }) => !here.has(node));
  }
  if (slots.length && slots.every(({ rank }) => rank !== null)) {
    const here = new Set(slots.map(({ rank }) => String(rank)));
    const count = expected ?? /** @type {bigint} */ (slots[slots.length - 1].rank) + 1n;
    return Array.from({ length: Number(count) }, (_, rank) => ({ code: "no_ledger", rank: String(rank) })).filter(({ rank }) => !here.has(rank));
  }
  if (expected === null || expected === BigInt(slots.length)) return [];
  return [{ code: "nodes_missing", missing: String(expected - BigInt(slots.length)), nodes: String(expected) }];
}

/** Attempts of which other nodes have a ledger, or that Slurm's numbers leave out. Where a boot stands for an attempt,
 * nodes are compared by their number. @param {Slot[]} slots @param {J[]} children @param {string | null} platform
 * @returns {J[]} */
function absentAttempts(slots, children, platform) {
  const periods = children.flatMap((one) => one.periods);
  const named = periods.every((/** @type {J} */ one) => one.attempt !== one.bootId);
  const seen = sortedTexts(periods.map((/** @type {J} */ one) => one.attempt));
  const unseen = [...seen.keys()].map(String).filter((one) => platform === "slurm" && !seen.includes(one));
  const all = sortedTexts([...seen, ...unseen.slice(0, 1)]);
  const most = Math.max(0, ...slots.map(({ attempts }) => attempts.size));
  return slots.flatMap(attemptsOf);

  /** @param {Slot} slot @returns {J[]} */
  function attemptsOf(slot) {
    if (named) return all.filter((one) => !slot.attempts.has(one)).map((attempt) => ({ code: "no_ledger_of_attempt", ...place(slot), attempt }));
    return slot.attempts.size < most ? [{ code: "fewer_attempts", ...place(slot), attempts: String(slot.attempts.size), most: String(most) }] : [];
  }
}

/** @param {J[]} children @param {J} predicate */
export function completeness(children, predicate) {
  if (predicate.kind === "lineage") return ofLineage(children);
  const { jobNodes } = predicate;
  const declared = predicate.completeness?.declaredNodes ?? null;
  const slots = slotsOf(children);
  const expected = jobNodes.length ? BigInt(jobNodes.length) : declared === null ? null : BigInt(declared);
  const listed = jobNodes.length && declared !== null && BigInt(declared) !== BigInt(jobNodes.length);
  require(!listed, "too_many_nodes", `its children cannot be merged: the ledgers name ${jobNodes.length} nodes of the job, ${declared} are declared`);
  const few = (expected ?? 0n) <= MOST_NODES && children.every(({ rank }) => rank === null || rank < MOST_NODES);
  require(few, "too_many_nodes", `its children cannot be merged: at most ${MOST_NODES} nodes of a job can be merged`);
  const high = jobNodes.length ? null : children.find(({ rank }) => rank !== null && expected !== null && rank >= expected);
  require(!high, "too_many_nodes", `its children cannot be merged: ${high?.name} has rank ${high?.rank}: the job had more than ${expected} nodes`);
  const most = expected === null || BigInt(slots.length) <= expected;
  require(most, "too_many_nodes", `its children cannot be merged: there are ledgers of ${slots.length} nodes, of ${expected} that were declared`);
  let holes = absentNodes(slots, children, jobNodes, expected);
  if (!holes.length) holes = absentAttempts(slots, children, predicate.run?.platform ?? null);
  holes.push(...missingSegments(children));
  const open = children.filter((one) => one.ended === false)
    .map((one) => ({ code: "no_end", ...place(one), ledger: one.name, after: one.lastRecordAt }));
  const complete = holes.length ? false : expected === null || open.length ? null : true;
  const ending = expected === null ? "nodes_unknown" : "no_end";
  return {
    complete, missing: [...holes, ...open], expectedNodes: expected === null ? null : String(expected), declaredNodes: declared,
    nodes: String(slots.length), summary: complete ? "whole" : complete === false ? "ledgers_missing" : ending,
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

/** How many ledgers of a merged one are replays, or sums with replays in them. @param {J} predicate */
export function recordings({ replay, children }) {
  return `${replay.children} of its ${children.length} ledgers ${replay.children === "1" ? "has" : "have"} figures of recordings, for which no hardware was metered`;
}
