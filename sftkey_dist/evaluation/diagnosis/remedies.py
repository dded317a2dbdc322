"""What to try against a finding, for a strategy whose training is known: what it has done already does not help."""

from collections.abc import Collection

from sftkey_dist.contract import END_OF_TURN
from sftkey_dist.evaluation.diagnosis.learning import StageCurves

_EPOCHS = "optimization.num_epochs"
_MORE_EPOCHS = f"train the whole response for more epochs ({_EPOCHS})"
_AFTER_WHOLE_RESPONSE = {
    "right_answer_broken_structure": "raise optimization.num_epochs: the structure is not learned yet",
    "no_answer_found": "the whole response was trained and its structure not learned: raise optimization.num_epochs (a "
    "model with random weights also needs an optimization.learning_rate of about 1e-3)",
    "repeats_itself": "raise optimization.num_epochs: how a response goes on is not learned yet",
    "reasoning_contradicts_answer": "check the training data for the same contradiction; raise optimization.num_epochs",
}
"""For a strategy whose model is that of a stage on the whole response."""


def remedies_for(curves: StageCurves, of_metrics: Collection[str]) -> dict[str, str]:
    """Remedies by kind of finding, where they differ from those for an unknown training.

    Args:
        curves: of the stage that made the model.
        of_metrics: kinds of the findings from its metrics, whose remedies no other may contradict.
    """
    if curves.continues:
        remedies = _after_another_stage(curves)
    elif curves.has_trained_whole:
        remedies = dict(_AFTER_WHOLE_RESPONSE)
    else:
        remedies = _after_answers_alone(curves)
    if END_OF_TURN in curves.trained:
        remedies["cut_off"] = "raise evaluation.max_new_tokens (see the response lengths in the data report)"
    if curves.useless:
        names = " and ".join(stage.name for stage in curves.useless)
        remedies["right_structure_wrong_answer"] = (
            f"add examples of the cases that fail, or {_MORE_EPOCHS}; what came of stage {names} stands below"
        )
    if "last_stage_drifts" in of_metrics:
        remedies["right_structure_wrong_answer"] = (
            f"add examples of the cases that fail; more of stage {curves.name} costs more of what it does not train, "
            f"see below"
        )
    if "last_stage_overfits" in of_metrics:
        remedies["right_structure_wrong_answer"] = (
            f"add examples of the cases that fail; stage {curves.name} has learned its rows by heart, see below"
        )
        if not curves.continues:
            more_rows = f"train on more rows: stage {curves.name} has learned those it has by heart, see below"
            remedies |= {kind: more_rows for kind, remedy in remedies.items() if _EPOCHS in remedy}
    if "reasoning_is_the_limit" in of_metrics:
        remedies["right_structure_wrong_answer"] = "begin with the reasoning; see below"
    return remedies


def guard_advice(curves: StageCurves) -> str:
    """How a guard would keep a better model of the stage; "" if one has kept the best, or if none watches the stage,
    because it does not continue from another."""
    if curves.kept_best or not curves.continues:
        return ""
    return "set validation.guard.keep=best" if curves.guard else "use validation.guard to keep the best model"


def _after_another_stage(curves: StageCurves) -> dict[str, str]:
    lower = f"lower the learning rate of stage {curves.name}"
    advice = guard_advice(curves)
    with_guard = f"{lower}, or {advice}" if advice else lower
    tags = "" if curves.trains_structure else ", or train the tags in it too (key_stage.tags=true)"
    before = f"look at the strategy that ends before stage {curves.name}"
    return {
        "right_answer_broken_structure": f"{with_guard}{tags}",
        "right_structure_wrong_answer": "train the answer for more epochs (key_stage.optimization.num_epochs), or add "
        "examples of the cases that fail",
        "no_answer_found": f"{before}: if its outputs have answers, {with_guard}; otherwise {_MORE_EPOCHS}",
        "repeats_itself": f"{before}: if its outputs end, {with_guard}; otherwise {_MORE_EPOCHS}",
        "reasoning_contradicts_answer": f"check the training data for the same contradiction; {lower}, or "
        f"{_MORE_EPOCHS} before it",
    }


def _after_answers_alone(curves: StageCurves) -> dict[str, str]:
    """For a strategy that never trained the whole response, such as `key-tag`."""
    tags = "" if curves.trains_structure else ", or train the tags in the key stage (key_stage.tags=true)"
    return {
        "right_answer_broken_structure": f"train the structure before the answer (sftkey-tag rather than key-tag){tags}"
    }
