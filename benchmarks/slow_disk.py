"""What a training waits for a slow disk, by how many processes read and how far ahead.

    python benchmarks/slow_disk.py --seed 0

Every image takes ``--delay`` milliseconds to read, and one in ``--every`` takes ``--pause``, as when a network disk
stands still. A step takes ``--step`` milliseconds, in which this process waits as for an accelerator, so that nothing
but the reading competes for the cores. The loader is the one that trains, the pictures are small. Of each setting: the
share of the time that went into waiting for batches, images a second, and the longest wait; the first batches, in which
the queues fill, are left out.
"""

import argparse
import contextlib
import itertools
import json
import time
import warnings

import numpy as np

from steadface.data.faces import ArrayFaces, Image
from steadface.data.loading import FaceLoader
from steadface.data.sampling import UniformSampler

SIDE = 16
"""Pixels: so few that reading is all that counts, on a machine that has other work too."""


class SlowFaces(ArrayFaces):
    """Faces of noise that take as long to read as is said, in seconds; each is read once in an epoch."""

    def __init__(self, images: int, *, delay: float, pause: float, every: int) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, size=(64, SIDE, SIDE, 3), dtype=np.uint8)
        super().__init__(pixels, np.arange(64) % 16, [str(person) for person in range(16)])
        self.labels = np.arange(images) % 16
        self.delay, self.pause, self.every = delay, pause, every

    def read(self, index: int) -> Image:
        time.sleep(self.pause if index % self.every == 0 else self.delay)
        return super().read(index % 64)

    def __len__(self) -> int:
        return len(self.labels)


def waited(options: argparse.Namespace, workers: int, prefetch: int, pause: float) -> dict[str, float]:
    """Figures of one setting."""
    source = SlowFaces(options.every * 4, delay=options.delay / 1000, pause=pause / 1000, every=options.every)
    loader = FaceLoader(
        source,
        sampler=UniformSampler(source.labels, batch_size=options.batch, seed=options.seed),
        size=(SIDE, SIDE),
        workers=workers,
        prefetch=prefetch,
        seed=options.seed,
    )
    waits: list[float] = []
    with contextlib.closing(loader.batches()) as batches:
        for _ in itertools.islice(batches, max(1, workers * prefetch)):
            time.sleep(options.step / 1000)
        began = time.perf_counter()
        for _ in range(options.steps):
            asked = time.perf_counter()
            next(batches)
            waits.append(time.perf_counter() - asked)
            time.sleep(options.step / 1000)
    seconds = time.perf_counter() - began
    return {
        "waiting": sum(waits) / seconds,
        "images_per_second": options.steps * options.batch / seconds,
        "longest_wait": max(waits),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=float, default=5, help="milliseconds for an image")
    parser.add_argument("--pause", type=float, default=500, help="milliseconds for one in --every")
    parser.add_argument("--every", type=int, default=640, help="images, of which one makes a pause")
    parser.add_argument("--step", type=float, default=100, help="milliseconds of a training step")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument(
        "--settings", nargs="+", default=["0x1", "1x2", "2x2", "4x1", "4x2", "4x8"], metavar="WORKERSxPREFETCH"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more processes than cores: they sleep
    print("| workers | prefetch | pauses | waiting | images/s | longest wait, s |\n|---|---|---|---|---|---|")
    for setting in options.settings:
        workers, prefetch = map(int, setting.split("x"))
        for pause in (options.delay, options.pause):
            found = waited(options, workers, prefetch, pause)
            print(
                f"| {workers} | {prefetch if workers else '-'} | {'yes' if pause != options.delay else 'no'} | "
                f"{100 * found['waiting']:.1f} % | {found['images_per_second']:.0f} | {found['longest_wait']:.2f} |",
                flush=True,
            )
    print(json.dumps(vars(options)))


if __name__ == "__main__":
    main()
