"""What is passed to a public function and cannot be is named with what can, before any work."""

import ast
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import steadface as sf
from steadface.data.synthetic import synthetic_faces
from steadface.evaluation.labelled import pairs_from_labels

NAN = float("nan")


def request(**options: Any) -> object:
    given: dict[str, Any] = {"model": None, "pairs": None, "preset": sf.preset("quick"), "eps": (0.01,), **options}
    return sf.AuditRequest(**given)


def evaluated(**options: Any) -> object:
    pairs = pairs_from_labels(synthetic_faces(people=4, images_per_person=2, size=(16, 16), seed=0))
    return sf.evaluate(sf.Architecture(image_size=(16, 16), width=0.125, blocks=(1, 0, 0, 0)).build(), pairs, **options)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: sf.preset("standrad"), r"preset 'standrad' is not known; choose quick, standard or full"),
        (lambda: sf.pgd_plan(eps=[0.01], norm="l3"), "norm 'l3' is not known; choose linf or l2"),
        (lambda: sf.pgd_plan(eps=[]), "give one or more positive radii"),
        (lambda: sf.pgd_plan(eps=[NAN]), "give one or more positive radii"),
        (lambda: sf.pgd_plan(eps=4), "more than the whole pixel range: write 4/255"),
        (lambda: sf.pgd_plan(eps="4/255"), "eps is '4'"),
        (lambda: sf.pgd_plan(eps=0.01, steps=0), "steps is 0; give a whole number of 1 or more"),
        (lambda: sf.pgd_plan(eps=0.01, restarts=-1), "restarts is -1"),
        (lambda: request(norm="linff"), r"norm 'linff' is not known.*did you mean linf"),
        (lambda: request(eps=(0.01, NAN)), "give one or more positive radii"),
        (lambda: request(fmr=NAN), "FMR nan is not a rate between 0 and 1"),
        (lambda: request(max_pairs=0), "max_pairs is 0"),
        (lambda: request(batch_size=0), "batch_size is 0"),
        (lambda: request(seed=-1), "seed is -1; give a whole number of 0 or more"),
        (lambda: request(seed=2**64), "seed is 18446744073709551616"),
        (lambda: request(mirror="no"), "mirror is 'no'.*give True or False"),
        (lambda: request(device="gpu"), "device 'gpu' cannot be used"),
        (lambda: evaluated(fmr=2), "FMR 2 is not a rate between 0 and 1"),
        (lambda: evaluated(batch_size=0), "batch_size is 0"),
        (lambda: evaluated(seed=2**64), "seed is 18446744073709551616"),
        (lambda: evaluated(threads=-1), "threads is -1; give a whole number of 0 or more"),
        (lambda: evaluated(device="gpu"), "device 'gpu' cannot be used"),
        (lambda: evaluated(mirror="no"), "mirror is 'no'"),
        (lambda: sf.judge(None), "the run is nothing; give a path"),
        (lambda: sf.resume(b"run"), "the run is a bytes; give a path"),
        (lambda: sf.load_recipe(7), "the recipe is a int; give a path"),
        (lambda: sf.compare("", "b", "c"), "the folder of an audit '' is not a path"),
        (lambda: sf.open_detector("yunet.onnx", min_size=NAN), "a smallest face of nan pixels is out of range"),
        (lambda: sf.Gallery.create("a.db", model="m.safetensors"), "model is 'm.safetensors'; give the identity"),
        (lambda: sf.Gallery.open(7), "the gallery is a int; give a path"),
    ],
)
def test_what_cannot_be_is_named(ask: Callable[[], object], words: str) -> None:
    with pytest.raises(sf.SteadfaceError, match=words):
        ask()


def test_type_checkers_see_the_names_that_there_are() -> None:
    (block,) = (one for one in ast.parse(inspect.getsource(sf)).body if isinstance(one, ast.If))
    renamed = {"Request": "AuditRequest"}
    for_checkers = {
        renamed.get(alias.name, alias.name): (str(node.module), alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert for_checkers.keys() == set(sf.__all__)
    for public, (module, name) in for_checkers.items():
        assert getattr(sf, public) is getattr(importlib.import_module(module), name)


def test_packages_keep_their_names() -> None:
    for package in ("audit", "report"):
        assert importlib.import_module(f"steadface.{package}") is getattr(sf, package)
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = sf.nothing_of_this_name
