"""What an attacker can do to a recogniser at the threshold that it is used with: `steadface audit`, `attack-train`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from steadface.arguments import AnyPath, as_path
from steadface.attacks.balls import Norm
from steadface.audit.comparison import compare_audits
from steadface.audit.generator import Description, load_generative, save_generative
from steadface.audit.generator_training import BLOCKS, Moved, Options, Trained, train_generator, without_gradient
from steadface.audit.request import Name, Request, preset
from steadface.audit.run import finish_audit, perform_audit
from steadface.audit.session import Progress as AuditProgress
from steadface.audit_record import Audit
from steadface.audit_record import read_audit as read_record
from steadface.backbones.soundness import DETACHED
from steadface.data.faces import FaceSource
from steadface.data.pairs import read_pairs
from steadface.devices import resolve_device
from steadface.evaluation.embedding import MirrorEmbedder
from steadface.evaluation.evaluate import StageProgress
from steadface.evaluation.labelled import pairs_from_labels
from steadface.recognizers import OpenedRecognizer, check_exists, open_recognizer, with_known_convention
from steadface.recognizers.under_contract import opened_for_probing
from steadface.report.fonts import load_matplotlib
from steadface.training.lock import locked
from steadface.workflows.evaluate import pair_set
from steadface.workflows.opening import Stated, listed_faces, log_notes, open_probed, stage
from steadface.workflows.report import versions


@dataclass(frozen=True, kw_only=True)
class Audited:
    """A finished audit: its folder, its page, and what `audit.json` holds."""

    folder: Path
    page: Path
    record: Audit

    @property
    def data(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return self.record.to_json()


def audit_request(
    model: str,
    *,
    images: Path,
    pairs: Path | None = None,
    calibration_pairs: Path | None = None,
    preset_name: Name = "standard",
    eps: Sequence[float],
    norm: Norm = "linf",
    fmr: float = 1e-2,
    threshold: float | None = None,
    max_pairs: int = 100,
    seed: int = 0,
    mirror: bool = False,
    detail: bool = False,
    surrogates: Sequence[str] = (),
    generators: Sequence[Path] = (),
    device: str = "auto",
    progress: StageProgress | None = None,
    **stated: Unpack[Stated],
) -> Request:
    """The audit of any recogniser on aligned `images`, with what it names opened; for `run_audit`.

    What is not stated of its pixels, and in no file, is probed on some of the faces. Raises SteadfaceError for what
    cannot be opened.
    """
    chosen = resolve_device(device)
    check_exists(model)
    taken = pair_set(images, pairs, seed)
    return Request(
        model=open_probed(model, taken, seed=seed, progress=progress, **stated),
        pairs=taken,
        preset=preset(preset_name),
        eps=tuple(eps),
        norm=norm,
        fmr=fmr,
        threshold=threshold,
        max_pairs=max_pairs,
        seed=seed,
        mirror=mirror,
        detail=detail,
        calibration=None if calibration_pairs is None else read_pairs(calibration_pairs, images),
        surrogates=tuple(open_recognizer(other) for other in surrogates),
        extra=tuple((f"generator {file.stem}", load_generative(file)) for file in generators),
        device=chosen,
    )


def run_audit(
    request: Request,
    folder: AnyPath,
    *,
    files: Mapping[str, str | None] | None = None,
    command: str = "",
    progress: AuditProgress | None = None,
) -> Audited:
    """Audits a recogniser and writes `report.html`, `audit.json` and `adversarial/*.png` into `folder`.

    Goes on with an audit of the same request that was stopped there. `files` says where images and pairs came from,
    for the report. Raises SteadfaceError where the folder holds another audit or a finished one, or another process
    works there.
    """
    folder = as_path(folder, "the folder of the audit")
    with locked(folder):
        return _audited(request, folder, files=files or {}, command=command, progress=progress)


def _audited(
    request: Request, folder: Path, *, files: Mapping[str, str | None], command: str, progress: AuditProgress | None
) -> Audited:
    """`run_audit`, while nobody else works in `folder`."""
    done = perform_audit(request, folder, progress=progress)
    settings = done.record.settings.model_copy(update=dict(files))
    record = done.record.model_copy(update={"settings": settings, "versions": versions(), "command": command})
    page = folder / "report.html"
    load_matplotlib()
    from steadface.report.audit.page import write_audit  # loads matplotlib, which is slow

    write_audit(page, folder / "audit.json", record, done.examples)
    finish_audit(folder)
    return Audited(folder=folder, page=page, record=record)


def compare(
    first: AnyPath, second: AnyPath, folder: AnyPath, *, names: tuple[str, str] | None = None, command: str = ""
) -> tuple[Path, dict[str, Any]]:
    """Sets two finished audits of the same pairs and settings side by side in `folder`: page and figures.

    Raises SteadfaceError where they differ in pairs or settings, or a folder holds no audit.
    """
    first, second, folder = (as_path(one, "the folder of an audit") for one in (first, second, folder))
    labels = names or (first.name, second.name)
    found = compare_audits(read_audit(first), read_audit(second), labels)
    record = found.model_copy(update={"versions": versions(), "command": command})
    page = folder / "report.html"
    load_matplotlib()
    from steadface.report.audit.comparison import write_comparison  # loads matplotlib

    write_comparison(page, folder / "comparison.json", record)
    return page, record.to_json()


def read_audit(folder: AnyPath) -> Audit:
    """The record in `folder`. Raises SteadfaceError where there is none that can be read and believed."""
    return read_record(as_path(folder, "the folder of the audit") / "audit.json")


@dataclass(frozen=True, kw_only=True)
class Victim:
    """A recogniser to train an attack against, and the faces to train it on."""

    opened: OpenedRecognizer
    faces: FaceSource
    device: torch.device


def open_victim(
    model: str,
    images: Path,
    *,
    output: str | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: StageProgress | None = None,
) -> Victim:
    """A recogniser and aligned faces for `train_attack`. What is not known of its pixels is probed, as an audit would,
    where there are pairs to probe on. Raises SteadfaceError for what cannot be opened or attacked.
    """
    chosen = resolve_device(device)
    opened, _ = opened_for_probing(model, output=output)
    if not opened.differentiable:  # refused before faces are looked for
        raise without_gradient(DETACHED)
    faces = listed_faces(images)
    images_each = np.bincount(faces.labels)
    if len(images_each) >= 4 and images_each.max() >= 2:
        pairs = pairs_from_labels(faces, seed=seed)
        opened = with_known_convention(opened, pairs, seed=seed, progress=stage(progress, "probing"))
    log_notes(opened)
    return Victim(opened=opened, faces=faces, device=chosen)


def train_attack(
    victim: Victim,
    out: Path,
    options: Options,
    *,
    observe: Callable[[Moved], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Trains a generative attack and writes it to `out`, for `audit_request`.

    Where `stop` says so it ends early and writes what has been learnt; before the first step nothing is written.
    """
    opened, faces = victim.opened, victim.faces
    embedder = MirrorEmbedder(opened.network, mirror=False).to(victim.device)
    trained = train_generator(embedder, faces, options, progress=observe, stop=stop)
    if not trained.moved:
        return trained
    dodging, impersonation = trained.lately()
    described = Description(
        embedding_size=trained.network.film.in_features,
        width=options.width,
        blocks=BLOCKS,
        norm=options.ball.norm,
        eps=options.ball.radius,
        victim=opened.name,
        fingerprint=opened.fingerprint,
        steps=len(trained.moved),
        planned=options.steps,
        batch=options.batch,
        seed=options.seed,
        faces=faces.fingerprint(),
        dodging_moved=dodging if math.isfinite(dodging) else None,
        impersonation_moved=impersonation if math.isfinite(impersonation) else None,
    )
    save_generative(out, trained.network, described)
    return trained
