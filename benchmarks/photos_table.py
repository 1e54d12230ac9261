"""Identification from whole photographs, clean and under attack on the probe: what docs/recognition.md shows.

python benchmarks/photos_table.py MODEL [MODEL ...] --photos PHOTOS --detector yunet.onnx --eps 2/255

PHOTOS holds a folder of photographs for each person. In each of many draws half of the people are enrolled with one
photograph each, drawn at random; their other photographs are mated probes, and all photographs of the other half are
strangers'. Thresholds of an FPIR are read off the strangers of all draws together, clean. In the first draw the aligned
probes are attacked as well: mated ones dodge their own template, strangers' ones impersonate whoever enrolled is most
similar. Attacks are saved with 8 bits, and judged as the recogniser sees them.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from steadface.attacks import APGD, CosineScore, ball
from steadface.attacks.rounding import as_bytes, towards_source
from steadface.backbones.frozen import frozen
from steadface.data.folders import open_faces
from steadface.evaluation.gallery import Gallery, enrol, highest_similarities, missed, search, threshold_at_fpir
from steadface.recognition.face_finder import NoFace
from steadface.recognition.recognizer import Recognizer
from steadface.recognizers import open_recognizer
from steadface.recognizers.embedder import stacked
from steadface.report.text import with_interval

Vectors = NDArray[np.float32]
Indices = NDArray[np.int64]
FPIRS = (1e-2, 5e-2)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One gallery, whose mated probes and strangers' probes are rows of the photographs."""

    enrolled: Indices
    mated: Indices
    strangers: Indices


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The photographs in which a face was found: `faces` (n, H, W, 3) and whose they are."""

    faces: NDArray[np.uint8]
    people: Indices
    photographs: int
    milliseconds: float


def see(recognizer: Recognizer, photos: Path) -> Seen:
    """The largest face of every photograph, and how long finding it took on average."""
    source = open_faces(photos)
    faces, people = [], []
    began = time.perf_counter()
    for index in range(len(source)):
        try:
            faces.append(recognizer.seeing.face(Path(source.name(index))).aligned)
            people.append(int(source.labels[index]))
        except NoFace as error:
            print(f"  {error}")
    took = time.perf_counter() - began
    return Seen(
        faces=stacked(faces, recognizer.embedder.size),
        people=np.array(people),
        photographs=len(source),
        milliseconds=1000 * took / len(source),
    )


def draws(people: Indices, count: int, seed: int) -> list[Draw]:
    """Galleries of half of the people, one photograph each."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        names = rng.permutation(np.unique(people))
        inside = names[: len(names) // 2]
        enrolled = np.array([rng.choice(np.flatnonzero(people == person)) for person in inside])
        mated = np.setdiff1d(np.flatnonzero(np.isin(people, inside)), enrolled)
        made.append(Draw(enrolled=enrolled, mated=mated, strangers=np.flatnonzero(~np.isin(people, inside))))
    return made


def rank_one(vectors: Vectors, people: Indices, seed: int, count: int) -> list[float]:
    """With everybody enrolled by one photograph, the share of the others whose own person comes first."""
    rng, rates = np.random.default_rng(seed), []
    for _ in range(count):
        chosen = np.array([rng.choice(np.flatnonzero(people == person)) for person in np.unique(people)])
        rest = np.setdiff1d(np.arange(len(people)), chosen)
        gallery = enrol(vectors[chosen], people[chosen])
        rates.append(float(1 - missed(search(gallery, vectors[rest], people[rest])).mean()))
    return rates


def attacked(
    network: torch.nn.Module, faces: NDArray[np.uint8], anchors: Vectors, sign: float, eps: float, seed: int
) -> NDArray[np.uint8]:
    """Aligned faces (n, H, W, 3) perturbed within linf `eps` to move the cosine to `anchors` by `sign`, as 8 bits."""
    attack = APGD(ball=ball("linf", eps), steps=40, restarts=2)
    fast, parts = frozen(network), []
    for start in range(0, len(faces), 32):
        part = slice(start, start + 32)
        images = torch.from_numpy(faces[part]).permute(0, 3, 1, 2).float() / 255
        score = CosineScore(embed=fast, anchors=torch.from_numpy(anchors[part]), signs=torch.full((len(images),), sign))
        found = attack(score, images, generator=torch.Generator().manual_seed(seed + start))
        parts.append(as_bytes(towards_source(found, images)).permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


def nearest(gallery: Gallery, probes: Vectors) -> Vectors:
    """The template most similar to each probe."""
    found: Vectors = gallery.templates[(probes @ gallery.templates.T).argmax(1)]
    return found


def column(
    model: str, recognizer: Recognizer, seen: Seen, eps: Sequence[float], count: int, seed: int
) -> dict[str, str]:
    """Every row of the table for one model."""
    people, faces = seen.people, seen.faces
    vectors = recognizer.embedder(faces)
    ranks = rank_one(vectors, people, seed, count)
    cells = {"rank 1, 40 people enrolled by one photograph, %": spread(ranks)}
    every = draws(people, count, seed)
    galleries = [enrol(vectors[draw.enrolled], people[draw.enrolled]) for draw in every]
    highest = [highest_similarities(one, vectors[draw.strangers]) for one, draw in zip(galleries, every, strict=True)]
    thresholds = {fpir: threshold_at_fpir(np.concatenate(highest), fpir) for fpir in FPIRS}
    for fpir, limit in thresholds.items():
        rates = [
            float(missed(search(one, vectors[draw.mated], people[draw.mated]), limit).mean())
            for one, draw in zip(galleries, every, strict=True)
        ]
        cells[f"FNIR at FPIR {fpir:g}, %"] = spread(rates)
    draw, gallery = every[0], galleries[0]
    network = open_recognizer(model).network
    for radius in eps:
        name = f"{255 * radius:g}/255"
        own = gallery.templates[gallery.places(people[draw.mated])]
        hidden = recognizer.embedder(attacked(network, faces[draw.mated], own, -1.0, radius, seed))
        aims = nearest(gallery, vectors[draw.strangers])
        posing = recognizer.embedder(attacked(network, faces[draw.strangers], aims, 1.0, radius, seed))
        for fpir, limit in thresholds.items():
            fnir = missed(search(gallery, hidden, people[draw.mated]), limit).mean()
            taken = (highest_similarities(gallery, posing) >= limit).mean()
            cells[f"FNIR, dodging {name}, threshold of FPIR {fpir:g}, %"] = (
                f"{100 * fnir:.0f} (of {len(draw.mated)} probes)"
            )
            cells[f"FPIR, impersonation {name}, threshold of FPIR {fpir:g}, %"] = (
                f"{100 * taken:.0f} (of {len(draw.strangers)} probes)"
            )
    return cells


def spread(rates: Sequence[float]) -> str:
    """Mean, and the range that 95 % of the draws lie in."""
    low, high = np.percentile(rates, [2.5, 97.5])
    return with_interval(100 * float(np.mean(rates)), 100 * low, 100 * high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="run folders or files of weights")
    parser.add_argument("--photos", type=Path, required=True, help="photographs, one folder per person")
    parser.add_argument("--detector", type=Path, help="a YuNet or SCRFD file")
    parser.add_argument("--eps", action="append", type=lambda text: float(Fraction(text)), help="linf radius")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    columns: dict[str, dict[str, str]] = {}
    seen: Seen | None = None
    for model in given.models:
        recognizer = Recognizer.open(model, detector=given.detector)
        if seen is None or recognizer.embedder.size != seen.faces.shape[1:3]:
            seen = see(recognizer, given.photos)
            print(
                f"faces found in {len(seen.faces)} of {seen.photographs} photographs, {seen.milliseconds:.0f} ms each\n"
            )
        columns[Path(model).stem] = column(model, recognizer, seen, given.eps or [2 / 255], given.draws, given.seed)
    rows = dict.fromkeys(row for cells in columns.values() for row in cells)
    print("| | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    for row in rows:
        print(f"| {row} | " + " | ".join(cells[row] for cells in columns.values()) + " |")


if __name__ == "__main__":
    main()
