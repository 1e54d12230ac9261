"""Recognisers of any origin as one kind of network: `open_recognizer`."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from steadface.backbones import load_backbone, read_metadata
from steadface.backbones.soundness import (
    DETACHED,
    check_steady,
    digest,
    gradient_fault,
    is_constant,
    noise_for,
    weights_digest,
)
from steadface.backbones.weights import MODULE, find_weights
from steadface.errors import InvalidInput, NotFound, SteadfaceError, Unsupported
from steadface.files import is_name
from steadface.recognizers.adapters import Adapted, BlackBox, Picked, embedding_output, outputs_of, under
from steadface.recognizers.callables import Named, load_named
from steadface.recognizers.convention import ChannelOrder, Convention, Known, Origin, Stated, range_named
from steadface.recognizers.modules import needs_code, with_weights
from steadface.recognizers.network import (
    OpenedRecognizer,
    embedding_size_of,
    fingerprint,
)
from steadface.recognizers.noted import Noted
from steadface.recognizers.probing import PROBED, SIZES

WAYS = "a run folder, a file of weights, an .onnx file, module:function or path/to/file.py:function"


def open_recognizer(
    spec: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    pixel_range: str | None = None,
    channel_order: ChannelOrder | None = None,
    output: str | None = None,
    gradients: bool = True,
) -> OpenedRecognizer:
    """The recogniser that `spec` stands for, on the device it was made on, ready to embed.

    - A run folder, checkpoint or state dict that `load_backbone` knows.
    - `module:function` or `path/to/file.py:function`: a torch module, or a factory of one, taking normalised pixels
      (B, 3, H, W); or a callable (or a factory of one) from uint8 faces (B, H, W, 3) to embeddings (B, D), which has no
      gradients. A module takes the weights of a file (its state dict, or a run folder that was made from it) as
      `module:function@FILE`.
    - An ONNX file; with gradients where its graph converts to torch, otherwise through onnxruntime (see the notes).
      Where no `gradients` are wanted it stays in onnxruntime, and nothing is converted.

    `image_size` (height, width), `pixel_range` (a `PixelRange`, or a formula such as "(x-127.5)/128") and
    `channel_order` state what the recogniser expects; else the file says, or a default holds that probing can judge.
    `output` names one of several outputs of an ONNX file or module (a key, or its place from 0 on), of which else the
    only embedding is taken. Raises SteadfaceError for a spec that names nothing of these, for what fails on two images
    of noise or embeds every image alike, and where nothing tells which output is the embedding.
    """
    stated = Stated(image_size=image_size, pixel_range=pixel_range, channel_order=channel_order)
    stated.over(Convention())  # refuses what cannot be, before anything is loaded
    path = Path(spec)
    if not is_name(str(spec)):
        raise _missing(spec)
    if path.suffix == ".py" and path.is_file():
        raise InvalidInput(f"{path} is a file of code; name a function in it, as in {path}:function")
    if path.exists() and (file := find_weights(path)).suffix == ".onnx":
        return _sound(_open_onnx(file, stated, output, gradients, name=path.resolve().stem))
    if path.exists():
        return _sound(_open_weights(path, stated, output))
    if ":" in str(spec):
        return _open_named(load_named(str(spec)), stated, output)
    raise _missing(spec)


def check_exists(spec: str | Path) -> None:
    """Raises SteadfaceError for a spec that cannot name a recogniser, before anything else is looked for."""
    if not is_name(str(spec)) or (not Path(spec).exists() and ":" not in str(spec)):
        raise _missing(spec)


def _missing(spec: str | Path) -> SteadfaceError:
    return NotFound(f"{spec} does not exist; give {WAYS}")


def _open_weights(path: Path, stated: Stated, output: str | None) -> OpenedRecognizer:
    _no_output(str(path), output)
    if MODULE in read_metadata(path):
        raise needs_code(path)
    backbone = load_backbone(path, image_size=stated.image_size)
    ours = "architecture" in read_metadata(path)
    told: Origin = "file" if ours else "default"  # a bare state dict does not say how its pixels were prepared
    architecture = backbone.architecture
    convention = stated.over(
        Convention(
            size=backbone.image_size,
            pixel_range=range_named(architecture.mean, architecture.std),
            known=Known(size="file", pixel_range=told, channel_order=told),
        )
    )
    network, content = under(backbone, convention), weights_digest(backbone)
    return OpenedRecognizer(
        network=network,
        name=path.resolve().stem,
        fingerprint=fingerprint(content, convention),
        content=content,
        convention=convention,
        notes=backbone.notes,
        path=str(path),
        embedding_size=embedding_size_of(network, str(path)),
    )


def _open_named(named: Named, stated: Stated, output: str | None) -> OpenedRecognizer:
    if isinstance(named.found, nn.Module):
        module, noted = named.found, None
        if named.weights is not None:
            module, noted = with_weights(module, named.weights, named.spec)
        return _sound(_open_module(named, module, stated, output, noted))
    if named.weights is not None:
        raise Unsupported(f"{named.spec}: a function has no weights to be given; name a torch module, or one's factory")
    _no_output(named.spec, output)
    return _sound(_open_service(named, named.found, stated))


def _open_module(
    named: Named, module: nn.Module, stated: Stated, output: str | None, noted: Noted | None
) -> OpenedRecognizer:
    module.eval()
    spec = named.spec
    unknown = Convention(known=Known(size="default", pixel_range="default", channel_order="default"))
    convention = stated.over(unknown if noted is None else noted.convention)
    sizes = SIZES if stated.image_size is None and noted is None else ()
    output = output or (None if noted is None else noted.output)
    network, size, taken = _at_a_size_that_runs(module, convention, spec, sizes, output)
    notes = [f"{spec}: the fingerprint covers its weights and {named.seen}; code imported from elsewhere is unknown"]
    if (gradient_fault(network, noise_for(network)) or "").startswith(DETACHED):
        network.differentiable = False
        notes.append(f"{spec}: no gradient reaches the images, so that only attacks without gradients are run")
    which = [] if taken in (None, "0") else [taken.encode()]
    content = digest([named.function, weights_digest(module).encode(), named.source or b"", *which])
    return OpenedRecognizer(
        network=network,
        name=named.name,
        fingerprint=fingerprint(content, network.convention),
        content=content,
        convention=network.convention,
        notes=tuple(notes),
        path=spec,
        embedding_size=size,
        output=taken,
    )


def _open_service(named: Named, service: Callable[..., object], stated: Stated) -> OpenedRecognizer:
    spec = named.spec
    if stated.pixel_range not in (None, "0..255"):
        raise InvalidInput(
            f"pixel_range {stated.pixel_range} cannot be stated for {spec}: a function is given uint8 faces in 0..255"
        )
    convention = stated.over(
        Convention(pixel_range="0..255", known=Known(size="default", pixel_range="file", channel_order="default"))
    )
    network, content = BlackBox(service, convention, name=spec), digest([named.function, named.source or b""])
    return OpenedRecognizer(
        network=network,
        name=named.name,
        fingerprint=fingerprint(content, convention),
        content=content,
        convention=convention,
        notes=(
            f"{spec}: a function without gradients, so that only attacks without gradients are run",
            f"{spec}: the fingerprint covers {named.seen}; what the function calls, a service perhaps, is unknown",
        ),
        path=spec,
        embedding_size=embedding_size_of(network, spec),
    )


def _open_onnx(path: Path, stated: Stated, output: str | None, gradients: bool, *, name: str) -> OpenedRecognizer:
    # Importing these takes as long as all the rest, and most recognisers are no ONNX files.
    from steadface.recognizers.onnx.pixels import convention_of
    from steadface.recognizers.onnx.read import read_onnx
    from steadface.recognizers.onnx.runtime import network_of

    file = read_onnx(path)
    convention = stated.over(convention_of(file))
    if file.size is not None and convention.size != file.size:
        height, width = file.size
        raise InvalidInput(
            f"image_size {convention.size} does not fit {path}, whose input is {height} x {width}; leave it out"
        )
    if file.dtype == "uint8" and convention.pixel_range != "0..255":
        raise InvalidInput(f"pixel_range {convention.pixel_range} does not fit {path}, which takes uint8; leave it out")
    network, taken, notes = network_of(file, convention, output=output, gradients=gradients)
    content = file.taking(taken).content
    return OpenedRecognizer(
        network=network,
        name=name,
        fingerprint=fingerprint(content, convention),
        content=content,
        convention=convention,
        notes=notes,
        path=str(path),
        embedding_size=embedding_size_of(network, str(path)),
        output=taken if len(file.outputs) > 1 else None,
    )


def _at_a_size_that_runs(
    module: nn.Module,
    convention: Convention,
    name: str,
    sizes: tuple[tuple[int, int], ...],
    output: str | None,
) -> tuple[Adapted, int, str | None]:
    """The module at the convention's size or the first of `sizes` that it takes, its embedding size, and which of its
    outputs is taken where there are several.
    """
    tried = [convention]
    tried += [convention.changed(size=size, origin="probed") for size in sizes if size != convention.size]
    failures = []
    for one in tried:
        try:
            core, taken = _one_output(module, one, name, output)
            network = Adapted(core, one, name=name).eval()
            return network, embedding_size_of(network, name), taken
        except SteadfaceError as error:
            failures.append(error)
    raise failures[0]


def _one_output(
    module: nn.Module, convention: Convention, name: str, output: str | None
) -> tuple[nn.Module, str | None]:
    """The module, or where it has several outputs one of them, and which."""
    parameter = next(module.parameters(), torch.empty(0))
    noise = torch.rand((2, 3, *convention.size), generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            answer = module(noise.to(parameter))
    except Exception:  # whatever somebody's module raises: it is said where the embedding's size is looked for
        return module, None
    if not isinstance(answer, Mapping | tuple | list):
        _no_output(name, output)
        return module, None
    shapes = {key: tuple(value.shape) for key, value in outputs_of(answer).items() if isinstance(value, Tensor)}
    taken = embedding_output(name, shapes, len(noise), output)
    return Picked(module, taken), taken if len(shapes) > 1 else None


def _no_output(name: str, output: str | None) -> None:
    if output is not None:
        raise NotFound(f"{name} has one output, and no {output!r}; leave --output away")


def _sound(opened: OpenedRecognizer) -> OpenedRecognizer:
    """Raises SteadfaceError for a network that does not behave like a recogniser (`backbones/soundness.py`), whichever
    range its pixels are taken for.
    """
    fault, convention = _fault(opened.network, str(opened.path)), opened.convention
    if fault is None:
        return opened
    for name in PROBED if convention.known.pixel_range == "default" else ():
        # In a range that it is not made for a good network may be blind.
        with suppress(SteadfaceError):  # a backbone has no range of its own for each colour
            if _fault(under(opened.network, convention.changed(pixel_range=name)), str(opened.path)) is None:
                return opened
    raise fault


def _fault(network: nn.Module, name: str) -> SteadfaceError | None:
    try:
        check_steady(network, noise_for(network), name)
    except SteadfaceError as error:
        return error
    if isinstance(network, BlackBox) or not is_constant(network):
        return None  # a service may say of all that is no face that there is none
    return InvalidInput(
        f"{name} gives one and the same embedding for every image: its weights are all zero or damaged, or it is not a "
        "recogniser; use another file"
    )
