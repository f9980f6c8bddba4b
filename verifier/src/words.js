// Members in words for people, which follow from nothing that is defined. They are shown and named as not compared.

const _WORDS = [
<<<<<<< HEAD
  /\.totals\.architectureAbsentReason$/,
  /\.findings\[\d+\]\.reasons$/,
  /\.contradictions\[\d+\]\.(?!name$)\w+$/,
=======
  /\.findings\[\d+\]\.reason$/,
  /\.contradictions\[\d+\]\.summary$/,
>>>>>>> 92602803 (Every vector that decides one clause, in the third implementation)
  /\.completeness\.(summary|missing\[\d+\])$/,
];

/** @param {string} path */
export function isWords(path) {
  return _WORDS.some((one) => one.test(path));
}
