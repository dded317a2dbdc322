"""Which model an evaluation is of.

The folder of an evaluation is named by what the model was made from. A stage that is trained again from the same may
end in other weights all the same: accelerators do not repeat sums in the same order. Its evaluation then starts anew.
"""

from itertools import count
from pathlib import Path

from sftkey_dist.console import console
from sftkey_dist.files import make_folder
from sftkey_dist.pipeline.run_plan import PlannedStrategy
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.evaluation import EVALUATED_MODEL, EvaluatedModel
from sftkey_dist.run_dir.artifacts.training import read_summary

_NOTE, _EARLIER = "model.json", "earlier"


def is_of_present_model(folder: Path, last: StageDir) -> bool:
    """Whether the evaluation in a folder is of the model that a strategy's last stage has now.

    Evaluations of earlier versions, which did not note their model, count as such.
    """
    note = folder / _NOTE
    return not note.is_file() or EVALUATED_MODEL.read(note).weights_digest == read_summary(last).weights_digest


def begin_evaluation(planned: PlannedStrategy) -> None:
    """Make the folder of an evaluation and note its model; what is there of an earlier model is set aside."""
    folder, last = planned.evaluation.folder, planned.stages[-1].directory
    if folder.is_dir() and not is_of_present_model(folder, last):
        aside = _set_aside(folder)
        console.print(
            f"{planned.name}: its last stage was trained again and ended in other weights, so it is evaluated again; "
            f"the evaluation of the earlier model is kept in {aside}",
            soft_wrap=True,
            markup=False,
        )
    make_folder(folder)
    if not (folder / _NOTE).is_file():
        EVALUATED_MODEL.write(folder / _NOTE, EvaluatedModel(read_summary(last).weights_digest))


def _set_aside(folder: Path) -> Path:
    """Move a folder to the first free place for evaluations of earlier models."""
    earlier = folder.parent / _EARLIER
    make_folder(earlier)
    places = (earlier / f"{folder.name}-{number}" for number in count(1))
    return folder.rename(next(place for place in places if not place.exists()))
