"""What a training step costs: clean, N-FGSM, PGD-k and generator steps, measured in one run and beside a cost model.

    python benchmarks/step_cost.py --size 112 --width 1 --batch 32 --json out.json

An open step (timing next) should cost an anchor forward, k passes of forward and input gradient, and training on the
source and the adversarial samples:

    model = anchor + k * (forward + input gradient) + 2 * clean step

Its parts are timed in the same rounds as the steps, interleaved, and medians are compared, so that a machine that is
busy for a while slows both sides.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from steadface.attacks import crafting, dodge, score_and_gradient
from steadface.data.loading import Batch
from steadface.training.assembly.faces import Faces, open_recipe_faces
from steadface.training.assembly.trainer import Assembly, assemble
from steadface.training.compute import compute_on
from steadface.training.recipe import Recipe, make_recipe
from steadface.workflows.report import versions

KINDS: dict[str, dict[str, Any]] = {
    "clean": {"gate": {"kind": "never"}},
    "nfgsm": {"gate": {"kind": "always"}, "attack": {"kind": "nfgsm"}},
    "pgd-2": {"gate": {"kind": "always"}, "attack": {"kind": "pgd", "steps": 2}},
    "pgd-5": {"gate": {"kind": "always"}, "attack": {"kind": "pgd", "steps": 5}},
    "generator": {"gate": {"kind": "always"}, "attack": {"kind": "generator"}},
}
PASSES = {"nfgsm": 1, "pgd-2": 2, "pgd-5": 5}


def recipe_of(kind: str, options: argparse.Namespace, *, precision: str, compiled: bool, batchnorm: str) -> Recipe:
    """A step of that kind on synthetic faces."""
    return make_recipe(
        {
            "name": kind,
            "data": {
                "synthetic": {"people": options.people, "images_per_person": 2},
                "size": [options.size, options.size],
                "batch": options.batch,
                "validation": 0,
            },
            "model": {"architecture": {"name": options.backbone, "width": options.width, "embedding_size": 128}},
            "method": {"timing": "next", "batchnorm": batchnorm, **KINDS[kind]},
            "run": {
                "steps": 1,
                "precision": precision,
                "compile": "on" if compiled else "off",
                "device": options.device,
            },
        }
    )


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def parts_of(assembly: Assembly, batch: Batch) -> dict[str, Callable[[], object]]:
    """The pieces of the cost model, on the network as it trains."""
    network, backbone = assembly.trainer.network, assembly.backbone

    def anchor() -> None:
        with crafting(backbone), torch.no_grad():
            network(batch.images)

    def input_gradient() -> None:
        with crafting(backbone):
            score_and_gradient(dodge(network, anchors), batch.images)

    with crafting(backbone), torch.no_grad():
        anchors = F.normalize(network(batch.images))
    return {"anchor": anchor, "input_gradient": input_gradient}


def measure(options: argparse.Namespace, *, precision: str, compiled: bool) -> dict[str, Any]:
    """Median seconds of every kind of step and part in one setting."""
    torch.compiler.reset()  # compiled variants of the settings before would count against this one's limit
    device = torch.device(options.device)
    first = recipe_of("clean", options, precision=precision, compiled=compiled, batchnorm=options.batchnorm)
    faces: Faces = open_recipe_faces(first)
    images = torch.rand(options.batch, 3, options.size, options.size, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(options.batch) % options.people
    batch = Batch(images=images.to(device), labels=labels.to(device))
    calls: dict[str, Callable[[], object]] = {}
    for kind in options.kinds:
        recipe = recipe_of(kind, options, precision=precision, compiled=compiled, batchnorm=options.batchnorm)
        assembly = assemble(recipe, faces, compute_on(device, recipe.run), fresh=True)
        for group in assembly.trainer.optimizer.param_groups:
            group["lr"] = 1e-4  # noise is no face: the weights should stay sane over the rounds
        if kind == "clean":
            calls |= parts_of(assembly, batch)
        calls[kind] = partial(assembly.trainer.step, batch)
    for call in calls.values():
        call(), call()  # warm-up and compilation
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.rounds):
        for name, call in calls.items():
            seconds[name].append(timed(call, device))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {"precision": precision, "compiled": compiled, "seconds": median, "kinds": summary(median, options)}


def summary(median: dict[str, float], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Each kind's speed, its ratio to a clean step, and its ratio to the cost model."""
    rows = []
    for kind in options.kinds:
        passes = PASSES.get(kind)
        model = None
        if passes is not None:
            anchor = 0.0 if options.batchnorm == "frozen" else median["anchor"]
            model = anchor + passes * median["input_gradient"] + 2 * median["clean"]
        rows.append(
            {
                "kind": kind,
                "images_per_second": options.batch / median[kind],
                "times_clean": median[kind] / median["clean"],
                "times_model": None if model is None else median[kind] / model,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilefacenet")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--people", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batchnorm", default="clean", choices=("clean", "separate", "joint"))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--settings", nargs="+", default=["eager-fp32", "eager-bf16", "compiled-fp32", "compiled-bf16"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    print("| setting | step | images/s | times clean | times model |\n|---|---|---|---|---|")
    for setting in options.settings:
        how, precision = setting.split("-")
        result = measure(options, precision=precision, compiled=how == "compiled")
        results.append(result)
        for row in result["kinds"]:
            model = "" if row["times_model"] is None else f"{row['times_model']:.2f}"
            print(
                f"| {setting} | {row['kind']} | {row['images_per_second']:.1f} | {row['times_clean']:.2f} | {model} |",
                flush=True,
            )
    if options.json is not None:
        content = {"options": {k: str(v) for k, v in vars(options).items()}, "versions": versions(), "results": results}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
