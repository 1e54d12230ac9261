"""How fast our attacks are beside those of foolbox, ART and torchattacks, in images times steps a second.

    make bench
    OMP_NUM_THREADS=1 .venv-bench/bin/python benchmarks/attack_speed.py --weights FILE --json out.json

``plain`` is the network as loaded, without parameter gradients, for everyone. ``best`` is the fastest that each has:
ours our frozen copy, theirs the network as loaded or channels last, whichever is faster; ``frozen`` lends them our
copy. The goal is out of reach, so nobody stops early; as many gradients were counted as steps are said, unless the last
column says otherwise. Rounds of all are interleaved, and what each needed at best is compared: on a machine that does
other things too, every slower round is slow for another reason.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from peers import with_art, with_foolbox, with_torchattacks
from peers.objective import Counting, Peer, Run
from steadface.attacks import MIFGSM, PGD, Attack, CarliniWagnerL2, CosineScore, ball
from steadface.backbones import load_backbone
from steadface.backbones.frozen import frozen
from steadface.workflows.report import versions

OUT_OF_REACH = 2.0
"""A score that no cosine reaches."""
CONSTANT = 10.0
SEARCHES = 2
FORMS = ("plain", "channels last", "frozen")
PEERS = ("foolbox", "adversarial-robustness-toolbox", "torchattacks")


def attacks(steps: int) -> dict[str, dict[str, Attack]]:
    """Each attack as each library has it, of ``steps`` gradients for every image."""
    linf, l2 = ball("linf", 4 / 255), ball("l2", 10.0)
    adam: dict[str, Any] = {"searches": SEARCHES, "steps": steps // SEARCHES, "rate": 0.01, "constant": CONSTANT}

    def peer(run: Run) -> Attack:
        return Peer(run=run, ball=linf)

    return {
        "PGD": {
            "steadface": PGD(ball=linf, steps=steps, random_start=False),
            "foolbox": peer(with_foolbox.pgd(steps=steps, step=2.5 / steps)),
            "ART": peer(with_art.pgd(steps=steps, step=2.5 / steps)),
            "torchattacks": peer(with_torchattacks.pgd(steps=steps, step=2.5 / steps)),
        },
        "MI-FGSM": {
            "steadface": MIFGSM(ball=linf, steps=steps),
            "foolbox": peer(with_foolbox.mifgsm(steps=steps, step=1 / steps)),
            "ART": peer(with_art.mifgsm(steps=steps, step=1 / steps)),
            "torchattacks": peer(with_torchattacks.mifgsm(steps=steps, step=1 / steps)),
        },
        "C&W": {
            "steadface": CarliniWagnerL2(ball=l2, **adam),
            "foolbox": peer(with_foolbox.carlini_wagner(**adam)),
            "ART": peer(with_art.carlini_wagner(**adam)),
            "torchattacks": peer(with_torchattacks.carlini_wagner(**adam)),
        },
    }


@dataclass(frozen=True, kw_only=True)
class Runner:
    """One attack on one form of the network."""

    attack: str
    library: str
    form: str
    call: Callable[[], object]
    network: Counting


def forms(weights: Path) -> dict[str, tuple[nn.Module, tuple[int, int]]]:
    """The network in each form, and the (height, width) that it takes."""
    plain = load_backbone(weights).requires_grad_(False)
    last: nn.Module = load_backbone(weights).requires_grad_(False)
    last = last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    every = zip(FORMS, (plain, last, frozen(plain)), strict=True)
    return {form: (network, plain.image_size) for form, network in every}


def runners(options: argparse.Namespace) -> list[Runner]:
    """Every library's attacks on the plain network, ours on our copy, theirs channels last and on our copy too."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for form, (network, size) in forms(options.weights).items():
        images = torch.rand(options.batch, 3, *size, generator=generator)
        with torch.no_grad():
            anchors = F.normalize(network(torch.rand(images.shape, generator=generator)))
        for name, entrants in attacks(options.steps).items():
            for library, attack in entrants.items():
                if name in options.attacks and (form, library) != ("channels last", "steadface"):
                    counting = Counting(network)
                    made.append(
                        Runner(
                            attack=name,
                            library=library,
                            form=form,
                            network=counting,
                            call=crafted(attack, counting, images, anchors),
                        )
                    )
    return made


def crafted(attack: Attack, network: Counting, images: torch.Tensor, anchors: torch.Tensor) -> Callable[[], object]:
    ones = torch.ones_like(anchors[:, 0])
    score = CosineScore(embed=network, anchors=anchors, signs=ones, enough=OUT_OF_REACH * ones)
    return lambda: attack(score, images, generator=torch.Generator().manual_seed(0))


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The fastest round of every runner: images times steps a second."""
    every, clock = runners(options), time.perf_counter if options.clock == "wall" else time.process_time
    seconds = [float("inf")] * len(every)
    for turn in range(options.rounds + 1):  # the first one warms up
        for place, runner in enumerate(every):
            runner.network.gradients = runner.network.forwards = 0
            began = clock()
            runner.call()
            if turn:
                seconds[place] = min(seconds[place], clock() - began)
    rows = []
    for runner, needed in zip(every, seconds, strict=True):
        gradients = runner.network.gradients / options.batch
        rows.append(
            {
                "attack": runner.attack,
                "library": runner.library,
                "form": runner.form,
                "rate": options.batch * min(gradients, options.steps) / needed,
                "gradients": gradients,
                "forwards": runner.network.forwards / options.batch,
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Rates of each library, and how many times as fast ours is: both plain, and each at its best."""
    columns = [
        "attack",
        "library",
        "plain",
        "channels last",
        "frozen",
        "ours / plain",
        "our best / its best",
        "gradients",
    ]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    rates: dict[tuple[str, str, str], float] = {
        (row["attack"], row["library"], row["form"]): row["rate"] for row in rows
    }
    for row in [row for row in rows if row["form"] == "plain"]:
        name, library = row["attack"], row["library"]
        found = {form: rates[name, library, form] for form in FORMS if (name, library, form) in rates}
        own = found["frozen"] if library == "steadface" else max(found["plain"], found["channels last"])
        cells = [f"{found[form]:.1f}" if form in found else "" for form in FORMS]
        cells.append(f"{rates[name, 'steadface', 'plain'] / found['plain']:.2f}")
        cells.append(f"{rates[name, 'steadface', 'frozen'] / own:.2f}")
        lines.append(f"| {name} | {library} | {' | '.join(cells)} | {row['gradients']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--attacks", nargs="+", default=["PGD", "MI-FGSM", "C&W"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: where others compute beside it")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options)
    print(table(rows))
    if options.json is not None:
        content = {
            "options": {key: str(value) for key, value in vars(options).items()},
            "versions": {**versions(), **{name: version(name) for name in PEERS}},
            "results": rows,
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
