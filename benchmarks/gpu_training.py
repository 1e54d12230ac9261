"""Training on one GPU in a quarter of an hour: our step beside arcface_torch's, an open one beside its model, recipes.

    python benchmarks/gpu_training.py --only clean open head --arcface-torch recognition/arcface_torch --out OUT
    python benchmarks/gpu_training.py --faces FACES --only recipes --recipe-minutes 10 --out OUT

``clean``: images a second of a closed step of ours (bf16 and fp16, compiled, channels last) and of the loop of a
checkout of deepinsight/insightface, with its own backbone, head and loss as its ``train_v2.py`` puts them together
(DistributedDataParallel in a world of one, PartialFC, autocast to fp16 and GradScaler, SGD, the gradient clipped). Both
get the same uint8 images, which are on the device. Rounds of steps take turns, and ratios are medians of a round's own.
``open``: steps with an attack of q gradients beside what `steadface plan` takes them for, ``(1 + 2 q) / 3 + 2`` clean
ones, and beside the parts measured with them (``step_cost.py``). ``head``: ``head_cost.py``. ``recipes``:
``compare_training.py full``, recipes from scratch as they are at 112 x 112, judged on the people that they hold out.

Each job is a process of its own with so many ``--seconds``; what it has found by then is kept: a line in OUT/rows.jsonl
at once, OUT/results.json and OUT/table.md after each job. ``--minutes`` bounds all of them together. ``--device cpu
--tiny`` tries the script out and measures nothing.
"""

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

import step_cost
from steadface.data.faces import ArrayFaces
from steadface.data.loading import Batch
from steadface.training.assembly.faces import Faces
from steadface.training.assembly.trainer import assemble
from steadface.training.compute import compute_on
from steadface.training.recipe import make_recipe
from steadface.workflows.report import versions

THEIRS = {"mobilefacenet": "mbf", "iresnet18": "r18", "iresnet34": "r34", "iresnet50": "r50", "iresnet100": "r100"}
SECTIONS = ("clean", "open", "head", "recipes")
EMBEDDING, RATE, DECAY, CLIP = 512, 1e-3, 5e-4, 5.0
"""Those of arcface_torch's configurations, but for the rate: noise is no face."""
TINY = {"batch": 2, "identities": 50, "steps": 1, "rounds": 1, "backbones": ["mobilefacenet"], "kinds": ["nfgsm"]}
Step = Callable[[Tensor, Tensor], float]
"""Trains on images (B, 3, H, W) uint8 and labels (B,); the loss."""
Row = dict[str, Any]


def ours(options: Namespace, backbone: str, precision: str) -> Step:
    """A closed step of the method."""
    recipe = make_recipe(
        {
            "name": "clean",
            "data": {"images": ".", "size": [112, 112], "batch": options.batch, "validation": 0},
            "model": {"architecture": {"name": backbone, "embedding_size": EMBEDDING}},
            "head": {"kind": "arcface", "s": 64, "m": 0.5},
            "method": {"gate": {"kind": "never"}, "timing": "next"},
            "optimizer": {"kind": "sgd", "rate": RATE, "weight_decay": DECAY, "clip_norm": CLIP},
            "run": {"steps": 1, "device": options.device, "precision": precision, "compile": options.compile},
        }
    )
    people = tuple(str(number) for number in range(options.identities))
    face = ArrayFaces(np.zeros((1, 112, 112, 3), dtype=np.uint8), [0], people)
    compute = compute_on(torch.device(options.device), recipe.run)
    trainer = assemble(recipe, Faces(training=face, validation=None), compute, fresh=True).trainer

    def step(images: Tensor, labels: Tensor) -> float:
        return trainer.step(Batch(images=images.float().div_(255), labels=labels)).loss

    return step


def theirs(options: Namespace, backbone: str) -> Step:
    """A step of arcface_torch's loop, in half precision where there is a GPU."""
    device = torch.device(options.device)
    half = device.type == "cuda"
    network, head = (part.train().to(device) for part in _their_parts(options, THEIRS[backbone], half=half))
    parallel = DistributedDataParallel(
        network,
        device_ids=[torch.cuda.current_device()] if half else None,
        broadcast_buffers=False,
        bucket_cap_mb=16,
        static_graph=True,
    )
    if half:
        parallel.register_comm_hook(None, fp16_compress_hook)
    groups = [{"params": part.parameters()} for part in (parallel, head)]
    optimizer = torch.optim.SGD(groups, lr=RATE, momentum=0.9, weight_decay=DECAY)
    scaler = torch.amp.GradScaler(device.type, growth_interval=100, enabled=half)

    def step(images: Tensor, labels: Tensor) -> float:
        loss = head(parallel(images.float().sub_(127.5).div_(127.5)), labels.clone())  # it numbers them anew in place
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parallel.parameters(), CLIP)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def _their_parts(options: Namespace, name: str, *, half: bool) -> tuple[nn.Module, nn.Module]:
    sys.path.insert(0, str(options.arcface_torch.resolve()))
    from losses import CombinedMarginLoss  # type: ignore[import-not-found]
    from partial_fc_v2 import PartialFC_V2  # type: ignore[import-not-found]

    from backbones import get_model  # type: ignore[import-not-found]

    if not dist.is_initialized():
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group("nccl" if half else "gloo", store=store, rank=0, world_size=1)
    if not half:  # it moves tensors to a GPU on the way, wherever it is
        torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign]
    head = PartialFC_V2(CombinedMarginLoss(64, 1.0, 0.5, 0.0), EMBEDDING, options.identities, 1.0, False)
    return get_model(name, dropout=0.0, fp16=half, num_features=EMBEDDING), head


