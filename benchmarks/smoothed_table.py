"""How well a smoothed verifier recognises: LFW's protocol, ten folds of 6,000 pairs, by the median of noisy cosines.

    python benchmarks/smoothed_table.py MODEL ... --images LFW_ALIGNED --pairs pairs.txt --blur 1 --draws 32

Every picture is embedded under `draws` noises; the median cosine of those of the first picture of a pair with the
normalised mean of those of the second is what is compared, as in `steadface certify`. Accuracy is cross-validated over
the folds; FNMR is read at the threshold of FMR 1e-2 over the same impostor pairs. sigma 0 is the verifier as it is.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from steadface.certification.verifier import SmoothedVerifier, draws_of, levels_of, template_of
from steadface.data.loading import read_images
from steadface.data.pairs import PairSet, read_pairs
from steadface.devices import resolve_device
from steadface.evaluation.embedding import Blurred, MirrorEmbedder
from steadface.evaluation.verification import verify
from steadface.recognizers import open_recognizer
from steadface.recognizers.embedder import compiled, quickened
from steadface.workflows.report import versions

FMR = 1e-2


def smoothed(verifier: SmoothedVerifier, pairs: PairSet, draws: int, seed: int) -> NDArray[np.float32]:
    """(P,) medians of the noisy cosines of all pairs."""
    used = np.union1d(pairs.first, pairs.second)
    probes = []
    for image in used.tolist():
        levels = levels_of(read_images(pairs.faces, [image], verifier.embedder.size)[0])[0]
        probes.append(verifier.embeddings(levels, draws, draws_of(seed, str(image))))
    first, second = np.searchsorted(used, pairs.first), np.searchsorted(used, pairs.second)
    templates = [template_of(own) for own in probes]
    return np.array([np.median(probes[one] @ templates[other]) for one, other in zip(first, second, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--sigma", type=float, nargs="+", default=[0.25])
    parser.add_argument("--blur", type=float, default=0.0, help="pixels by which the verifier blurs what it sees")
    parser.add_argument("--draws", type=int, default=32)
    parser.add_argument("--every", type=int, default=1, help="takes one pair out of so many")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    pairs = read_pairs(given.pairs, given.images)
    pairs = pairs.select(np.arange(0, len(pairs), given.every))
    device = resolve_device(given.device)
    print(f"{len(pairs)} pairs, {given.draws} draws, blur {given.blur:g}, seed {given.seed}; {versions()}")
    print("| model | sigma | accuracy, % | EER, % | FNMR at FMR 1e-2, % | genuine | impostor | images/s |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for model in given.models:
        network = quickened(open_recognizer(model).network).to(device)
        for sigma in given.sigma:
            embedder = MirrorEmbedder(Blurred(network, given.blur), mirror=False).eval()
            run = compiled(embedder, device)
            verifier = SmoothedVerifier(embedder=embedder, run=run, sigma=sigma, batch=64, device=device)
            began, draws = time.monotonic(), given.draws if sigma else 1
            similarity = smoothed(verifier, pairs, draws, given.seed)
            found = verify(similarity, pairs.same, pairs.fold)
            speed = draws * len(np.union1d(pairs.first, pairs.second)) / (time.monotonic() - began)
            fnmr = next(
                (point.fnmr for point in found.operating_points if point.fmr == FMR), float("nan")
            )  # too few pairs
            print(
                f"| {Path(model).stem} | {sigma:g} | {100 * found.accuracy:.2f} | {100 * found.eer:.2f} | "
                f"{100 * fnmr:.2f} | {found.genuine_mean:.3f} | {found.impostor_mean:.3f} | {speed:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
