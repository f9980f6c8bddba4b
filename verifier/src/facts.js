// The facts that a training process may declare, and their types (docs/training-process.md).
import { byText, isAmount, isObject, isText } from "./basics.js";
import { FORMATS, METHODS, PHASES } from "./names.js";

/** @typedef {(value: any) => boolean} Check */
const _LORA = ["target_modules", "modules_to_save"];
const _MOST_ENTRIES = 400, _MOST_LEVELS = 4;

/** @param {any} value */
const short = (value) => isText(value) && value !== "" && [...value].length <= 200;
/** @param {any} value @param {number} most */
const few = (value, most) => Array.isArray(value) && value.length <= most && value.every(short);
/** @param {string[]} names @returns {Check} */
const oneOf = (names) => (value) => names.includes(value);
/** @param {any} value */
const flag = (value) => typeof value === "boolean";

/** @param {any} value */
function isPrecision(value) {
  if (isText(value)) return FORMATS.includes(value);
  if (!isObject(value) || !Object.keys(value).every((name) => FORMATS.includes(name))) return false;
  const shares = Object.values(value);
  return shares.every((one) => isAmount(one) && one > 0n) && shares.reduce((/** @type {bigint} */ sum, one) => sum + one, 0n) === 1000000n;
}

/** @param {any} value */
function isLora(value) {
  if (!isObject(value) || !isAmount(value.r)) return false;
  return Object.keys(value).every((name) => name === "r" || (_LORA.includes(name) && (value[name] === null || few(value[name], 256))));
}

/** @param {any} value */
function byPhase(value) {
  return isObject(value) && Object.keys(value).every((name) => PHASES.includes(name) && few(value[name], 16));
}

/** How many are in an object or a list; none can be that is nested deeper, or has too long a text.
 * @param {any} value @param {number} levels @returns {number} */
function entries(value, levels) {
  const tooLong = (/** @type {any} */ one) => isText(one) && [...one].length > 200;
  if (tooLong(value)) return Infinity;
  if (!Array.isArray(value) && !isObject(value)) return 0;
  if (levels === 0 || (isObject(value) && Object.keys(value).some(tooLong))) return Infinity;
  return Object.values(value).reduce((sum, one) => sum + 1 + entries(one, levels - 1), 0);
}

const _FACTS = /** @type {Record<string, Check>} */ ({
  model_config: (value) => isObject(value) && entries(value, _MOST_LEVELS) <= _MOST_ENTRIES, model_name: short,
  model_revision: short, parameters_total: isAmount, parameters_trainable: isAmount, method: oneOf(METHODS), lora: isLora,
  recomputation: oneOf(["none", "full", "selective"]), attention: (value) => isText(value) && /^[a-z0-9_]{1,40}$/.test(value), precision: isPrecision, packing: flag,
  window: isAmount, role: oneOf(["reference", "reward", "teacher", "critic", "other"]),
  not_counted: byPhase, operators_not_counted: byPhase,
  rank: isAmount, local_rank: isAmount, world_size: isAmount, framework: short,
  device: (value) => isText(value) && /^[!-~]{1,100}$/.test(value),
});

/** As a ledger has them: the lists of `lora` are sorted, and what is null in it is left out.
 * @param {import("./basics.js").J} facts */
export function sortedFacts(facts) {
  if (!isObject(facts.lora)) return facts;
  const members = Object.entries(facts.lora).filter(([, value]) => value !== null);
  const lora = Object.fromEntries(members.map(([name, value]) => [name, Array.isArray(value) ? [...value].sort(byText) : value]));
  return { ...facts, lora };
}

/** The name of a fact that is none, or not of its type. @param {import("./basics.js").J} facts */
export function strangeFact(facts) {
  return Object.keys(facts).find((name) => !Object.hasOwn(_FACTS, name) || !_FACTS[name](facts[name]));
}
