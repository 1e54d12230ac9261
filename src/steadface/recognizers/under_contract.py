"""Recognisers opened as their contracts say, or so that probing can judge what those say."""

import logging
from dataclasses import replace
from pathlib import Path

from steadface.errors import Conflict, SteadfaceError
from steadface.recognizers import ChannelOrder, Convention, Known, OpenedRecognizer, open_recognizer, starting_from
from steadface.recognizers.contract import Contract, contract_of, is_named, read_contract
from steadface.recognizers.convention import Origin

logger = logging.getLogger(__name__)


def opened_under_contract(
    model: Path | str,
    *,
    mirror: bool = False,
    output: str | None = None,
    file: Path | str | None = None,
    gradients: bool = True,
) -> tuple[OpenedRecognizer, Contract]:
    """A recogniser as its contract (in `file`, if it does not lie with the model) says that it takes its pixels;
    without one, with a contract that has no thresholds. `gradients` are as in `open_recognizer`.

    Raises SteadfaceError for what cannot be opened, and for a contract made for other weights or another output.
    """
    contract = read_contract(model, file)
    if contract is None:
        opened = open_recognizer(model, output=output, gradients=gradients)
        return opened, replace(contract_of(opened, mirror=mirror), notes=doubts(opened.name, opened.convention))
    known = contract.convention
    opened = open_recognizer(
        model,
        image_size=known.size,
        pixel_range=known.pixel_range,
        channel_order=known.channel_order,
        output=output or contract.output,
        gradients=gradients,
    )
    check_contract(contract, opened, model)
    convention = replace(opened.convention, known=_earlier(opened.convention.known, known.known))
    doubtful = doubts(opened.name, convention)
    return replace(opened, convention=convention), replace(contract, notes=(*contract.notes, *doubtful))


def opened_for_probing(
    model: Path | str,
    *,
    image_size: tuple[int, int] | None = None,
    pixel_range: str | None = None,
    channel_order: ChannelOrder | None = None,
    output: str | None = None,
    file: Path | None = None,
) -> tuple[OpenedRecognizer, Contract | None]:
    """A recogniser with what is stated now or was stated when it was calibrated, and its contract, if it has one.

    All else that an earlier contract says of its pixels is where probing is to start from, and no more. A contract that
    cannot be read, or is of other weights, does not count, which a note says. Raises SteadfaceError as
    `open_recognizer`.
    """
    given = {"image_size": image_size, "pixel_range": pixel_range, "channel_order": channel_order, "output": output}
    given = {name: value for name, value in given.items() if value is not None}
    before, notes = _earlier_contract(model, file)
    opened = open_recognizer(model, **(_statements(before) | given))  # type: ignore[arg-type]
    if before is not None and before.weights != opened.content:
        opened = open_recognizer(model, **given)  # type: ignore[arg-type]
        before, notes = None, (f"{opened.name}: its contract is for another model, and does not count",)
    if before is not None:
        if image_size is None and opened.convention.known.size == "stated":
            known = replace(opened.convention.known, size=before.convention.known.size)
            opened = replace(opened, convention=replace(opened.convention, known=known))
        opened = starting_from(opened, before.convention)
    return replace(opened, notes=(*opened.notes, *notes)), before


def _earlier_contract(model: Path | str, file: Path | None) -> tuple[Contract | None, tuple[str, ...]]:
    """With a note in place of one that cannot be read."""
    try:
        return read_contract(model, file if file is not None and file.is_file() else None), ()
    except SteadfaceError as error:
        return None, (f"its earlier contract does not count: {error}",)


def _statements(contract: Contract | None) -> dict[str, object]:
    """What was stated when a recogniser was calibrated, as `open_recognizer` takes it; and a size at which it runs."""
    if contract is None:
        return {}
    known, convention = contract.convention.known, contract.convention
    kept = {
        "image_size": convention.size,
        "pixel_range": convention.pixel_range if known.pixel_range == "stated" else None,
        "channel_order": convention.channel_order if known.channel_order == "stated" else None,
        "output": contract.output,
    }
    return {name: value for name, value in kept.items() if value is not None}


def check_contract(contract: Contract, opened: OpenedRecognizer, model: Path | str) -> None:
    """Raises SteadfaceError for a contract that was made for another recogniser."""
    anew = f"make it anew with `steadface calibrate {model} --images FACES`"
    if contract.weights == opened.content:
        _check_bound(contract, opened, anew)
        return
    if contract.output != opened.output:
        raise Conflict(
            f"the contract of {model} is for its output {contract.output or 'that comes first'}, not {opened.output}; "
            f"leave --output away, or {anew}"
        )
    what = "other source code" if is_named(model) else "other weights"
    raise Conflict(f"the contract of {model} was made for {what} ({contract.name}); {anew}")


def _check_bound(contract: Contract, opened: OpenedRecognizer, anew: str) -> None:
    """Raises SteadfaceError for a contract that does not fit its own model; one without a seal is spoken of."""
    if contract.dimension != opened.embedding_size:
        raise Conflict(
            f"the contract of {opened.name} is for embeddings of {contract.dimension} numbers, and the model gives "
            f"{opened.embedding_size}; {anew}"
        )
    if contract.seal is None:
        logger.warning(
            "%s: its contract was written by an earlier version, or its seal was taken off: nothing shows that its "
            "thresholds and what it says of the pixels are as they were measured; %s",
            opened.name,
            anew,
        )


def doubts(name: str, convention: Convention) -> tuple[str, ...]:
    """What nobody stated, no file says and no faces were asked about."""
    known = convention.known
    assumed = [
        value
        for value, origin in (
            (convention.pixel_range, known.pixel_range),
            (convention.channel_order, known.channel_order),
        )
        if origin == "default"
    ]
    if not assumed:
        return ()
    return (
        f"{name}: nobody has said or tried what pixels it takes, so {' and '.join(assumed)} is assumed; `steadface "
        "calibrate` tries that on faces",
    )


def _earlier(now: Known, then: Known) -> Known:
    """How it is known what a contract says: from the file where that says the same, else as it was then."""
    return Known(
        size=now.size if now.size == "file" else then.size,
        pixel_range=now.pixel_range if now.pixel_range == "file" else _doubtful(then.pixel_range),
        channel_order=now.channel_order if now.channel_order == "file" else then.channel_order,
    )


def _doubtful(then: Origin) -> Origin:
    """What was once read in the file and is not read there any more is an assumption."""
    return "default" if then == "file" else then
