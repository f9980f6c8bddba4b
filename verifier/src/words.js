// Members in words for people, which follow from nothing that is defined. They are shown and named as not compared.

const _WORDS = [
  /^statement\.predicate\.claim(\..*)?$/,
  /\.completeness\.missing\[\d+\]$/,
  /\.architecture\.method$/,
  /\.method\.assumptions$/,
  /\.totals\.guidelines\.(method|requiredPpmSource)$/,
  /\.totals\.architectureAbsentReason$/,
  /\.findings\[\d+\]\.reason$/,
  /\.reconciliation\[\d+\]\.(numerator|denominator|warning|summary)$/,
  /\.contradictions\[\d+\]\.summary$/,
  /\.completeness\.summary$/,
  /\.declared\.conflict$/,
];

/** @param {string} path */
export function isWords(path) {
  return _WORDS.some((one) => one.test(path));
}
