"""DeepFace's API (`deepface` 0.0.103), as its own image starts it, with an ONNX file of ours in place of SFace's.

OpenCV, which runs SFace for it, gives the network RGB faces of 112 x 112 in 0..255, as `steadface export` writes them.
"""

import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WEIGHTS = "face_recognition_sface_2021dec.onnx"
WORDS = {"model_name": "SFace", "detector_backend": "skip", "distance_metric": "cosine"}
"""Aligned faces are taken as they are."""


@contextmanager
def service(python: Path, onnx: Path, folder: Path, port: int) -> Iterator[int]:
    """The API at that port, until left; the process that answers. `folder` takes what DeepFace looks for at home."""
    weights = folder / ".deepface" / "weights"
    weights.mkdir(parents=True)
    shutil.copy(onnx, weights / WEIGHTS)
    command = [str(python), "-m", "gunicorn", "--workers=1", "--timeout=3600", f"--bind=127.0.0.1:{port}"]
    environment = {**os.environ, "DEEPFACE_HOME": str(folder), "DEEPFACE_FACE_RECOGNITION_MODELS": "SFace"}
    environment.pop("PYTHONPATH", None)
    with (
        (folder / "deepface.txt").open("wb") as log,
        subprocess.Popen(
            [*command, "deepface.api.src.app:create_app()"], env=environment, stdout=log, stderr=log
        ) as process,
    ):
        try:
            _wait(port, process, folder / "deepface.txt")
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield int(children[0])
        finally:
            process.terminate()
            process.wait()


def _wait(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit(f"DeepFace's API ended with {process.returncode}: {log.read_text()[-2000:]}")
