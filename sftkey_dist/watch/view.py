"""How a run looks in a terminal while it is worked on."""

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sftkey_dist.console import visible
from sftkey_dist.contract import END_OF_TURN
from sftkey_dist.report.numbers import number
from sftkey_dist.watch.measures import measures_table
from sftkey_dist.watch.run import EvaluationState, FinishedStage, RunState
from sftkey_dist.watch.stage import StageState
from sftkey_dist.watch.words import duration, seconds_left

_MAX_RANKS_LISTED = 8
_BAR_WIDTH = 30
_QUIET_SECONDS = 10
"""A step that ended longer ago is named."""
_START = "start"
_PHASES_OF_A_STEP = frozenset({_START, "data", "forward", "backward", "optimizer", "metrics"})


def render(state: RunState, console: Console) -> Group:
    """One frame of the view.

    Args:
        state: the run at one moment.
        console: the console that shows it; its width and encoding decide how curves are drawn.
    """
    parts: list[RenderableType] = [Text(f"{state.path}: {_what_happens(state)}", style="bold")]
    parts += [_finished(stage) for stage in state.finished]
    parts += [_stopped(stage) for stage in state.stopped]
    if state.training is not None:
        parts += ["", *_training(state.training, console)]
    if state.evaluations:
        parts += ["", *(line for evaluation in state.evaluations for line in _evaluation(evaluation))]
    return Group(*(visible(part) if isinstance(part, Text) else part for part in parts))


def in_one_line(state: RunState) -> str:
    """The stage or the evaluation that is worked on, and how far it is; "" where there is none."""
    if state.training is not None:
        return f"{state.training.title}, {_progress(state.training)}"
    at_work = [one for one in state.evaluations if one.is_open]
    return _how_far(max(at_work, key=lambda one: one.last_answer or 0.0)) if at_work else ""


def _what_happens(state: RunState) -> str:
    if state.is_finished:
        return "finished"
    if state.writer is None:
        return "not finished, and no command is working on it; the same command continues it"
    by = f"by process {state.writer.pid} on {state.writer.host}"
    if state.training is not None:
        return f"training {by}"
    is_evaluating = any(evaluation.is_open for evaluation in state.evaluations)
    return f"{'evaluating' if is_evaluating else 'preparing the next part of the run'} {by}"


def _finished(stage: FinishedStage) -> Text:
    summary = stage.summary
    texts = {name: of for name, of in summary.final_segments.items() if "." not in name and name != END_OF_TURN}
    nlls = [f"{name} nll {number(of.nll)}" for name, of in texts.items()]
    kept = f"guard kept {summary.guard.kept} ({number(summary.guard.kept_score)})" if summary.guard else ""
    facts = [f"{summary.steps:,} steps in {duration(summary.train_seconds)}", *nlls, *filter(None, [kept])]
    return Text.assemble(("done     ", "green"), f"{stage.title}: {', '.join(facts)}")


def _stopped(stage: StageState) -> Text:
    return Text.assemble(("stopped  ", "yellow"), f"{stage.title}: {_progress(stage)}")


def _progress(stage: StageState) -> str:
    of = f" of {stage.num_steps:,}" if stage.num_steps else ""
    return f"step {stage.steps_done:,}{of}"


def _training(stage: StageState, console: Console) -> Iterator[RenderableType]:
    yield Text(stage.title, style="bold cyan")
    yield _heading(stage)
    if stage.steps:
        yield _speed(stage)
    if memory := _memory(stage):
        yield memory
    if stage.silent:
        yield _silence(stage)
    if stage.event:
        yield Text(f"last event: {stage.event}", style="yellow")
    if stage.steps:
        yield measures_table(stage, console)


