"""Embedding speed beside InsightFace's own ArcFaceONNX on the same ONNX file, in the same run.

.venv-bench/bin/python benchmarks/embedding_speed.py MODEL [--threads 2] [--rounds 5]

MODEL is exported to ONNX first. All are given uint8 faces and return float32 embeddings on the host; they take turns of
a few calls each, and medians are shown, with how alike each one's embeddings are to InsightFace's.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from steadface.recognizers import open_recognizer
from steadface.recognizers.embedder import NetworkEmbedder, open_embedder
from steadface.recognizers.export import export_onnx

Faces = NDArray[np.uint8]
Embed = Callable[[Faces], NDArray[np.float32]]
PEER = "insightface ArcFaceONNX"
BURST = 5
"""Calls in a turn, the first of which only wakes the threads up and is not counted."""
PAUSE = 0.3
"""Seconds before a turn: threads of the one before go on spinning for a while."""


def insightface(path: Path) -> Embed:
    """InsightFace's class as its own pipeline calls it: a list of BGR pictures."""
    from insightface.model_zoo.arcface_onnx import ArcFaceONNX

    model = ArcFaceONNX(str(path))

    def embed(faces: Faces) -> NDArray[np.float32]:
        raw = model.get_feat(list(faces[..., ::-1]))
        unit: NDArray[np.float32] = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        return unit

    return embed


def timed(embedders: dict[str, Embed], faces: Faces, rounds: int) -> dict[str, float]:
    """Median seconds of each, taking turns."""
    took: dict[str, list[float]] = {name: [] for name in embedders}
    for _ in range(rounds):
        for name, embed in embedders.items():
            time.sleep(PAUSE)
            times = []
            for _ in range(BURST):
                began = time.perf_counter()
                embed(faces)
                times.append(time.perf_counter() - began)
            took[name] += times[1:]
    return {name: statistics.median(times) for name, times in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    opened = open_recognizer(given.model)
    height, width = opened.convention.size
    faces = np.random.default_rng(0).integers(0, 256, (max(given.batches), height, width, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exported.onnx"
        export_onnx(opened, path)
        embedders: dict[str, Embed] = {
            PEER: insightface(path),
            "onnxruntime": open_embedder(open_recognizer(path)),
            "torch": NetworkEmbedder(opened.network),
            "torch compiled": NetworkEmbedder(opened.network, compile=True),
            "torch compiled, bf16": NetworkEmbedder(opened.network, compile=True, precision="bf16"),
        }
        expected = embedders[PEER](faces)
        least = {name: float((embed(faces) * expected).sum(1).min()) for name, embed in embedders.items()}
        print(f"{given.threads} threads, {given.rounds} rounds of {BURST - 1}, faces of {height} x {width}\n")
        print("| batch | | ms per face | faces/s | times InsightFace | least cosine to InsightFace's |")
        print("|---:|---|---:|---:|---:|---:|")
        for batch in given.batches:
            seconds = timed(embedders, faces[:batch], given.rounds)
            for name, took in seconds.items():
                print(
                    f"| {batch} | {name} | {1000 * took / batch:.2f} | {batch / took:.0f} | "
                    f"{seconds[PEER] / took:.2f} | {least[name]:.5f} |"
                )


if __name__ == "__main__":
    main()
