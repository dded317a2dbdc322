"""Which model generated the responses in a folder.

The folder of an evaluation, or of the responses that a stage trains on, is named by what the model was made from. A
stage that is trained again from the same may end in other weights all the same: accelerators do not repeat sums in the
same order. Its responses are then generated again.
"""

from itertools import count
from pathlib import Path

from sftkey_dist.console import console
from sftkey_dist.files import make_folder
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.evaluation import RESPONDING_MODEL, RespondingModel
from sftkey_dist.run_dir.artifacts.training import read_summary

_NOTE, _EARLIER = "model.json", "earlier"


def is_of_present_model(folder: Path, last: StageDir) -> bool:
    """Whether the responses in a folder are of the model that a stage has now."""
    noted = _noted(folder)
    return noted is None or noted.weights_digest == read_summary(last).weights_digest


def begin_responses(folder: Path, last: StageDir, title: str) -> None:
    """Make a folder for the responses of a stage's model and note it; what is there of an earlier one is set aside.

    Args:
        folder: of the responses.
        last: the finished stage.
        title: what the responses are for, in a line to the user.
    """
    is_renewed = folder.is_dir() and not is_of_present_model(folder, last)
    if is_renewed:
        console.print(
            f"{title}: the model was trained again and ended in other weights, so its responses are generated again; "
            f"those of the earlier model, with all that was made of them, are kept in {_set_aside(folder)}",
            soft_wrap=True,
            markup=False,
        )
    make_folder(folder)
    if _noted(folder) is None:
        # An earlier command may have set responses aside, and been killed before it noted the model.
        is_renewed = is_renewed or any((folder.parent / _EARLIER).glob(f"{folder.name}-*"))
        RESPONDING_MODEL.write(folder / _NOTE, RespondingModel(read_summary(last).weights_digest, is_renewed))


def renewal(folder: Path) -> str:
    """What distinguishes responses from those of earlier models from the same settings; "" for the first ones."""
    noted = _noted(folder)
    return str(noted.weights_digest) if noted is not None and noted.is_renewed else ""


def _noted(folder: Path) -> RespondingModel | None:
    """The model that is noted in a folder; None before it is."""
    return RESPONDING_MODEL.read(folder / _NOTE) if (folder / _NOTE).is_file() else None


def _set_aside(folder: Path) -> Path:
    """Move a folder to the first free place for the responses of earlier models."""
    earlier = folder.parent / _EARLIER
    make_folder(earlier)
    places = (earlier / f"{folder.name}-{number}" for number in count(1))
    return folder.rename(next(place for place in places if not place.exists()))
