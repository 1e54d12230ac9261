"""Steadface: train face recognisers that resist adversarial attack, measure how well they do, and recognise with them.

import steadface as sf

recipe = sf.load_recipe("recipes/gated.yaml", ["data.images=faces", "run.out=runs/gated"])
outcome = sf.train(recipe)
judged = sf.judge(outcome.folder)
sf.report([judged.arm], outcome.folder, title="gated", seed=0, command="")

model, pairs = sf.open_recognizer("runs/gated"), sf.read_pairs("pairs.txt", "lfw")
sf.audit(sf.AuditRequest(model=model, pairs=pairs, preset=sf.preset("standard"), eps=(2 / 255,)), "audited")

recognizer = sf.Recognizer.open("runs/gated")
print(recognizer.verify("a.jpg", "b.jpg", fmr=1e-3).match)

The names are those of ``steadface.public``, loaded when the first of them is asked for: importing this package loads
nothing else, so that how torch waits can still be chosen (``steadface.machine``).
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steadface.public import *  # noqa: F403

_FUNCTIONS = ("audit", "report")
"""Public functions with the names of packages here, whose import would put these in their places."""


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _FUNCTIONS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name in ("__all__", *_FUNCTIONS) or not (name.startswith("__") or find_spec(f"{__name__}.{name}")):
        public = import_module("steadface.public")
        if name in ("__all__", *public.__all__):
            return getattr(public, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module("steadface.public").__all__})


sys.modules[__name__].__class__ = _Package
