// Names of the format, and the counters that a training process may declare (docs/training-process.md).

export const WORK = [
  "steps", "forward_passes", "sequences", "tokens", "padding_tokens", "square_pairs", "window_pairs", "target_tokens",
  "target_square_pairs", "cross_pairs", "cross_tokens", "framework_flop", "weight_products", "trained_weight_products",
  "graded_weight_products", "recomputed_weight_products", "other_weight_products", "other_weight_products_max",
  "weight_passes", "weight_square_pairs", "weight_pair_products", "headless_tokens", "unlabelled_tokens",
  "fused_head_tokens", "images", "patches", "patch_square_pairs", "patch_window_pairs", "operator_flop",
  "recomputed_operator_flop",
];
export const KERNELS = [
  "matrix_bf16", "matrix_fp16", "matrix_tf32", "matrix_fp8", "matrix_fp4", "matrix_int8", "matrix_fp64", "matrix_plain",
  "matrix_unnamed", "attention", "convolution", "vector", "copy", "communication", "other",
];
/** Of kernels that a process saw in sampled windows. */
export const SEEN = [
  "kernel_windows", "kernel_window_ns", "kernel_window_cost_ns", "kernel_windows_skipped", "kernel_windows_refused",
  ...KERNELS.map((kind) => `kernel_ns_${kind}`), ...KERNELS.map((kind) => `kernel_launches_${kind}`),
];
export const METHODS = ["pretraining", "full", "partial", "lora", "qlora"];
export const PHASES = ["train", "evaluate", "generate", "other"];
export const FORMATS = ["bf16", "fp16", "tf32", "fp8", "fp6", "fp4", "fp64", "int8"];
