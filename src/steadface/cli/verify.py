"""`steadface verify`: do two photographs show one person?"""

from pathlib import Path
from typing import Annotated

import typer

from steadface.cli.console import console, line, say_warning
from steadface.cli.options import (
    AlignedOption,
    BackendOption,
    ContractOption,
    DetectorOption,
    FmrOption,
    GuardOption,
    JsonOption,
    MirrorOption,
    ModelOption,
    OutputOption,
    SignedOption,
    ThresholdOption,
    print_json,
)
from steadface.recognition.answers import Verified
from steadface.recognition.recognizer import Recognizer


def verify_pair(
    first: Annotated[Path, typer.Argument(help="A photograph: the reference.")],
    second: Annotated[Path, typer.Argument(help="A photograph: the probe.")],
    model: ModelOption,
    detector: DetectorOption = None,
    aligned: AlignedOption = False,
    fmr: FmrOption = None,
    threshold: ThresholdOption = None,
    mirror: MirrorOption = None,
    backend: BackendOption = "auto",
    guard: GuardOption = None,
    key: SignedOption = None,
    output: OutputOption = None,
    contract: ContractOption = None,
    as_json: JsonOption = False,
) -> None:
    """Do two photographs show one person? Exit code **0** if they match, **1** if not, **2** or more on an error.

    The largest face of each is compared.
    """
    recognizer = Recognizer.open(
        model,
        output=output,
        contract=contract,
        detector=detector,
        mirror=mirror,
        backend=backend,
        guard=guard,
        key=key,
    )
    answer = recognizer.verify(first, second, fmr=fmr, threshold=threshold, aligned=aligned)
    if as_json:
        print_json(answer.to_json())
    else:
        _say_verified(answer)
    raise typer.Exit(0 if answer.match else 1)


def _say_verified(answer: Verified) -> None:
    verdict = ("match", "green") if answer.match else ("no match", "red")
    at = "given" if answer.fmr is None else f"FMR {answer.fmr:g}"
    console.print(line(verdict, f": similarity {answer.similarity:.4f}, threshold {answer.threshold:.4f} ({at})"))
    if answer.suspicion is not None and answer.suspicion.suspicious:
        say_warning("the probe looks adversarial: its similarity changes when the picture is resized or compressed")
    for note in answer.notes:
        say_warning(note)
