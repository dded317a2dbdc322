"""Which test shows what is promised of which fault."""

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.single_process
TESTS = Path(__file__).parents[1]
CHAIN = "test_killed_and_frozen_workers_and_a_signal_cost_steps_but_change_nothing"
DAMAGE = "test_a_damaged_checkpoint_is_set_aside_and_training_ends_in_the_same_bytes"
HOSTS = "test_a_submitted_run_outlives_a_lost_host_that_returns_is_resumed_and_leaves_one_that_is_taken_away"
TABLE = {
    "a worker is killed in a step": [CHAIN],
    "a rank is killed while it writes its shard": ["test_a_rank_that_dies_while_it_writes_leaves_no_checkpoint"],
    "all end when a checkpoint is saved": ["test_a_checkpoint_that_was_waited_for_outlives_all_ranks"],
    "the driver is killed": ["test_run_killed_in_stage_2_finishes_without_repeating_stage_1"],
    "the driver gets SIGTERM or SIGINT": [
        CHAIN,
        "test_the_first_signal_asks_and_the_second_ends",
        "test_a_signal_ends_the_wait_for_an_actor_at_once",
    ],
    "signals reach the whole process group, several in one moment": [CHAIN, "test_signals_of_one_moment_are_one"],
    "the terminal is closed while the cluster starts": ["test_a_signal_to_the_whole_group_ends_a_start_at_once"],
    "a node is taken away": [HOSTS],
    "a worker freezes": [CHAIN],
    "a node hangs before the first stage": ["test_a_node_that_hangs_is_named_and_the_others_are_measured"],
    "a node is slow, has another clock or fewer accelerators": [
        "test_what_is_slow_is_a_warning_that_names_the_node_and_the_figure"
    ],
    "a node has other versions or code": ["test_what_training_could_not_work_with_is_an_error_that_names_the_node"],
    "a device computes wrongly": ["test_a_product_is_timed_and_a_wrong_one_is_found"],
    "a collective hangs": ["test_a_rank_that_hangs_ends_the_wait_of_the_others_and_is_named"],
    "ranks disagree": ["test_ranks_that_plan_differently_stop_before_the_update"],
    "an error of the code": ["test_what_would_fail_again_is_not_tried_again"],
    "a crash loop, without and with progress": ["test_a_crash_loop_ends_and_one_with_progress_does_not"],
    "memory runs out": [
        "test_memory_that_ran_out_is_named_with_its_size_and_what_to_lower",
        "test_workers_are_dismissed_although_their_queue_was_lost",
        "test_workers_that_memory_cannot_hold_are_refused_before_anything_starts",
    ],
    "the disk is full": [
        "test_a_full_disk_keeps_the_last_checkpoint_and_is_named",
        "test_too_little_space_is_named_and_what_is_stored_counts",
    ],
    "storage is read-only or not shared": [
        "test_a_run_directory_that_cannot_be_written_is_named",
        "test_a_node_does_not_create_the_folder_that_it_cannot_see",
        "test_every_error_is_in_the_one_line_that_ends_the_run",
    ],
    "a bit flips in the newest shard": [DAMAGE],
    "a shard is cut, empty or gone": [DAMAGE],
    "Ray's own snapshot is damaged": [CHAIN],
    "a checkpoint is removed by hand": [DAMAGE],
    "another world size": [
        "test_resumed_stage_is_the_uninterrupted_one_byte_for_byte_and_on_other_ranks_to_float_error",
        HOSTS,
    ],
    "settings or data change": ["test_other_settings_or_data_are_another_stage_and_find_no_checkpoint"],
    "a finished run is started again": ["test_run_killed_in_stage_2_finishes_without_repeating_stage_1"],
    "a loss is no number": ["test_a_loss_that_is_no_number_stops_before_the_update_and_names_rank_and_examples"],
    "a rank has no loss token": ["test_a_rank_without_examples_takes_part_with_untied_embeddings"],
    "ranks have different numbers of tokens": ["test_both_stages_equal_the_reference_on_one_and_two_ranks"],
    "rows are corrupt": [
        "test_a_row_that_cannot_be_read_is_refused_with_its_place",
        "test_malformed_rows_stop_above_the_allowed_share",
        "test_malformed_rows_within_the_allowed_share_are_dropped_and_counted",
    ],
    "a mistake concerns a source that is split": [
        "test_a_mistake_that_concerns_the_whole_source_is_reported_as_without_a_split"
    ],
    "a file is not text in UTF-8": ["test_files_that_cannot_be_read_are_named_with_a_remedy"],
    "a preparation fails": [
        "test_a_failed_preparation_leaves_nothing_behind",
        "test_a_failed_preparation_leaves_no_base_model_and_reads_columns_before_it_makes_one",
    ],
    "rows are hostile or too long": [
        "test_hostile_text_is_encoded_exactly_or_refused_with_a_reason",
        "test_too_long_examples_are_dropped_and_counted_never_cut",
    ],
    "a worker runs out of memory": ["test_a_lost_process_or_connection_is_told_from_a_mistake"],
    "MLflow is away at the start, or goes and comes back": [
        "test_a_server_that_does_not_answer_is_a_quick_clear_error",
        "test_a_server_that_dies_and_comes_back_has_everything_after_sync_and_no_secret",
    ],
    "MLflow does not know the account": ["test_the_server_that_launch_starts_asks_for_its_account"],
    "an evaluation's worker is killed": ["test_killed_actors_and_drivers_lose_and_repeat_nothing"],
    "a judge fails in every way": ["test_faults_lose_no_verdict_and_make_none_wrong_and_nothing_is_asked_twice"],
    "a task of the capability check fails, loses its process, or the hub is away": [
        "test_a_task_that_fails_is_one_line",
        "test_a_task_that_loses_its_process_every_time_costs_no_other_task",
        "test_run_killed_in_stage_2_finishes_without_repeating_stage_1",
    ],
    "an evaluation is killed half-way": ["test_killed_actors_and_drivers_lose_and_repeat_nothing"],
    "an answer instructs the judge": ["test_an_answer_stays_inside_its_quotes_and_tags"],
    "a cluster without authentication": [
        "test_a_remote_cluster_is_not_spoken_to_without_a_token",
        "test_a_stopped_study_leaves_a_checkpoint_of_each_run_at_work_and_a_wrong_token_is_refused",
    ],
    "a checkpoint is a pickle that runs code": [DAMAGE],
    "secrets in configuration and environment": [
        "test_a_server_that_dies_and_comes_back_has_everything_after_sync_and_no_secret",
        HOSTS,
    ],
    "a model ships code, YAML is hostile": ["test_code_that_a_model_ships_is_not_run", "test_hostile_yaml_is_refused"],
    "two commands on one run directory": [
        CHAIN,
        "test_a_second_command_is_refused_with_the_first_ones_process_and_released_afterwards",
        "test_the_lock_of_a_killed_command_is_taken_over_at_once",
    ],
    "a signal comes while MLflow's SQLite file is created": [
        "test_a_signal_while_a_store_is_created_is_no_fault_of_the_store_and_leaves_none"
    ],
    "a command is killed while it writes": ["test_what_killed_writers_left_is_removed_and_nothing_else"],
    "an encoding process is killed": ["test_finished_parts_are_kept_unless_the_rows_must_be_corrected"],
    "a study is told twice to end": ["test_a_study_that_is_told_twice_to_end_waits_for_its_runs_all_the_same"],
    "a label is written while its answers are scored": ["test_a_person_labels_disagreements_and_has_the_last_word"],
    "there is no compiler": ["test_training_needs_no_compiler"],
    "master weights are damaged": ["test_damaged_masters_are_named_before_a_step"],
    "master weights are gone": [
        "test_stage_2_starts_from_masters_that_go_when_nobody_needs_them_and_come_back_when_somebody_does"
    ],
    "a model fits no accelerator": [
        "test_training_that_is_too_large_names_the_setting_that_makes_it_fit",
        "test_a_model_that_no_evaluation_can_hold_is_refused",
        "test_a_guard_whose_copy_does_not_fit_beside_training_is_refused_unless_it_needs_none",
    ],
    "there is no driver, or memory runs out": [
        "test_workers_without_a_driver_are_refused_and_a_run_on_cpu_is_not_asked",
        "test_no_device_is_final_and_too_little_memory_says_what_to_lower",
    ],
    "rank 0 reads or writes for longer than a collective may take": ["test_ranks_wait_for_what_takes_long_and_name_it"],
    "the export fails": ["test_an_export_that_fails_is_repeated_without_a_step"],
    "the lock is lost, or the run directory removed": ["test_a_command_that_lost_its_lock_or_its_folder_ends_at_once"],
    "a lock is dated in the future, or is no file": [
        "test_a_lock_of_another_machine_that_is_dated_in_the_future_is_no_beat",
        "test_what_is_no_file_is_no_lock",
    ],
    "a worker is frozen while it starts": [
        "test_workers_that_do_not_start_end_with_their_controller_and_those_that_do_go_on",
        "test_a_signal_ends_a_start_whose_worker_is_frozen",
    ],
    "storage is away when an attempt has ended": [
        "test_a_storage_that_is_still_away_when_its_outage_has_ended_an_attempt_is_asked_again_by_the_next"
    ],
    "what is named as a cluster is none": ["test_a_signal_ends_the_wait_for_what_is_no_cluster"],
    "a private cluster is reached from outside": ["test_a_run_listens_on_loopback_alone_behind_a_token_of_its_own"],
    "a job would carry secrets": [
        "test_of_a_work_tree_travels_what_git_tracks",
        "test_of_another_folder_travel_python_files_and_what_the_configuration_names",
    ],
    "a link leads out of a job's folder": ["test_links_lead_to_nothing_that_is_not_sent_itself"],
    "credentials stand in a configuration": ["test_they_are_refused_everywhere_and_not_repeated"],
    "a key would go over an open connection": ["test_a_key_is_sent_encrypted_or_to_this_machine_alone"],
    "a key that a result depends on is not in its digest": [
        "test_every_key_is_in_one_of_the_lists",
        "test_a_key_changes_the_digest_or_provably_nothing",
        "test_a_new_key_counts_until_it_is_named",
    ],
    "a model is moved, copied or described": ["test_a_model_is_what_is_read_of_it_wherever_it_lies"],
    "a limit that binds nothing is changed": ["test_a_limit_that_binds_nothing_changes_nothing"],
    "a run is renamed whose checkpoints lie in an object store": [
        "test_a_run_that_is_renamed_keeps_the_place_of_its_checkpoints"
    ],
    "the data of a study's run changed, or its tracking": [
        "test_a_run_is_done_again_when_its_data_changed_and_not_when_its_tracking_did"
    ],
    "a finished run is shown, planned or prepared with other settings": [
        "test_what_a_finished_run_was_made_with_outlives_a_look_at_it"
    ],
    "a tracking database is away at the start": ["test_a_server_that_does_not_answer_is_a_quick_clear_error"],
    "TensorBoard's folder or W&B's server fails": [
        "test_a_sink_that_fails_costs_one_warning_and_gets_nothing_more",
        "test_a_folder_that_cannot_be_written_costs_one_warning",
        "test_a_server_that_does_not_answer_costs_one_warning",
    ],
    "MLflow is away and other trackers are not": ["test_what_one_tracker_lacks_does_not_keep_others_from_getting_it"],
    "the process is killed while it writes an event file": [
        "test_a_step_that_was_being_written_when_the_process_was_killed_is_written_again"
    ],
    "the disk is full of bytes or files while preparing": [
        "test_a_disk_that_is_full_of_bytes_or_files_while_preparing_is_named"
    ],
    "too few files may be open": ["test_more_files_are_opened_where_they_may_and_named_where_not"],
    "a stage has two names": ["test_a_stage_under_two_names_is_one"],
    "a stage is trained again for a changed key": ["test_what_changed_is_named_when_a_stage_is_trained_again"],
    "a stage counts before its model is on disk": [
        "test_an_export_is_on_disk_before_it_has_its_name",
        "test_records_and_names_are_on_disk_before_the_stage_counts_and_checkpoints_go_after",
        "test_content_then_name_then_folder_reach_the_disk",
    ],
    "a bit flips in a finished model": [
        "test_a_flipped_bit_in_a_finished_model_is_one_line_for_every_command",
        "test_any_change_of_a_finished_model_is_named",
        "test_a_model_is_read_once_a_command_and_its_card_may_change",
    ],
    "a finished stage of an older version": [
        "test_a_stage_that_was_finished_before_digests_were_noted_is_used_as_it_is"
    ],
    "NULs or a broken line in a journal": [
        "test_a_broken_line_is_named_with_its_number_wherever_it_is_read",
        "test_nuls_in_the_middle_of_a_journal_are_named_with_their_line",
        "test_a_damaged_journal_of_a_stage_under_way_is_named_before_ray_starts",
        "test_nuls_behind_the_last_line_are_one_that_was_being_written",
        "test_records_of_an_evaluation_and_rulings_of_judges_are_checked_too",
    ],
    "a file of a run is empty, cut or NULs": [
        "test_every_reader_names_a_damaged_file_and_what_to_do",
        "test_a_damaged_summary_is_named_with_what_to_do",
        "test_a_damaged_file_is_named_with_what_to_do",
        "test_a_studys_files_are_checked",
    ],
    "a file of a run lacks a key": [
        "test_an_entry_that_lacks_something_is_named_by_its_key",
        "test_scores_that_lack_something_are_named_by_it",
    ],
    "a path in a run's file leads out": ["test_a_path_that_leads_out_of_the_run_is_refused"],
    "a link lies where a file is written": [
        "test_what_is_written_replaces_a_link_and_has_the_mode_that_the_umask_gives",
        "test_files_of_a_checkpoint_replace_links_too",
        "test_a_model_folder_that_is_a_link_is_not_taken_for_written",
    ],
    "a link or pipe lies where a journal is": [
        "test_a_journal_that_is_no_file_of_its_own_is_not_appended_to",
        "test_a_pipe_in_a_journals_place_is_named_and_not_waited_for",
        "test_a_missing_file_a_folder_and_a_pipe_are_named_at_once",
    ],
    "weights are unreadable to the team": [
        "test_weights_that_libraries_write_have_the_mode_that_the_umask_gives",
        "test_a_folder_that_a_library_filled_can_be_read_by_those_whom_the_umask_lets",
        "test_the_umask_is_read_without_being_set",
    ],
    "a generation configuration cannot be saved": [
        "test_a_trained_model_generates_as_it_is_evaluated_and_what_that_leaves_out_is_said",
        "test_what_would_change_responses_is_left_out_and_named",
    ],
    "a model cannot be exported": ["test_what_cannot_be_exported_is_found_before_the_first_step"],
    "an older checkpoint needs its guard's model": [
        "test_an_older_checkpoint_keeps_the_model_that_it_needs",
        "test_a_checkpoint_says_which_model_it_needs",
        "test_the_model_of_a_checkpoint_that_is_being_written_counts",
    ],
    "references of checkpoints cannot be told": [
        "test_where_references_cannot_be_told_nothing_may_go",
        "test_nothing_goes_on_a_guess_and_a_guard_that_keeps_the_last_needs_none",
    ],
    "torch's cache fills a device": ["test_what_torch_keeps_unused_counts_as_free"],
    "a text that makes the judge fail for good": [
        "test_a_text_that_makes_the_judge_fail_for_good_is_incorrect_and_counted_by_name"
    ],
    "a question that the judge never rules on": [
        "test_a_question_that_the_judge_never_rules_on_leaves_its_answers_unjudged"
    ],
    "a judge's infrastructure fails on one text": [
        "test_failures_of_the_infrastructure_stay_unjudged_and_open",
        "test_a_spent_budget_says_nothing_of_a_text",
        "test_a_failure_that_has_passed_when_the_question_is_asked_again_is_not_the_texts",
    ],
    "one of several judges fails on a text": ["test_a_judge_that_a_text_makes_fail_votes_against_it"],
    "an explanation that the judge cannot rate": ["test_an_explanation_that_makes_the_judge_fail_has_the_worst_rating"],
    "a check raises": [
        "test_a_check_that_raises_on_the_answer_makes_it_incorrect_and_one_that_raises_on_the_reference_unjudged",
        "test_a_reader_that_runs_out_of_stack_ends_no_evaluation",
    ],
    "40 right and 60 that nobody judged": [
        "test_forty_right_and_sixty_that_nobody_judged_rank_as_forty_right",
        "test_winners_by_alpha_and_the_best_score_count_unjudged_answers_as_wrong",
        "test_results_of_a_study_count_unjudged_answers_as_wrong",
        "test_the_guard_keeps_the_model_with_more_right_answers_not_the_one_with_fewer_judged",
    ],
    "control tokens in what is judged": [
        "test_control_tokens_of_any_family_are_escaped_reversibly",
        "test_a_local_judge_reads_no_special_token_but_its_templates_own",
    ],
    "invisible or reordering characters in what is judged": [
        "test_what_nobody_sees_or_what_reorders_is_escaped_reversibly"
    ],
    "a candidate too long for the judge's quotes": [
        "test_a_cut_text_says_which_end_is_missing",
        "test_a_local_judge_that_cannot_take_one_text_answers_the_others",
    ],
    "a chat template that refuses one text": [
        "test_a_template_that_refuses_one_text_fails_on_it_and_one_that_refuses_all_is_an_error"
    ],
    "markup in names, terminal": ["test_terminal_tables_show_a_name_as_it_is_and_obey_nothing"],
    "markup in names, figures": ["test_figures_draw_with_any_name_and_are_whole"],
    "markup in names, Markdown": [
        "test_markdown_shows_a_name_as_it_is_in_a_table_and_in_a_line",
        "test_markdown_shows_what_nobody_sees_as_an_escape",
    ],
    "markup in names and outputs, page": ["test_the_page_holds_names_and_outputs_as_text"],
    "an answer of thousands of marks or spaces": [
        "test_a_check_of_a_repeated_piece_takes_a_moment",
        "test_the_options_of_a_hostile_question_are_found_in_a_moment",
    ],
    "a fence that never ends": ["test_a_fence_that_never_ends_takes_a_moment"],
    "JSON of 100,000 levels, 1e999, huge integers, half a surrogate pair": [
        "test_json_of_any_depth_and_size_is_wrong_at_most",
        "test_a_number_that_json_cannot_hold_is_no_json",
        "test_a_text_with_half_a_surrogate_pair_is_written_as_an_escape",
    ],
    "uniqueItems of thousands": ["test_unique_items_of_an_array_are_found_in_linear_time"],
    "a schema whose work doubles with every level": [
        "test_a_schema_that_doubles_its_work_with_every_level_is_stopped",
        "test_patterns_of_a_schema_on_names_and_texts_have_a_time_limit",
    ],
    "a row of many megabytes": [
        "test_a_row_of_many_megabytes_is_refused_with_its_place_and_the_others_are_read",
        "test_a_csv_record_of_many_megabytes_is_named",
    ],
    "a gzip bomb": [
        "test_a_gzip_bomb_ends_with_its_place_and_a_remedy",
        "test_a_json_file_that_unpacks_to_more_than_it_may_is_named",
    ],
    "Parquet text that is not UTF-8": ["test_a_parquet_column_of_text_that_is_not_utf8_is_named"],
    "a damaged review file": ["test_a_review_file_that_is_damaged_is_named_with_its_line"],
    "memory of a later, fuller step is not counted": [
        "test_memory_is_that_of_the_fullest_step_wherever_it_comes",
        "test_what_is_not_planned_is_bounded_from_above",
    ],
    "the guard's copy is not counted, or beside activations that are gone": [
        "test_the_guards_copy_lies_beside_the_state_and_decides_whether_a_stage_fits",
        "test_a_guard_takes_room_beside_the_state_and_not_beside_activations_that_are_gone",
    ],
    "adapters' own weights are not counted": ["test_adapters_lie_beside_the_frozen_weights"],
    "a mixture counts experts that a token does not pass": [
        "test_all_experts_lie_in_memory_and_a_token_passes_a_few",
        "test_a_mixture_takes_the_time_of_what_a_token_passes",
        "test_a_token_passes_the_experts_it_is_routed_to",
        "test_the_sampler_levels_by_the_active_experts",
    ],
    "frozen weights count as if they had gradients": [
        "test_flops_of_a_step_are_what_torch_counts_with_causal_attention_at_half",
        "test_adapters_spare_the_gradient_of_frozen_weights_and_all_of_what_comes_before_the_first",
    ],
    "a stopped prefix counts wrongly": [
        "test_a_stopped_prefix_has_a_forward_pass_alone",
        "test_a_stopped_prefix_is_forward_alone_in_time_memory_and_traffic",
    ],
    "recomputation counts as model FLOPs": ["test_what_is_recomputed_is_the_accelerators_and_not_the_models"],
    "a short schedule ends at its peak": [
        "test_shortest_stages_begin_above_zero_and_end_at_the_minimum",
        "test_rates_are_positive_at_first_never_above_the_peak_and_at_the_minimum_last",
    ],
    "forms that dropped other rows hold out other prompts": [
        "test_forms_that_dropped_other_rows_hold_out_the_same_prompts"
    ],
    "the schema accepts a number that cannot train": [
        "test_a_numeric_key_takes_no_number_that_nobody_means",
        "test_what_cannot_train_is_refused_in_a_line_with_key_value_and_remedy",
    ],
    "a null that overrides nothing is a traceback": ["test_a_null_that_is_not_inherited_is_named_in_every_override"],
    "ranks are chosen that hpZ's groups do not divide": [
        "test_every_number_of_ranks_that_is_chosen_is_one_of_whole_groups"
    ],
    "a stage pauses for ranks that it cannot use": [
        "test_a_stage_pauses_for_more_ranks_only_where_they_make_a_whole_group"
    ],
    "a cluster is proposed that hpZ's groups do not divide": [
        "test_the_smallest_cluster_is_one_that_groups_of_neighbours_divide"
    ],
    "a small model of a CPU run would be refused": [
        "test_a_small_model_of_a_run_on_cpus_fits_the_accelerators_it_is_planned_for"
    ],
}


@pytest.fixture(scope="module")
def all_tests() -> set[str]:
    trees = (ast.parse(file.read_text(encoding="utf-8")) for file in TESTS.rglob("test_*.py"))
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_fault_has_its_tests(all_tests):
    assert len(TABLE) == 138
    named = {name for names in TABLE.values() for name in names}
    assert named <= all_tests, f"there is no {', '.join(sorted(named - all_tests))}"
