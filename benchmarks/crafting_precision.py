"""What half precision leaves of the gradients that attacks follow, beside single precision.

    python benchmarks/crafting_precision.py --weights FILE --faces DIR

Faces a little away from themselves are to look unlike themselves, as an attack in training begins: the closer, the
flatter is the cosine. Of the input gradient in bf16, in fp16 as it is and in fp16 with the scale of
`training/lossscale.py`: how many entries are zero, and of how many the sign is that of single precision.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from steadface.attacks import Linf, crafting, dodge, score_and_gradient
from steadface.backbones import load_backbone
from steadface.data.folders import open_faces
from steadface.training.compute import Compute, FastNetwork
from steadface.training.lossscale import LossScale
from steadface.training.probe import probing_images

WAYS = {
    "bf16": (torch.bfloat16, None),
    "fp16, as it is": (torch.float16, None),
    "fp16, scaled": (torch.float16, LossScale.value),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--noise", type=float, nargs="+", default=[8, 0.5], help="of 255")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    backbone = load_backbone(options.weights).eval()
    images = probing_images(open_faces(options.faces), options.count, backbone.image_size, options.seed)
    device = images.device

    def gradient(compute: Compute, scale: LossScale | None, start: Tensor) -> Tensor:
        score = dodge(FastNetwork(backbone, compute, scale), anchors)
        return score_and_gradient(score, start)[1]

    print("| noise | precision | zero, % | sign agrees, % |\n|---:|---|---:|---:|")
    with crafting(backbone):
        with torch.no_grad():
            anchors = F.normalize(backbone(images))
        for noise in options.noise:
            generator = torch.Generator().manual_seed(options.seed)
            start = Linf(noise / 255).sample(images, generator)
            true = gradient(Compute(device=device), None, start)
            for name, (half, value) in WAYS.items():
                scale = None if value is None else LossScale(value=value)
                found = gradient(Compute(device=device, half=half), scale, start)
                assert scale is None or not scale.spoilt
                zero, agrees = (found == 0).float().mean(), (found.sign() == true.sign()).float().mean()
                print(f"| {noise:g}/255 | {name} | {100 * zero:.2f} | {100 * agrees:.1f} |", flush=True)


if __name__ == "__main__":
    main()
