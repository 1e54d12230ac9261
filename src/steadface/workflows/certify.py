"""What a smoothed verifier withstands for certain, pair by pair: `steadface certify`."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from steadface.arguments import AnyPath, as_path
from steadface.audit.session import STATE, Progress
from steadface.certificate_record import Certificate
from steadface.certification.request import RADII, Request
from steadface.certification.run import RECORD, perform_certification
from steadface.devices import resolve_device
from steadface.evaluation.evaluate import StageProgress
from steadface.recognizers import check_exists
from steadface.report.fonts import load_matplotlib
from steadface.training.lock import locked
from steadface.workflows.evaluate import pair_set
from steadface.workflows.opening import Stated, open_probed
from steadface.workflows.report import versions


@dataclass(frozen=True, kw_only=True)
class Certified:
    """A finished certification: its folder, its page, and what `certificate.json` holds."""

    folder: Path
    page: Path
    record: Certificate


def certification_request(
    model: str,
    *,
    images: Path,
    pairs: Path | None = None,
    sigma: float = 0.25,
    radii: Sequence[float] = RADII,
    draws: int = 1000,
    confidence: float = 0.95,
    fmr: float = 1e-2,
    threshold: float | None = None,
    max_pairs: int = 100,
    attacked: int = 10,
    seed: int = 0,
    mirror: bool = False,
    blur: float = 0.0,
    compile: bool = False,
    device: str = "auto",
    progress: StageProgress | None = None,
    **stated: Unpack[Stated],
) -> Request:
    """The certification of any recogniser on aligned `images`, with what it names opened; for `run_certification`.

    What is not stated of its pixels, and in no file, is probed on some of the faces. Raises SteadfaceError for what
    cannot be opened.
    """
    chosen = resolve_device(device)
    check_exists(model)
    taken = pair_set(images, pairs, seed)
    return Request(
        model=open_probed(model, taken, seed=seed, progress=progress, **stated),
        pairs=taken,
        sigma=sigma,
        radii=tuple(radii),
        draws=draws,
        confidence=confidence,
        fmr=fmr,
        threshold=threshold,
        max_pairs=max_pairs,
        attacked=attacked,
        seed=seed,
        mirror=mirror,
        blur=blur,
        compile=compile,
        device=chosen,
    )


def run_certification(
    request: Request,
    folder: AnyPath,
    *,
    files: Mapping[str, str | None] | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Certified:
    """Certifies a recogniser under noise and writes `report.html` and `certificate.json` into `folder`.

    Goes on with a certification of the same request that was stopped there. `files` says where images and pairs came
    from, for the report. Raises SteadfaceError where the folder holds another one or a finished one, or another process
    works there; and where an attack contradicts a certificate, in which case nothing is written.
    """
    folder = as_path(folder, "the folder of the certificate")
    with locked(folder):
        done = perform_certification(request, folder, progress=progress)
        settings = done.record.settings.model_copy(update=dict(files or {}))
        record = done.record.model_copy(update={"settings": settings, "versions": versions(), "command": command})
        page = folder / "report.html"
        load_matplotlib()
        from steadface.report.certificate import write_certificate  # loads matplotlib, which is slow

        write_certificate(page, folder / RECORD, record, done.examples)
        shutil.rmtree(folder / STATE, ignore_errors=True)
        return Certified(folder=folder, page=page, record=record)
