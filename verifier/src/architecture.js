// The architecture basis: what training required by the model's shape or size and its tokens, and what was executed.
// Of families of models that are not read here it is taken as stated, and named as not verified.
import { LEVELS, NoBasis, added, addedKnown, nothing, writtenBounds } from "./bounds.js";
import { byText, object } from "./basics.js";
import { MATRICES, byShape, isPlainLlama } from "./by_shape.js";
import { bySize } from "./by_size.js";
import { hasWork } from "./sessions.js";

/** @typedef {import("./basics.js").J} J */
/** @typedef {import("./bounds.js").Bounds} Bounds */
/** @typedef {import("./bounds.js").Known} Known */
/** @typedef {import("./history.js").Session} Session */
/** @typedef {import("./passed.js").Counters} Counters */
/** @typedef {Map<string, Counters>} Work By phase. */
/** What holds of all sessions, null where nothing does; `otherwise`: the method of those without one.
 * @typedef {{method: string | null, recomputation: string | null, otherwise: string | null}} Held */
/** `stated`: what the ledger has, or would have; `share`: what training required, and what it executed, where both were
 * computed here. @typedef {{stated: J | null, written: J, unverified: string[], share: {required: Bounds, executed: Bounds} | null}} Basis */
/** @typedef {{required: Bounds, executed: Bounds, trained: Bounds, notes: J[]}} Part */

const _OF_MODEL = [
  "model_config", "parameters_total", "parameters_trainable", "lora", "attention", "packing", "window", "method", "recomputation",
];
const _OTHER_COUNTERS = /weight_|target_|cross_|patch|images/;
const _WITHOUT_GRADIENTS = { code: "passes_without_gradients" };
const _MOST_REASONS = 4;
const _MOST_FLOP = 10n ** 36n;

/** JSON with sorted members, to tell facts apart. @param {any} value @returns {string} */
function textOf(value) {
  if (Array.isArray(value)) return `[${value.map(textOf)}]`;
  if (typeof value === "bigint") return String(value);
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  return `{${Object.keys(value).sort(byText).map((name) => `${JSON.stringify(name)}:${textOf(value[name])}`)}}`;
}

/** @param {J[]} notes */
function once(notes) {
  return [...new Map(notes.map((note) => [textOf(note), note])).values()];
}

/** @param {Session[]} sessions @returns {Work} */
function workOf(sessions) {
  /** @type {Work} */
  const found = new Map();
  for (const { work } of sessions) {
    for (const [path, value] of work) {
      const [phase, name] = path.split("/");
      const counters = found.get(phase) ?? new Map();
      found.set(phase, counters.set(name, (counters.get(name) ?? 0n) + value));
    }
  }
  return new Map([...found].sort(([a], [b]) => byText(a, b)));
}

/** @param {Counters} work */
const hasPassed = (work) => (work.get("tokens") ?? 0n) > 0n;
/** @param {Counters} work @param {string} name */
const counts = (work, name) => (work.get(name) ?? 0n) > 0n;

/** Whether this verifier has no way to compute a model. @param {J} facts @param {Work} work */
function isOther({ model_config: config, lora }, work) {
  if (config !== undefined && !isPlainLlama(config)) return true;
  const names = [...work.values()].flatMap((counters) => [...counters.keys()]);
  const modules = lora?.target_modules ?? [];
  return names.some((name) => _OTHER_COUNTERS.test(name)) || !!lora?.modules_to_save?.length
    || modules.some((/** @type {string} */ name) => name !== "all-linear" && !MATRICES.includes(name));
}

/** @param {J} facts */
function wayOf(facts) {
  if (facts.model_config !== undefined) return byShape(facts);
  if (facts.parameters_total === undefined) throw new NoBasis("no_model_declared");
  return bySize(facts);
}

/** What passes without gradients add to what training required. @param {string} phase @param {Known} passes @returns {Known} */
const aside = (phase, passes) => (phase === "other" ? { ...passes, low: 0n } : nothing());

