"""A recogniser opened to be calibrated, judged or attacked: what nobody states of its pixels is probed on faces."""

import logging
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

from steadface.data.faces import FaceSource
from steadface.data.folders import open_faces
from steadface.data.pairs import PairSet
from steadface.evaluation.embedding import Progress
from steadface.evaluation.evaluate import StageProgress
from steadface.recognizers import TRIED, ChannelOrder, OpenedRecognizer, with_known_convention
from steadface.recognizers.under_contract import opened_for_probing

logger = logging.getLogger(__name__)


class Stated(TypedDict, total=False):
    """What somebody says of the pixels that a model takes, and of its output, as `open_recognizer` has it; None, like
    what is left out, where nothing is said.
    """

    image_size: tuple[int, int] | None
    pixel_range: str | None
    channel_order: ChannelOrder | None
    output: str | None


def open_probed(
    model: Path | str,
    pairs: PairSet,
    *,
    seed: int = 0,
    progress: StageProgress | None = None,
    **stated: Unpack[Stated],
) -> OpenedRecognizer:
    """A recogniser as the faces of `pairs` speak for it: what nobody states of its pixels, neither here nor when it was
    calibrated, and no file says is probed. Notes that give reason for care are logged as warnings.
    """
    opened, _ = opened_for_probing(model, **stated)
    opened = with_known_convention(opened, pairs, seed=seed, progress=stage(progress, "probing"))
    log_notes(opened)
    return opened


def log_notes(opened: OpenedRecognizer) -> None:
    """Logs what is to be known of a recogniser before its figures are trusted."""
    for note in opened.notes:
        logger.log(logging.INFO if TRIED in note else logging.WARNING, "%s", note)


def listed_faces(path: Path) -> FaceSource:
    """The faces at `path`, see `open_faces`; what its listing left out is logged."""
    faces = open_faces(path)
    for message in getattr(faces, "messages", ()):
        logger.warning("%s", message)
    return faces


def stage(progress: StageProgress | None, name: str) -> Progress | None:
    """The progress of one stage alone."""
    return None if progress is None else partial(progress, name)
