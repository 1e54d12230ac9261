"""What `import steadface as sf` offers; the package loads it when the first of these names is asked for."""

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
from steadface.recognition.recognizer import Recognizer
from steadface.recognizers import open_recognizer
from steadface.recognizers.guard import read_guard
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
    "open_recognizer",
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
