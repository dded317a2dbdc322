"""Which test shows what is promised of which fault."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CHAIN = "test_killed_and_frozen_workers_and_a_signal_cost_steps_but_change_nothing"
DAMAGE = "test_a_damaged_checkpoint_is_set_aside_and_training_ends_in_the_same_bytes"
HOSTS = "test_a_submitted_run_outlives_a_lost_host_uses_a_new_one_and_leaves_one_that_is_taken_away"
TABLE = {
    "a worker is killed in a step": [CHAIN],
    "a rank is killed while it writes its shard": ["test_a_rank_that_dies_while_it_writes_leaves_no_checkpoint"],
    "all end when a checkpoint is saved": ["test_a_checkpoint_that_was_waited_for_outlives_all_ranks"],
    "the driver is killed": ["test_run_killed_in_stage_2_finishes_without_repeating_stage_1"],
    "the driver gets SIGTERM or SIGINT": [CHAIN, "test_the_first_signal_asks_and_the_second_ends"],
    "signals reach the whole process group, several in one moment": [CHAIN, "test_signals_of_one_moment_are_one"],
    "the terminal is closed while the cluster starts": ["test_a_signal_to_the_whole_group_ends_a_start_at_once"],
    "a node is taken away": [HOSTS],
    "a worker freezes": [CHAIN],
    "a collective hangs": ["test_a_rank_that_hangs_ends_the_wait_of_the_others_and_is_named"],
    "ranks disagree": ["test_ranks_that_plan_differently_stop_before_the_update"],
    "an error of the code": ["test_what_would_fail_again_is_not_tried_again"],
    "a crash loop, without and with progress": ["test_a_crash_loop_ends_and_one_with_progress_does_not"],
    "the disk is full": [
        "test_a_full_disk_keeps_the_last_checkpoint_and_is_named",
        "test_too_little_space_is_named_and_what_is_stored_counts",
    ],
    "storage is read-only or not shared": [
        "test_a_run_directory_that_cannot_be_written_is_named",
        "test_storage_that_another_node_does_not_see_is_named",
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
    "rows are hostile or too long": [
        "test_hostile_text_is_encoded_exactly_or_refused_with_a_reason",
        "test_too_long_examples_are_dropped_and_counted_never_cut",
    ],
    "a worker runs out of memory": ["test_a_lost_process_or_connection_is_told_from_a_mistake"],
    "MLflow is away at the start, or goes and comes back": [
        "test_a_server_that_does_not_answer_is_a_quick_clear_error",
        "test_a_server_that_dies_and_comes_back_has_everything_after_sync_and_no_secret",
    ],
    "an evaluation's worker is killed": ["test_killed_actors_and_drivers_lose_and_repeat_nothing"],
    "a judge fails in every way": ["test_faults_lose_no_verdict_and_make_none_wrong_and_nothing_is_asked_twice"],
    "an evaluation is killed half-way": ["test_killed_actors_and_drivers_lose_and_repeat_nothing"],
    "an answer instructs the judge": ["test_an_answer_stays_inside_its_quotes_and_tags"],
    "a cluster without authentication": [
        "test_a_remote_cluster_is_not_spoken_to_without_a_token",
        "test_a_job_is_stopped_and_a_wrong_token_refused",
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
}


@pytest.fixture(scope="module")
def all_tests() -> set[str]:
    trees = (ast.parse(file.read_text(encoding="utf-8")) for file in TESTS.rglob("test_*.py"))
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_fault_has_its_tests(all_tests):
    assert len(TABLE) == 45
    named = {name for names in TABLE.values() for name in names}
    assert named <= all_tests, f"there is no {', '.join(sorted(named - all_tests))}"
