// Times as ledgers and journals write them.
import { Refusal, isText } from "./basics.js";

const _TIME = /^([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]{1,9})?Z$/;

/** Whether it is a time of a day of the calendar. @param {any} value @returns {value is string} */
export function isTime(value) {
  const match = isText(value) ? _TIME.exec(value) : null;
  if (!match) return false;
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number);
  const date = new Date(Date.UTC(2000, month - 1, day));
  date.setUTCFullYear(year, month - 1, day);
  const isDay = year >= 1 && month >= 1 && date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
  return isDay && hour < 24 && minute < 60 && second < 60;
}

/** @param {string} utc @returns {bigint} Since 1970, to the microsecond below. */
export function microseconds(utc) {
  if (!isTime(utc)) throw new Refusal("record_malformed", `${utc} is not a time`);
  const seconds = Date.parse(utc.slice(0, 19) + "Z");
  const digits = /\.([0-9]{1,9})Z$/.exec(utc)?.[1] ?? "";
  return BigInt(seconds) * 1000n + BigInt(digits.padEnd(9, "0").slice(0, 6));
}
