"""`steadface embed`: embeddings of many photographs in one file, or of any number in a folder of parts."""

import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from steadface.arguments import Shard
from steadface.cli.console import console, errors, line, say_warning, stage_bar
from steadface.cli.options import (
    AlignedOption,
    BackendOption,
    ContractOption,
    DetectorOption,
    JsonOption,
    MirrorOption,
    ModelOption,
    OutputOption,
    given_pictures,
    print_json,
)
from steadface.data.listing import abbreviated
from steadface.errors import InvalidInput
from steadface.recognition.recognizer import Recognizer
from steadface.workflows import recognize
from steadface.workflows.embed_parts import EmbeddingJob, Found, Options, open_job


def embed_pictures(
    pictures: Annotated[
        list[Path], typer.Argument(help="Photographs, or folders of them; into a folder also a .rec or tar shards.")
    ],
    model: ModelOption,
    out: Annotated[
        Path, typer.Option(help="An .npz file: `embeddings` (n, D) and `files` (n,). Or a folder, of Parquet parts.")
    ],
    detector: DetectorOption = None,
    aligned: AlignedOption = False,
    mirror: MirrorOption = None,
    backend: BackendOption = "auto",
    compile: Annotated[bool, typer.Option("--compile", help="Compile the model: pays for thousands of faces.")] = False,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1, ...")] = "cpu",
    shard: Annotated[
        str | None, typer.Option(help="Into a folder: which of several workers this is, from 1/64 to 64/64.")
    ] = None,
    part_size: Annotated[
        int | None, typer.Option(help="Into a new folder: pictures to a part. A stop costs a part. [default: 16384]")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Into a folder: threads that read and find faces ahead. [default: 1]")
    ] = None,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Into a folder: every picture, whoever it shows; nobody is named.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Of a folder: read every part, say which are missing, and embed nothing.")
    ] = False,
    output: OutputOption = None,
    contract: ContractOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the unit embeddings of the largest face of each picture. Exit code **1** if some could not be embedded.

    Into a folder go any number of pictures, part by part, by any number of workers: what is there already is not done
    again, so that whatever was stopped or killed goes on with the same command. With `--check`, exit code **1** if
    parts are missing.

    Embeddings can be turned back into faces: keep them like the photographs.
    """
    given: Options = {
        "output": output,
        "contract": contract,
        "mirror": mirror,
        "backend": backend,
        "compile": compile,
        "device": device,
    }
    if out.suffix != ".npz":
        if out.suffix and not out.is_dir():
            raise InvalidInput(f"--out {out} must be an .npz file, or a folder for Parquet parts (such as {out.stem})")
        whose = Shard() if shard is None else Shard.parsed(shard)
        job = open_job(
            pictures,
            model,
            out,
            aligned=aligned,
            detector=detector,
            unlabelled=unlabelled,
            part_size=part_size,
            threads=1 if threads is None else threads,
            new=not check,
            **given,
        )
        raise typer.Exit(_check(job, whose, as_json) if check else _embed(job, whose, as_json))
    if any(one is not None for one in (shard, part_size, threads)) or unlabelled or check:
        raise InvalidInput("--shard, --part-size, --threads, --unlabelled and --check are for an --out of parts")
    files = given_pictures(pictures)
    recognizer = Recognizer.open(model, detector=detector, **given)
    for note in recognizer.contract.notes:
        say_warning(note)
    with stage_bar() as progress:
        done = recognize.embed_pictures(
            recognizer, files, out, aligned=aligned, progress=partial(progress, "embedding")
        )
    if as_json:
        print_json({"embedded": len(done.files), "failed": done.failures, "out": str(out)})
    else:
        console.print(f"{len(done.files)} embeddings in {out}", soft_wrap=True)
        for message in done.failures.values():
            say_warning(message)
    raise typer.Exit(1 if done.failures else 0)


def _embed(job: EmbeddingJob, shard: Shard, as_json: bool) -> int:
    for note in (*job.recognizer.contract.notes, *job.pictures.messages):
        say_warning(note)
    own = shard.places(job.manifest.parts)
    before = job.found(own)
    try:
        _make(job, before.missing)
    except KeyboardInterrupt:
        there = len(job.found(own).there)
        raise KeyboardInterrupt(
            f"interrupted: {there} of {len(own)} parts are there; go on with the same command"
        ) from None
    after = job.found(own)
    _say(job, after, as_json, made=len(before.missing))
    return 1 if after.failed else 0


def _make(job: EmbeddingJob, parts: Sequence[int]) -> None:
    """Makes parts, with a bar, or where nobody looks at a terminal with a line for each part."""
    total, done, began = sum(len(job.manifest.span(part)) for part in parts), 0, time.monotonic()
    with stage_bar(left=True) as bar:

        def more(images: int) -> None:
            nonlocal done
            done += images
            bar("embedding", done, total)

        for number, part in enumerate(parts, start=1):
            job.embed(part, progress=more)
            if not errors.is_terminal and done:
                seconds = time.monotonic() - began
                left = timedelta(seconds=round(seconds * (total - done) / done))
                errors.print(
                    f"{job.manifest.name(part)}, {number} of {len(parts)}: {done / seconds:,.0f} images/s, {left} left",
                    soft_wrap=True,
                    highlight=False,
                )


def _check(job: EmbeddingJob, shard: Shard, as_json: bool) -> int:
    found = job.found(shard.places(job.manifest.parts), whole=True)
    _say(job, found, as_json, made=0)
    return 1 if found.missing else 0


def _say(job: EmbeddingJob, found: Found, as_json: bool, *, made: int) -> None:
    missing = [job.manifest.name(part) for part in found.missing]
    if as_json:
        print_json(
            {
                "images": found.images,
                "failed": found.failed,
                "parts": len(found.there),
                "made": made,
                "missing": missing,
                "out": str(job.folder),
            }
        )
        return
    console.print(
        line(
            f"{found.images - found.failed} embeddings in {len(found.there)} parts, {made} of them made now, of ",
            f"{job.manifest.images} pictures in {job.manifest.parts} parts: ",
            (str(job.folder), "bold"),
        ),
        soft_wrap=True,
    )
    if found.failed:
        say_warning(f"{found.failed} pictures have no embedding; the column error says why")
    if missing:
        say_warning(f"{len(missing)} parts are missing: {abbreviated(missing, len(missing))}")