/** One model. @param {J} facts @param {Work} work */
function ofModel(facts, work) {
  const way = wayOf(facts);
  const passes = [...work.values()].some(hasPassed);
  for (const [phase, counters] of work) {
    const without = !hasPassed(counters) && (counts(counters, "steps") || counts(counters, "forward_passes"));
    if (without && !(counts(counters, "forward_passes") && passes)) throw new NoBasis("no_tokens_in_phase", { phase });
  }
  const found = { required: nothing(), executed: nothing(), trained: nothing(), notes: /** @type {J[]} */ ([]), total: way.total };
  const train = work.get("train");
  if (train && hasPassed(train)) {
    const { required, executed, assumptions } = way.train(train);
    Object.assign(found, { required, executed, trained: executed, notes: assumptions });
  }
  for (const [phase, counters] of work) {
    if (phase === "train" || !hasPassed(counters)) continue;
    const forward = way.forward(counters), more = aside(phase, forward);
    found.executed = addedKnown(found.executed, forward);
    found.required = addedKnown(found.required, more);
    found.trained = addedKnown(found.trained, more);
    if (more.high) found.notes = [...found.notes, _WITHOUT_GRADIENTS];
  }
  return found;
}

/** Bounds that are open where they belong to work that was not counted. @param {boolean} open @returns {Bounds} */
const open = (open) => (open ? { low: 0n, computed: null, high: null } : nothing());

/** @param {string[]} phases Of which not all was counted. @param {J[]} notes @returns {Part} */
function leftOut(phases, notes) {
  const matters = phases.some((phase) => phase === "train" || phase === "other");
  return { required: open(matters), trained: open(matters), executed: open(phases.length > 0), notes };
}

/** A model beside the trained one. @param {Session} session @returns {Part} */
function besideOf({ facts, work: counters }) {
  const { role } = facts, work = workOf([/** @type {Session} */ ({ facts, work: counters })]);
  if (facts.model_config === undefined && facts.parameters_total === undefined) {
    return leftOut(["other"], [{ code: "other_model_not_read", role }]);
  }
  if (facts.model_config === undefined && facts.parameters_total < 1n) {
    return leftOut(["other"], [{ code: "other_model_not_read", role }]);
  }
  if ([...work.values()].some((one) => counts(one, "forward_passes") && !hasPassed(one))) {
    return leftOut(["other"], [{ code: "other_model_tokens_not_counted", role }]);
  }
  try {
    const way = wayOf(facts);
    let required = nothing(), executed = nothing();
    for (const [phase, one] of work) {
      if (!hasPassed(one)) continue;
      if (phase === "train") {
        const trained = way.train(one);
        required = addedKnown(required, { ...nothing(), high: trained.required.high });
        executed = addedKnown(executed, trained.executed);
      } else {
        const forward = way.forward(one);
        required = addedKnown(required, aside(phase, forward));
        executed = addedKnown(executed, forward);
      }
    }
    return { required, trained: required, executed, notes: [{ code: "executed_has_other_model", role }] };
  } catch (error) {
    if (!(error instanceof NoBasis)) throw error;
    const { code, ...why } = error.note;
    return leftOut(["other"], [{ code: "other_model_not_counted", role, ...why, why: code }]);
  }
}

/** What sessions add to the sum over models. @param {Session[]} sessions @returns {Part} */
function besides(sessions) {
  let found = leftOut([], []);
  const add = (/** @type {Part} */ part) => {
    found = {
      required: added(found.required, part.required), executed: added(found.executed, part.executed),
      trained: added(found.trained, part.trained), notes: once([...found.notes, ...part.notes]),
    };
  };
  for (const session of sessions) {
    const left = session.facts.not_counted ?? {}, phases = Object.keys(left).sort(byText);
    add(leftOut(phases, phases.flatMap((phase) => left[phase].map((/** @type {string} */ what) => ({ code: "not_counted", what })))));
    if ("role" in session.facts) {
      if (hasWork(session)) add(besideOf(session));
      continue;
    }
    const work = workOf([session]);
    const uncounted = [...work.keys()].filter((phase) => {
      const one = /** @type {Counters} */ (work.get(phase));
      return counts(one, "forward_passes") && !hasPassed(one);
    });
    if (uncounted.length) add(leftOut(uncounted, [{ code: "trained_tokens_not_counted" }]));
  }
  return found;
}