def clean(options: Namespace, backbone: str) -> Iterator[Row]:
    """Every entrant's images a second, ratio to arcface_torch and peak memory, after each round."""
    made: dict[str, Callable[[], Step]] = {
        f"steadface, {precision}": partial(ours, options, backbone, precision) for precision in options.precisions
    }
    if options.arcface_torch is not None:
        made["arcface_torch"] = partial(theirs, options, backbone)
    generator = torch.Generator().manual_seed(options.seed)
    images = torch.randint(256, (options.batch, 3, 112, 112), dtype=torch.uint8, generator=generator)
    labels = torch.randint(options.identities, (options.batch,), generator=generator)
    batch = images.to(options.device), labels.to(options.device)
    steps, first, peaks = dict[str, Step](), dict[str, list[float]](), dict[str, float]()
    for name, make in made.items():
        with Peak(options.device) as peak:
            steps[name] = make()
            first[name] = [steps[name](*batch) for _ in range(options.warm)]
        peaks[name] = peak.bytes
    speeds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        last = dict[str, float]()
        for name, step in steps.items():
            taken = step_cost.timed(lambda step=step: [step(*batch) for _ in range(options.steps)], batch[0].device)  # type: ignore[misc]
            speeds[name].append(options.steps * options.batch / taken)
            last[name] = step(*batch)
        for name, values in speeds.items():
            beside = speeds.get("arcface_torch")
            yield {
                "backbone": backbone,
                "entrant": name,
                "images_per_second": statistics.median(values),
                "slowest": min(values),
                "fastest": max(values),
                "times_theirs": beside and statistics.median(map(float.__truediv__, values, beside)),
                "peak": peaks[name],
                "loss": [first[name][0], last[name]],
                "rounds": len(values),
            }


class Peak:
    """The most memory, in `bytes`, that a GPU has allocated within, over what it had before; elsewhere NaN."""

    bytes = math.nan

    def __init__(self, device: str) -> None:
        self._counts = torch.device(device).type == "cuda"

    def __enter__(self) -> "Peak":
        if self._counts:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        return self

    def __exit__(self, *_: object) -> None:
        if self._counts:
            self.bytes = torch.cuda.max_memory_allocated() - self._before


def opened(options: Namespace, backbone: str) -> Iterator[Row]:
    """Each attack's open step in clean ones, beside the formula and beside its parts."""
    asked = Namespace(
        backbone=backbone,
        size=112,
        width=None,
        batch=options.batch,
        people=300,
        rounds=options.rounds,
        device=options.device,
        batchnorm="clean",
        kinds=["clean", *options.kinds],
    )
    found = step_cost.measure(asked, precision=options.precisions[0], compiled=options.compile == "on")
    for row in found["kinds"]:
        passes = step_cost.PASSES.get(row["kind"])
        model = 1.0 if passes is None else (1 + 2 * passes) / 3 + 2
        yield {"backbone": backbone, **row, "formula": model, "times_formula": row["times_clean"] / model}


def head(options: Namespace) -> Iterator[Row]:
    """Beside this file, where it is there."""
    sizes = [100, 1000] if options.tiny else [10_000, 100_000, 1_000_000]
    file = options.out / "head.json"
    call = ["head_cost.py", "--identities", *map(str, sizes), "--shards", "1", "--batch", str(options.batch)]
    _beside(*call, "--device", options.device, "--json", str(file))
    yield from json.loads(file.read_text(encoding="utf-8"))["rows"]


