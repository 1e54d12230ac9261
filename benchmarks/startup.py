"""What commands cost besides their work: CPU seconds of whole processes, also beside another checkout of this project.

python benchmarks/startup.py [--beside CHECKOUT] [--onnx FILE] [--rounds 5]

Each side works on faces, a run and a gallery of its own making in a temporary folder. Both take turns; medians
of user and system time of the process and its children, which other work on the machine hardly moves. Each is called
once before, so that the code is compiled as an installed one is, whatever the environment says of keeping bytecode.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parents[1]
RECIPE = """
name: tiny
data: {images: faces, size: [32, 32], batch: 8, validation: 0.5}
model: {architecture: {name: mobilefacenet, width: 0.25, blocks: [1, 0, 0, 0], embedding_size: 16}}
head: {kind: cosface, s: 16, m: 0.1}
method: {gate: {kind: loss, loss: 1.2 chance}, attack: {kind: pgd, steps: 1}}
evaluation: {fmr: 0.1, eps: [4/255], steps: 2, restarts: 1, max_pairs: 4}
run: {steps: 20, threads: 1, device: cpu, precision: fp32}
"""
HARDEN = (
    "run.minutes=null run.steps=4 run.compile=off run.precision=fp32 run.threads=1 run.validate_every=2 "
    "run.select.recover=2 data.batch=8 evaluation.max_pairs=4 evaluation.fmr=0.1 data.validation=0.5"
)


def commands(folder: Path, onnx: Path | None) -> dict[str, list[str]]:
    """What is measured, each as arguments of Python; `OUT` stands for a new folder."""
    steadface = ["-m", "steadface"]
    first, second = sorted((folder / "faces").rglob("*.png"))[:2]
    gallery = ["--gallery", "people.db", "--key", "people.key"]
    overrides = [word for one in HARDEN.split() for word in ("--set", one)]
    found = {
        "python itself": ["-c", "pass"],
        "import steadface": ["-c", "import steadface"],
        "--help": [*steadface, "--help"],
        "gallery list --help": [*steadface, "gallery", "list", "--help"],
        "gallery list": [*steadface, "gallery", "list", *gallery],
        "torch itself": ["-c", "import torch"],
        "verify": [*steadface, "verify", str(first), str(second), "--aligned", "--model", "run", "--fmr", "1e-1"],
        "train, 20 steps": [*steadface, "train", "tiny.yaml", "--set", "run.out=OUT"],
        "harden, 4 steps": [*steadface, "harden", "run", "--images", "faces", "--out", "OUT", *overrides],
    }
    if onnx is not None:
        opening = f"from steadface.recognition.recognizer import Recognizer; Recognizer.open({str(onnx)!r})"
        found["open an ONNX file"] = ["-c", opening]
    return found


def prepared(checkout: Path, folder: Path) -> None:
    """Faces, a run on them and a gallery with one person in `folder`, by the code of `checkout`."""
    folder.mkdir()
    (folder / "tiny.yaml").write_text(RECIPE)
    steadface = ["-m", "steadface"]
    called(checkout, folder, [*steadface, "faces", "faces", "--people", "16", "--images", "4", "--size", "32"])
    called(checkout, folder, [*steadface, "train", "tiny.yaml", "--set", "run.out=run"])
    face = str(min((folder / "faces").rglob("*.png")))
    gallery = ["--gallery", "people.db", "--key", "people.key"]
    called(checkout, folder, [*steadface, "enroll", "ada", face, "--aligned", *gallery, "--model", "run"])


def called(checkout: Path, folder: Path, arguments: list[str]) -> float:
    """CPU seconds that Python with these arguments took with the code of `checkout`."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {**kept, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as out:
        given = [one.replace("OUT", f"{out}/run") for one in arguments]
        before = _used()
        done = subprocess.run([sys.executable, *given], cwd=folder, env=environment, capture_output=True, text=True)
    # 1 is "no match", 3 a hardening that gained nothing: both have done all their work.
    if done.returncode not in (0, 1, 3) or "Traceback" in done.stderr:
        raise SystemExit(f"{' '.join(given)} ended with {done.returncode}:\n{done.stderr}")
    return _used() - before


def _used() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, help="another checkout")
    parser.add_argument("--onnx", type=Path, help="an ONNX file to open, too")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    onnx = None if given.onnx is None else given.onnx.resolve()
    checkouts = [HERE] if given.beside is None else [given.beside.resolve(), HERE]
    with tempfile.TemporaryDirectory() as folder:
        places = {checkout: Path(folder) / str(number) for number, checkout in enumerate(checkouts)}
        for checkout, place in places.items():
            prepared(checkout, place)
        print("CPU seconds, median", *(["beside, here"] if given.beside else []), sep=" | ")
        for name, arguments in commands(places[HERE], onnx).items():
            for one, place in places.items():
                called(one, place, arguments)
            took = [[called(one, place, arguments) for one, place in places.items()] for _ in range(given.rounds)]
            medians = [statistics.median(column) for column in zip(*took, strict=True)]
            print(name, *(f"{median:.2f}" for median in medians), sep=" | ")


if __name__ == "__main__":
    main()
