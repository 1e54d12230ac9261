"""Steadface: train face recognisers that resist adversarial attack, measure how well they do, and recognise with them.

import steadface as sf

recipe = sf.load_recipe("recipes/gated.yaml", ["data.images=faces", "run.out=runs/gated"])
outcome = sf.train(recipe)
judged = sf.judge(outcome.folder)
sf.report([judged.arm], outcome.folder, title="gated", seed=0, command="")

model, pairs = sf.open_recogniser("runs/gated"), sf.read_pairs("pairs.txt", "lfw")
sf.audit(sf.AuditRequest(model=model, pairs=pairs, preset=sf.preset("standard"), eps=(2 / 255,)), "audited")

recognizer = sf.Recognizer.open("runs/gated")
print(recognizer.verify("a.jpg", "b.jpg", fmr=1e-3).match)
"""

from steadface.api import audit, calibrate, compare, judge, pgd_plan, report, resume, run_arm, train
from steadface.audit.presets import preset
from steadface.audit.request import Request as AuditRequest
from steadface.backbones import Architecture, load_backbone, save_backbone
from steadface.data.bins import read_bin
from steadface.data.folders import open_faces
from steadface.data.pairs import read_pairs
from steadface.errors import SteadfaceError
from steadface.evaluation.evaluate import evaluate
from steadface.faces.detector_files import open_detector
from steadface.faces.photograph import read_photograph
from steadface.gallery.gallery import Gallery
from steadface.models import open_recogniser
from steadface.recognition.guard import read_guard
from steadface.recognition.recognizer import Recognizer
from steadface.training.recipe import load_recipe, make_recipe

__all__ = [
    "Architecture",
    "AuditRequest",
    "Gallery",
    "Recognizer",
    "SteadfaceError",
    "audit",
    "calibrate",
    "compare",
    "evaluate",
    "judge",
    "load_backbone",
    "load_recipe",
    "make_recipe",
    "open_detector",
    "open_faces",
    "open_recogniser",
    "pgd_plan",
    "preset",
    "read_bin",
    "read_guard",
    "read_pairs",
    "read_photograph",
    "report",
    "resume",
    "run_arm",
    "save_backbone",
    "train",
]
