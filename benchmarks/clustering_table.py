"""How well a recogniser tells who is who among faces without labels, as `steadface harden` has it do in a plain folder.

    python benchmarks/clustering_table.py WEIGHTS --faces DIR

The faces have labels, which are hidden from it: pairs of images that it joins are compared with pairs of one person.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steadface.backbones import load_backbone
from steadface.backbones.frozen import frozen
from steadface.clustering import people_alike
from steadface.data.folders import open_faces
from steadface.evaluation.embedding import MirrorEmbedder, embed_faces


def pairs(counts: NDArray[np.int64]) -> int:
    """Pairs within groups of these sizes."""
    return int((counts * (counts - 1) // 2).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--faces", type=Path, required=True, help="aligned, one folder per person")
    options = parser.parse_args()
    faces = open_faces(options.faces)
    people = np.asarray(faces.labels, dtype=np.int64)
    found = people_alike(embed_faces(MirrorEmbedder(frozen(load_backbone(options.weights)), mirror=False), faces))
    both, shared = np.unique(np.stack([found, people]), axis=1, return_counts=True)
    sizes = np.bincount(found)
    mixed = np.bincount(both[0]) > 1
    several = sizes > 1
    print(f"{len(people)} images of {len(faces.people)} people")
    print(f"{several.sum()} groups of two or more, {(several & ~mixed).sum()} of one person; {(~several).sum()} alone")
    print(f"pairs joined that show one person: {100 * pairs(shared) / pairs(sizes):.1f} %")
    print(f"pairs of one person that are joined: {100 * pairs(shared) / pairs(np.bincount(people)):.1f} %")


if __name__ == "__main__":
    main()