def recipes(options: Namespace) -> Iterator[Row]:
    """Recipes from scratch, at the same time."""
    out = options.out / "recipes"
    call = ["compare_training.py", "full", "--faces", str(options.faces), "--out", str(out)]
    call += ["--minutes", str(options.recipe_minutes), "--arms", *options.recipes, "--jobs", str(len(options.recipes))]
    workers = max(1, (os.cpu_count() or 1) // len(options.recipes) - 1)
    settings = [f"run.device={options.device}", f"data.workers={workers}"]
    if options.tiny:
        settings += ["data.size=[32, 32]", "data.batch=8", "data.validation=0.3", "data.workers=0"]
        settings += ["evaluation.fmr=0.2", "evaluation.steps=1", "evaluation.restarts=1", "evaluation.max_pairs=4"]
    settings += options.set
    _beside(*call, *(word for one in settings for word in ("--set", one)))
    for name, (row,) in json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"].items():
        yield {"recipe": name, **row}


def _beside(script: str, *words: str) -> None:
    subprocess.run([sys.executable, str(Path(__file__).with_name(script)), *words], check=True)


def jobs(options: Namespace) -> Iterator[tuple[str, str, float]]:
    """Section, backbone and seconds, in the order in which they are worth having."""
    for section in options.only:
        if section in ("clean", "open"):
            yield from ((section, backbone, options.seconds) for backbone in options.backbones)
        else:
            # Recipes are judged in the end.
            yield section, "", options.seconds + (60 * options.recipe_minutes if section == "recipes" else 0)


def run(options: Namespace, section: str, backbone: str) -> None:
    """A job, in its own process: writes down each row as soon as there is one."""
    found = (
        {"clean": clean, "open": opened}[section](options, backbone)
        if backbone
        else {"head": head, "recipes": recipes}[section](options)
    )
    with (options.out / "rows.jsonl").open("a", encoding="utf-8") as file:
        for row in found:
            file.write(json.dumps({"section": section, "job": f"{section} {backbone}".strip(), **row}) + "\n")
            file.flush()


def newest(rows: list[Row]) -> list[Row]:
    """One of each kind, the last that was written."""
    names = ("section", "backbone", "entrant", "kind", "identities", "shards", "rate", "recipe")
    return list({tuple(row.get(name) for name in names): row for row in rows}.values())


def table(rows: list[Row]) -> str:
    """Markdown, a table for each section."""
    parts = []
    for section in SECTIONS:
        if not (own := [row for row in rows if row["section"] == section]):
            continue
        columns = list(dict.fromkeys(name for row in own for name in row if name not in ("section", "job")))
        lines = [f"## {section}\n", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in own]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "" if value is None else str(value)


def write(options: Namespace, ended: Row) -> None:
    """What there is so far, and how each job ended."""
    path = options.out / "rows.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = newest([json.loads(line) for line in lines])
    content = {
        "options": {key: str(value) for key, value in vars(options).items()},
        "versions": versions(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "jobs": ended,
        "rows": rows,
    }
    (options.out / "results.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (options.out / "table.md").write_text(table(rows), encoding="utf-8")


def parse() -> Namespace:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(SECTIONS), choices=SECTIONS)
    parser.add_argument("--arcface-torch", type=Path, help="recognition/arcface_torch of deepinsight/insightface")
    parser.add_argument("--faces", type=Path, help="identity folders, 112 x 112, for the recipes")
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--backbones", nargs="+", default=["iresnet50", "mobilefacenet"], choices=list(THEIRS))
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp16"] if cuda else ["fp32"])
    parser.add_argument("--compile", default="on" if cuda else "off", choices=("on", "off"))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--identities", type=int, default=93_431, help="MS1MV3's by default")
    parser.add_argument("--kinds", nargs="+", default=["nfgsm", "pgd-2"], choices=list(step_cost.PASSES))
    parser.add_argument("--warm", type=int, default=3, help="steps before any is timed")
    parser.add_argument("--steps", type=int, default=20, help="of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=150, help="of a job, compiling included")
    parser.add_argument("--minutes", type=float, default=14, help="of all jobs together")
    parser.add_argument("--recipe-minutes", type=float, default=10)
    parser.add_argument("--recipes", nargs="+", default=["clean", "gated"])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every recipe")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if "recipes" in options.only and options.faces is None:
        parser.error("the recipes need --faces")
    if options.tiny:
        vars(options).update(TINY)
    return options


def bounded(command: list[str], seconds: float) -> str:
    """Runs it for so long, with all that it has started; how it ended."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return "cut off"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return f"failed ({code})" if code else "whole"


def main() -> None:
    options = parse()
    if options.job is not None:
        run(options, *options.job)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    deadline, ended = time.monotonic() + 60 * options.minutes, dict[str, Any]()
    for section, backbone, seconds in jobs(options):
        name, began = f"{section} {backbone}".strip(), time.monotonic()
        if (left := deadline - began) < 30:
            ended[name] = {"ended": "no time was left"}
            continue
        words = sys.argv[1:]
        if section == "recipes":  # what is left but for judging
            words += ["--recipe-minutes", f"{min(options.recipe_minutes, max(0.5, (left - options.seconds) / 60)):g}"]
        how = bounded([sys.executable, __file__, *words, "--job", section, backbone], min(seconds, left))
        ended[name] = {"ended": how, "seconds": round(time.monotonic() - began, 1)}
        write(options, ended)
        print(f"{name}: {how} after {ended[name]['seconds']} s", flush=True)
    write(options, ended)
    print((options.out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
