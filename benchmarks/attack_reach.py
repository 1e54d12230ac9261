"""How much of what ten steps of PGD gain the attacks of training gain, on people held out.

    python benchmarks/attack_reach.py MODEL ... --faces DIR --eps 2 4 6

Gains are mean changes of the raw cosine, of dodging the own embedding and of impersonating the nearest other face of
the batch, from one noisy start each, at the radius in grey levels. The people are those that seed 0 holds out.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from steadface.attacks import NFGSM, PGD, Attack, Score, ball, dodge_or_impersonate
from steadface.backbones import load_backbone
from steadface.backbones.frozen import frozen
from steadface.data.faces import split_people
from steadface.data.folders import open_faces
from steadface.training.probe import probing_images
from steadface.training.targets import Nearest, OtherFace, Source

STRONG = 10


def attacks(eps: float) -> dict[str, Attack]:
    """What is compared, the strong one last."""
    around = ball("linf", eps)
    steps = (1, 2, 3, 4, STRONG)
    return {
        "N-FGSM": NFGSM(ball=around),
        **{f"PGD-{k}": PGD(ball=around, steps=k, keep_best=False) for k in steps},
    }


def gains(embed: Callable[[Tensor], Tensor], images: Tensor, eps: float) -> dict[str, tuple[float, float]]:
    """Mean gain (dodging, impersonating) of each attack."""
    with torch.no_grad():
        embeddings = F.normalize(embed(images))
    source = Source(images=images, labels=torch.arange(len(images)), embeddings=embeddings, embed=embed)
    generator = torch.Generator().manual_seed(0)
    repel = OtherFace(designate=Nearest())(source, generator).repel
    dodges = torch.arange(len(images)) % 2 == 0
    score: Score = dodge_or_impersonate(embed, embeddings, repel, dodges)
    found = {}
    for name, attack in attacks(eps).items():
        made = attack(score, images, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            gain = score(made) - score(images)
        found[name] = (float(gain[dodges].mean()), float(gain[~dodges].mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--eps", nargs="+", type=float, default=[2, 4, 6], help="in grey levels")
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    _, held_out = split_people(open_faces(options.faces, min_images=2), fraction=0.1, seed=0)
    names = list(attacks(0.1))[:-1]
    print(f"| model | eps | PGD-{STRONG} gains | " + " | ".join(names) + " |\n|---|---:|---:|" + "---:|" * len(names))
    for path in options.models:
        network = frozen(load_backbone(path))
        images = probing_images(held_out, options.images, load_backbone(path).image_size, seed=0)
        for eps in options.eps:
            found = gains(network, images, eps / 255)
            strong = found.pop(f"PGD-{STRONG}")
            cells = [f"{dodged / strong[0]:.2f}, {taken / strong[1]:.2f}" for dodged, taken in found.values()]
            print(
                f"| {path.name} | {eps:g} | {strong[0]:.2f}, {strong[1]:.2f} | " + " | ".join(cells) + " |", flush=True
            )


if __name__ == "__main__":
    main()
