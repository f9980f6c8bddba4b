// Members in words for people, which follow from nothing that is defined. They are shown and named as not compared.

const _WORDS = [/\.completeness\.missing\[\d+\](\..*)?$/];

/** @param {string} path */
export function isWords(path) {
  return _WORDS.some((one) => one.test(path));
}