/** The models that are trained: sessions with the same facts are one. @param {Session[]} working @param {Held} held */
function modelsOf(working, held) {
  /** @type {Map<string, {facts: J, sessions: Session[]}>} */
  const found = new Map();
  for (const session of working) {
    const facts = object();
    for (const name of _OF_MODEL) if (name in session.facts) facts[name] = session.facts[name];
    const method = held.method ?? facts.method ?? held.otherwise;
    if (method !== null) facts.method = method;
    if (held.recomputation !== null) facts.recomputation = held.recomputation;
    const key = textOf(facts), known = found.get(key) ?? { facts, sessions: [] };
    known.sessions.push(session);
    found.set(key, known);
  }
  return [...found.values()].map(({ facts, sessions }) => ({ facts, work: workOf(sessions) }));
}

/** @param {J[]} notes @returns {Basis} */
function without(notes) {
  return { stated: null, written: { architecture: null, architectureAbsentReasons: notes }, unverified: [], share: null };
}

/** @param {J} stated @returns {Basis} */
function asStated(stated) {
  const { architecture = null, architectureAbsentReasons = [] } = stated.totals ?? {};
  return {
    stated: architecture, written: { architecture, architectureAbsentReasons }, share: null,
    unverified: ["architecture", "architectureAbsentReasons"].map((name) => `statement.predicate.totals.${name}`),
  };
}

/** @param {import("./history.js").History} history @param {Held} held @param {J} stated @returns {Basis} */
export function architecture(history, held, stated) {
  const sessions = [...history.sessions.values()];
  const works = sessions.filter((one) => hasWork(one)), working = works.filter(({ facts }) => !("role" in facts));
  if (!working.length) {
    const configs = sessions.map(({ facts }) => facts.model_config).filter((one) => one !== undefined);
    if (!configs.every(isPlainLlama)) return asStated(stated);
    const isDeclared = configs.length > 0 || sessions.some(({ facts }) => facts.parameters_total !== undefined);
    return without([{ code: isDeclared ? "no_work" : "no_process" }]);
  }
  if (works.some((one) => isOther(one.facts, workOf([one])))) return asStated(stated);
  const models = modelsOf(working, held), found = [], reasons = [];
  for (const { facts, work } of models) {
    try {
      found.push(ofModel(facts, work));
    } catch (error) {
      if (!(error instanceof NoBasis)) throw error;
      reasons.push(error.note);
    }
  }
  if (reasons.length) return without(once(reasons.slice(0, _MOST_REASONS)));
  const beside = besides(sessions);
  const required = added(...found.map((one) => one.required), beside.required);
  const executed = added(...found.map((one) => one.executed), beside.executed);
  if ([required, executed].some((bounds) => LEVELS.some((level) => (bounds[level] ?? 0n) >= _MOST_FLOP))) {
    return without([{ code: "flop_beyond_counts" }]);
  }
  const total = String(found.map((one) => one.total).reduce((a, b) => (a > b ? a : b)));
  const trainable = models.length === 1 ? models[0].facts.parameters_trainable : undefined;
  const last = beside.required.high === 0n ? [] : [_WITHOUT_GRADIENTS];
  const tokens = models.reduce((sum, { work }) => sum + (work.get("train")?.get("tokens") ?? 0n), 0n);
  const basis = {
    ...writtenBounds(required), executed: writtenBounds(executed), method: ["shape"], tokens: String(tokens), marginPpm: "300000",
    parameters: { total, active: total, trainable: trainable === undefined ? null : String(trainable) },
    assumptions: once([...found.flatMap((one) => one.notes), ...beside.notes, ...last]),
  };
  const trained = added(...found.map((one) => one.trained), beside.trained);
  return {
    stated: basis, written: { architecture: basis, architectureAbsentReasons: [] }, unverified: [],
    share: { required, executed: trained },
  };
}

/** Of what training executed the part that it required, in millionths; null: that is not known.
 * @param {Basis} basis @returns {bigint | null} */
export function shareOf({ share }) {
  if (share === null || share.required.computed === null || LEVELS.some((level) => !share.executed[level])) return null;
  const ppm = (share.required.computed * 1000000n) / /** @type {bigint} */ (share.executed.computed);
  return ppm < 1000000n ? ppm : 1000000n;
}
