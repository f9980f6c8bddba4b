"""The sample that CI takes of tests over every family, training method, scene or install: every n-th case. `make
test-all` runs all."""

from collections import Counter

import pytest

ONE_OF = {
    "test_the_configuration_states_every_parameter": 8,
    "test_a_pass_is_counted_by_its_inputs": 4,
    "test_a_step_counts_what_pytorch_counts": 3,
    "test_pytorchs_count_is_within_the_bounds_by_weights": 3,
    "test_a_classifier_trained_together_with_adapters_is_counted": 3,
    "test_the_page_is_not_cut_off_loads_nothing_else_and_logs_no_error": 3,
    "test_axe_finds_no_fault_on_the_page": 2,
    "test_the_page_loads_nothing_and_no_element_is_cut_off_or_overlaps": 2,
    "test_no_panel_is_empty_without_its_reason": 2,
    "test_each_python_meters_seals_and_verifies": 2,
    "test_every_product_is_counted_once": 6,
    "test_the_operator_count_equals_pytorchs": 2,
    "test_an_absent_field_has_the_default_of_the_class": 2,
    "test_declarations_suffice_for_the_flop_that_pytorch_counts": 3,
    "test_a_trainers_declarations_suffice_for_the_flop_that_pytorch_counts": 2,
    "test_a_model_compiled_after_attaching_trains_on_and_is_declared": 2,
    "test_the_page_can_be_followed_literally_for_every_kind_of_ledger": 4,
    "test_no_alert_fires_on_a_healthy_install": 2,
    "test_every_published_ledger_is_reported": 6,
    "test_an_adapter_on_any_matrix_makes_the_layers_above_compute_gradients": 6,
    "test_a_value_of_the_wrong_type_or_size_is_refused_by_name": 6,
    "test_the_configuration_states_what_a_step_computes": 2,
    "test_an_absent_field_has_the_default_of_transformers": 2,
    "test_bounds_cover_exactly_the_possible_declarations": 4,
    "test_a_scale_over_a_tenth_off_is_never_used": 4,
    "test_bounds_from_a_size_contain_published_models": 4,
    "test_an_earlier_ledger_is_skipped_when_its_run_continued": 4,
    "test_exit_code_and_failure_file_are_the_scripts_and_the_ledger_is_kept": 2,
    "test_axe_finds_no_fault_in_any_state": 2,
    "test_a_file_is_trusted_only_by_its_whole_digest": 2,
    "test_the_recipe_of_verify_explain_gives_the_same_verdict": 2,
    "test_the_page_finds_the_faults_it_claims_to_find": 2,
    "test_sigkills_at_any_time_lose_no_acknowledged_work": 3,
    "test_a_journal_forged_by_the_job_is_not_sealed_as_the_runs": 2,
    "test_a_code_altered_by_the_job_is_found_though_no_chain_breaks": 2,
    "test_signals_reach_the_jobs_whole_process_group": 2,
    "test_the_jobs_exit_code_is_returned_and_the_ledger_sealed": 2,
    "test_with_broken_streams_the_exit_code_is_returned_and_the_ledger_copied": 2,
    "test_the_truth_lies_between_low_and_high": 2,
    "test_a_load_in_step_with_the_reads_stays_in_the_interval": 3,
    "test_all_models_of_a_trainer_are_counted": 2,
    "test_a_head_count_that_does_not_divide_the_width_is_refused": 3,
    "test_an_unknown_field_is_refused_at_any_nesting": 3,
    "test_an_undeclared_method_may_have_trained_nothing_or_everything": 3,
    "test_sdpa_skips_masked_pairs_unless_it_is_given_a_mask": 3,
    "test_forward_flop_is_the_first_terms_of_a_step": 3,
    "test_a_load_in_step_with_the_reads_is_never_above_the_ceiling": 3,
    "test_a_card_at_its_power_limit_has_the_ceiling_of_its_actual_clock": 3,
    "test_figures_of_a_whole_model_are_in_order": 3,
}


def mark_all_but_slices(items: list[pytest.Item]) -> None:
    """Mark the omitted cases as exhaustive."""
    seen: Counter[str] = Counter()
    for item in items:
        name = getattr(item, "originalname", item.name)
        if seen[name] % ONE_OF.get(name, 1):
            item.add_marker(pytest.mark.exhaustive)
        seen[name] += 1
