"""Steadface: train face recognisers that resist adversarial attack, measure how well they do, and recognise with them.

import steadface as sf

recipe = sf.load_recipe("recipes/gated.yaml", ["data.images=faces", "run.out=runs/gated"])
trained = sf.train(recipe)
judged = sf.judge(trained)
sf.write_report([judged.arm], trained.folder, title="gated", seed=0, command="")

model, pairs = sf.open_recognizer("runs/gated"), sf.read_pairs("pairs.txt", "lfw")
sf.run_audit(sf.AuditRequest(model=model, pairs=pairs, preset=sf.preset("standard"), eps=(2 / 255,)), "audited")

recognizer = sf.Recognizer.open("runs/gated")
print(recognizer.verify("a.jpg", "b.jpg", fmr=1e-3).match)

Importing this package loads nothing else, so that how torch waits can still be chosen (`steadface.machine`): each name
is looked up where it lives when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steadface.audit.request import Request
    from steadface.audit.request import preset as preset
    from steadface.backbones import Architecture as Architecture
    from steadface.backbones import load_backbone as load_backbone
    from steadface.backbones import save_backbone as save_backbone
    from steadface.data.bins import read_bin as read_bin
    from steadface.data.folders import open_faces as open_faces
    from steadface.data.pairs import read_pairs as read_pairs
    from steadface.errors import Conflict as Conflict
    from steadface.errors import InvalidInput as InvalidInput
    from steadface.errors import NotFound as NotFound
    from steadface.errors import SteadfaceError as SteadfaceError
    from steadface.errors import Unavailable as Unavailable
    from steadface.errors import Unsupported as Unsupported
    from steadface.evaluation.evaluate import evaluate as evaluate
    from steadface.faces.detector_files import open_detector as open_detector
    from steadface.faces.photograph import read_photograph as read_photograph
    from steadface.gallery.gallery import Gallery as Gallery
    from steadface.recognition.recognizer import Recognizer as Recognizer
    from steadface.recognizers import open_recognizer as open_recognizer
    from steadface.recognizers.guard import read_guard as read_guard
    from steadface.training.recipe import load_recipe as load_recipe
    from steadface.training.recipe import make_recipe as make_recipe
    from steadface.workflows.audit import compare as compare
    from steadface.workflows.audit import run_audit as run_audit
    from steadface.workflows.calibrate import calibrate as calibrate
    from steadface.workflows.certify import certification_request as certification_request
    from steadface.workflows.certify import run_certification as run_certification
    from steadface.workflows.evaluate import judge as judge
    from steadface.workflows.evaluate import pgd_plan as pgd_plan
    from steadface.workflows.harden import Wishes as Wishes
    from steadface.workflows.harden import harden as harden
    from steadface.workflows.report import run_arm as run_arm
    from steadface.workflows.report import write_report as write_report
    from steadface.workflows.train import resume as resume
    from steadface.workflows.train import train as train

    __version__: str
    AuditRequest = Request

_HOMES = {
    "audit.request": ("Request as AuditRequest", "preset"),
    "backbones": ("Architecture", "load_backbone", "save_backbone"),
    "data.bins": ("read_bin",),
    "data.folders": ("open_faces",),
    "data.pairs": ("read_pairs",),
    "errors": ("Conflict", "InvalidInput", "NotFound", "SteadfaceError", "Unavailable", "Unsupported"),
    "evaluation.evaluate": ("evaluate",),
    "faces.detector_files": ("open_detector",),
    "faces.photograph": ("read_photograph",),
    "gallery.gallery": ("Gallery",),
    "recognition.recognizer": ("Recognizer",),
    "recognizers": ("open_recognizer",),
    "recognizers.guard": ("read_guard",),
    "training.recipe": ("load_recipe", "make_recipe"),
    "workflows.audit": ("compare", "run_audit"),
    "workflows.calibrate": ("calibrate",),
    "workflows.certify": ("certification_request", "run_certification"),
    "workflows.evaluate": ("judge", "pgd_plan"),
    "workflows.harden": ("Wishes", "harden"),
    "workflows.report": ("run_arm", "write_report"),
    "workflows.train": ("resume", "train"),
}
"""Module below this package -> what it lends to it. A test holds the imports above, for type checkers, to these."""

_PLACES = {
    public or name: (home, name)
    for home, names in _HOMES.items()
    for name, _, public in (entry.partition(" as ") for entry in names)
}

__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, original = _PLACES[name]
    found = globals()[name] = getattr(import_module(f"{__name__}.{home}"), original)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
