"""Thresholds that mean something, stored with the model: `steadface calibrate`."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from steadface.arguments import AnyPath, as_path, flag
from steadface.arguments import rate as checked_rate
from steadface.arguments import seed as checked_seed
from steadface.backbones import Backbone, save_backbone
from steadface.data.faces import FaceSource
from steadface.errors import Conflict, InvalidInput, NotFound, Unsupported
from steadface.evaluation.evaluate import StageProgress
from steadface.evaluation.labelled import pairs_from_labels
from steadface.files import check_replaced
from steadface.gallery.sealing.keys import Key, given
from steadface.recognizers import OpenedRecognizer, with_known_convention
from steadface.recognizers.calibration import Calibrated, calibrated, calibrated_guard, check_told_apart
from steadface.recognizers.contract import Contract, contract_place, is_named, read_contract, store_contract
from steadface.recognizers.guard import Guard, write_guard
from steadface.recognizers.under_contract import opened_for_probing, opened_under_contract
from steadface.workflows.opening import Stated, log_notes, stage

logger = logging.getLogger(__name__)


def calibrate(
    model: AnyPath,
    faces: FaceSource,
    *,
    out: AnyPath | None = None,
    mirror: bool = False,
    seed: int = 0,
    key: Key | AnyPath | None = None,
    progress: StageProgress | None = None,
    **stated: Unpack[Stated],
) -> tuple[Calibrated, Path]:
    """Measures which similarity stands for which FMR on `faces`, and stores that with the model; also returns where.

    `faces` are aligned, of people whom the model was not trained on. What is not `stated` of the model's pixels, as
    `image_size`, `pixel_range`, `channel_order` and `output`, and no file says is probed on the faces, whatever an
    earlier contract holds; where that differs it is logged, like all that gives reason for care. `out` is a new
    .safetensors file of ours for weights and contract; of a function it holds the contract alone. The contract is
    signed with `key`, or that in the file of that name (`recognizers/seal.py`). Raises SteadfaceError
    before any work for a model or a file that cannot be, and, with nothing written, where the people are too few or the
    model does not tell them apart.
    """
    model, out = as_path(model, "the model"), None if out is None else as_path(out, "out")
    flag("mirror", mirror)
    checked_seed(seed)
    key = given(key)
    place = out if is_named(model) else None
    contract_place(model, place)
    opened, before = opened_for_probing(model, **stated, file=place)
    _check_out(None if place is not None else out, opened)
    pairs = pairs_from_labels(faces, seed=seed)
    opened = with_known_convention(opened, pairs, seed=seed, progress=stage(progress, "probing"))
    log_notes(opened)
    made = calibrated(opened, faces, mirror=mirror, seed=seed, progress=stage(progress, "embedding"))
    check_told_apart(made.told_apart, opened.name, made.contract.notes)
    if before is not None:
        made = replace(made, contract=_going_on_from(before, made.contract))
    if out is None or place is not None:
        return made, store_contract(model, made.contract, place, key=key)
    assert isinstance(opened.network, Backbone)
    save_backbone(out, opened.network, {"contract": made.contract.written(key)})
    return made, out


def calibrate_guard(
    model: AnyPath,
    faces: FaceSource,
    out: AnyPath,
    *,
    contract: AnyPath | None = None,
    rate: float = 1e-2,
    seed: int = 0,
    key: Key | AnyPath | None = None,
) -> Guard:
    """Writes a guard for a calibrated model into `out`: at most a share `rate` of clean `faces` are flagged.

    `contract` is where its contract lies if that is not with the model. The guard is signed with `key`, or that in the
    file of that name. Raises SteadfaceError for a model without a contract, and where the faces are too few for the
    rate.
    """
    key = given(key)
    out, rate = as_path(out, "out"), checked_rate("the false-alarm rate", rate)
    check_replaced(out, b"{")
    where = None if contract is None else as_path(contract, "the contract")
    opened, known = opened_under_contract(as_path(model, "the model"), file=where)
    guard = calibrated_guard(opened, known, faces, rate=rate, seed=seed)
    write_guard(out, guard, key=key)
    return guard


def sign_contract(model: AnyPath, key: Key | AnyPath, *, contract: AnyPath | None = None) -> tuple[Contract, Path]:
    """Signs the contract that a model has, as it is; also returns where it lies.

    `contract` is where that is if it is not with the model. Raises NotFound where there is none, and SteadfaceError for
    one of other weights.
    """
    model, place = as_path(model, "the model"), None if contract is None else as_path(contract, "the contract")
    signing, known = given(key), read_contract(model, place)
    if known is None:
        raise NotFound(
            f"{model} has no contract to be signed; make one with `steadface calibrate {model} --images FACES`"
        )
    opened_under_contract(model, file=place)
    return known, store_contract(model, known, place, key=signing)


def _going_on_from(before: Contract, made: Contract) -> Contract:
    """A contract in place of an earlier one of the same weights: in the same space if the pixels are taken alike."""
    if before.convention.differing(made.convention):
        logger.warning(
            "%s: the earlier contract took pixels as %s; the new one takes them as %s, so that templates made before "
            "cannot be compared with new ones",
            made.name,
            before.convention,
            made.convention,
        )
        return made
    return replace(made, space=before.space)


def _check_out(out: Path | None, opened: OpenedRecognizer) -> None:
    if out is None:
        return
    if out.suffix != ".safetensors":
        raise InvalidInput(f"--out {out} must be a new .safetensors file")
    if out.exists():
        raise Conflict(f"--out {out} is there already: it must be a new .safetensors file")
    if not isinstance(opened.network, Backbone):
        raise Unsupported(
            f"{opened.name} cannot be written as .safetensors, which holds MobileFaceNet and IResNet of RGB images; "
            "leave --out away, and the contract is stored with the model"
        )