def _heading(stage: StageState) -> Table:
    """How far the stage is, and how long it will take."""
    cells: list[RenderableType] = []
    if stage.num_steps:
        cells.append(ProgressBar(total=stage.num_steps, completed=stage.steps_done, width=_BAR_WIDTH))
    cells.append(_progress(stage))
    left = seconds_left(stage.timings, stage.num_steps) if stage.num_steps else None
    if left is not None:
        cells.append(f"{duration(left)} left")
    if phase := _phase(stage):
        cells.append(visible(Text(f"now: {phase}")))
    line = Table.grid(padding=(0, 2))
    line.add_row(*cells)
    return line


def _phase(stage: StageState) -> str:
    """What most ranks are doing, if it is not a step; "" otherwise."""
    phases = [beat.beat.phase for beat in stage.beats]
    usual = max(sorted(set(phases)), key=phases.count, default="")
    if not stage.steps:
        return "starting" if usual in ("", _START) else usual
    return "" if usual in _PHASES_OF_A_STEP else usual


def _speed(stage: StageState) -> Text:
    facts = [f"learning rate {stage.steps[-1].learning_rate:.2e}"]
    if stage.timings:
        last = stage.timings[-1]
        facts += [f"{last.seconds:.2f} s a step", f"{last.tokens_per_second:,.0f} tokens/s"]
        facts.append(f"{last.world_size} ranks")
    if stage.last_step is not None and stage.now - stage.last_step > _QUIET_SECONDS:
        facts.append(f"last step {duration(stage.now - stage.last_step)} ago")
    return Text("   ".join(facts))


def _memory(stage: StageState) -> Text | None:
    """Peak memory of each rank, or of the ranks with the least and the most if there are many."""
    known = {of.rank: of.beat.peak_memory_gib for of in stage.beats if of.beat.peak_memory_gib is not None}
    if not known and stage.timings:
        known = {0: stage.timings[-1].peak_memory_gib}
    if not known:
        return None
    shown = known.items() if len(known) <= _MAX_RANKS_LISTED else _extremes(known)
    return Text("peak memory   " + "   ".join(f"rank {rank}: {gib:.2f} GiB" for rank, gib in shown))


def _extremes(known: dict[int, float]) -> list[tuple[int, float]]:
    ordered = sorted(known.items(), key=lambda of: of[1])
    return [ordered[0], ordered[-1]]


def _silence(stage: StageState) -> Text:
    """Which ranks show no sign of life. All of them are silent while the command works without them."""
    if len(stage.silent) == len(stage.beats):
        since = duration(stage.now - max(beat.when for beat in stage.silent))
        return Text(
            f"no rank has shown a sign of life for {since}: the command ends the stage, or starts its ranks again"
        )
    listed = [f"{beat} for {duration(stage.now - beat.when)}" for beat in stage.silent[:_MAX_RANKS_LISTED]]
    more = f" and {len(stage.silent) - len(listed):,} more" if len(stage.silent) > len(listed) else ""
    return Text(f"no sign of life from {', '.join(listed)}{more}", style="bold red")


def _evaluation(evaluation: EvaluationState) -> Iterator[Text]:
    scores = evaluation.scores
    if scores is not None:
        words = f"accuracy {number(scores.accuracy)}, format {number(scores.format)}, score {number(scores.score)}"
        kind = "guided evaluation" if scores.guided else "evaluation"
        yield Text.assemble(("done     ", "green"), f"{evaluation.strategy} {kind}: {words}, n = {scores.n:,}")
    if evaluation.is_open:
        yield Text.assemble(("open     ", "cyan"), _how_far(evaluation))


def _how_far(evaluation: EvaluationState) -> str:
    if evaluation.continued is not None:
        return f"{evaluation.strategy} swapped reasoning: {evaluation.continued:,} answers"
    of = f" of {evaluation.prompts:,}" if evaluation.prompts else ""
    words = "have responses" + (", which are not all judged" if evaluation.generated == evaluation.prompts else "")
    return f"{evaluation.strategy} evaluation: {evaluation.generated:,}{of} prompts {words}"
