"""How long large sets of faces take to open, the first time and again, and what memory a process has for that.

    python benchmarks/opening.py FOLDER --images 200000

Writes tar shards (WebDataset's layout, 10,000 pictures each) and a `.rec` of so many pictures into FOLDER, which exists
and is empty, opens each twice in processes of their own, and removes them. Pictures are 200 bytes that nobody decodes:
only headers and labels are read. Memory is what the process has made its own by it (`Private_Dirty` in Linux's smaps);
pages of a kept index are the system's, once for all processes.
"""

import argparse
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import time
from pathlib import Path

PER_SHARD, PER_PERSON, PICTURE = 10_000, 30, b"\xff\xd8" + bytes(198)
LONG_AGO = 10**9


def write_shards(folder: Path, images: int) -> Path:
    folder.mkdir()
    for begin in range(0, images, PER_SHARD):
        with tarfile.open(folder / f"faces-{begin // PER_SHARD:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(begin, min(images, begin + PER_SHARD)):
                for suffix, content in ((".jpg", PICTURE), (".cls", b"%d" % (number // PER_PERSON))):
                    info = tarfile.TarInfo(f"{number:09d}{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return folder


def write_records(folder: Path, images: int) -> Path:
    folder.mkdir()
    with (folder / "train.rec").open("wb") as records, (folder / "train.idx").open("w") as index:
        for number in range(images):
            payload = struct.pack("<IfQQ", 0, number // PER_PERSON, number, 0) + PICTURE
            index.write(f"{number}\t{records.tell()}\n")
            records.write(struct.pack("<II", 0xCED7230A, len(payload)) + payload + bytes(-len(payload) % 4))
    return folder


def private() -> float:
    """MiB that are this process's alone."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024


def opened(path: Path) -> dict[str, float]:
    from steadface.data.folders import open_faces

    before, began, used = private(), time.perf_counter(), time.process_time()
    faces = open_faces(path)
    found = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - used, "MiB": private() - before}
    began = time.perf_counter()
    faces.fingerprint()
    return {**found, "images": len(faces), "people": len(faces.people), "fingerprint": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--open", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        print(json.dumps(opened(options.folder)))
        return
    for kind, write in (("shards", write_shards), ("rec", write_records)):
        folder = write(options.folder / kind, options.images)
        for path in folder.iterdir():
            os.utime(path, (LONG_AGO, LONG_AGO))  # of files that have just changed no index is kept
        for turn in ("first", "again"):
            answer = subprocess.check_output([sys.executable, __file__, str(folder), "--open"], text=True)
            print(kind, turn, answer.strip(), flush=True)
        (index,) = folder.glob(".steadface-*.index")
        print(kind, "index", f"{index.stat().st_size / options.images:.1f} bytes an image", flush=True)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


if __name__ == "__main__":
    main()
