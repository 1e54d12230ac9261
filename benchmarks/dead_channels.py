"""What is left of channels that died costs: a file with its tiniest weights, and with zeros in their place.

    OMP_NUM_THREADS=1 python benchmarks/dead_channels.py FILE ... --faces DIR

Embedding, as services do (ONNX files in onnxruntime), and input gradients, as attacks take them (`quickened`, eager);
fp32, images per second of CPU time; rounds alternate, and the fastest counts. Beside them the share of numbers other
than zero below `frozen.NEGLIGIBLE`, and how far embeddings of both are apart.
"""

import argparse
import time
from pathlib import Path
from typing import cast
from unittest import mock

import torch
from torch import Tensor, nn

from steadface.backbones import frozen
from steadface.data.folders import open_faces
from steadface.recognizers import open_recognizer
from steadface.recognizers.embedder import quickened
from steadface.training.probe import probing_images

Networks = tuple[nn.Module, nn.Module]


def opened(file: Path, *, zeros: bool) -> Networks:
    """What embeds, and what attacks are crafted on."""
    with mock.patch.object(frozen, "NEGLIGIBLE", frozen.NEGLIGIBLE if zeros else 0.0):
        crafting = quickened(open_recognizer(file).network)
        return quickened(open_recognizer(file, gradients=False).network), crafting


def share(network: nn.Module) -> float:
    held = torch.cat([one.flatten() for one in network.state_dict().values() if one.is_floating_point()])
    return float(((held != 0) & frozen.negligible(held)).float().mean())


def seconds(networks: Networks, images: Tensor) -> tuple[float, float]:
    asked = images.clone().requires_grad_(True)
    began = time.process_time()
    with torch.no_grad():
        networks[0](images)
    embedded = time.process_time()
    torch.autograd.grad(networks[1](asked).sum(), asked)
    return embedded - began, time.process_time() - embedded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    faces = open_faces(options.faces)
    print(
        "| file | tiny, % | embedded | with zeros | ratio | gradients | with zeros | ratio | apart |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    for file in options.files:
        both = [opened(file, zeros=zeros) for zeros in (False, True)]
        size = cast("tuple[int, int]", both[0][1].image_size)
        images = probing_images(faces, options.count, size, options.seed)
        with torch.no_grad():
            apart = max(float((old(images) - new(images)).abs().max()) for old, new in zip(*both, strict=True))
        rounds = [[seconds(networks, images) for networks in both] for _ in range(options.rounds)]
        cells = []
        for place in (0, 1):
            with_them, zeros = (len(images) / min(one[kind][place] for one in rounds) for kind in (0, 1))
            cells += [f"{with_them:.1f}", f"{zeros:.1f}", f"{zeros / with_them:.2f}"]
        print(f"| {file.name} | {100 * share(both[0][1]):.2f} | {' | '.join(cells)} | {apart:.1g} |", flush=True)


if __name__ == "__main__":
    main()
