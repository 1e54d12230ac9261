"""`steadface serve`: recognition over HTTP."""

import logging
import sys
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from steadface.cli.console import console, say_warning
from steadface.cli.options import (
    BackendOption,
    ContractOption,
    DetectorOption,
    GuardOption,
    IndexOption,
    KeyOption,
    OutputOption,
)
from steadface.errors import InvalidInput, Unsupported
from steadface.signals import INTERRUPTED

if TYPE_CHECKING:
    from steadface.service.collections import Place


def serve_recognition(
    model: Annotated[
        str | None, typer.Option("--model", help="A run folder, a file of weights, an .onnx file or module:function.")
    ] = None,
    gallery: Annotated[
        str | None,
        typer.Option(
            "--gallery",
            metavar="PLACE",
            help="The gallery: a file, or postgresql://USER@HOST/DATABASE; made if it is not there.",
        ),
    ] = None,
    key: KeyOption = None,
    index: IndexOption = "exact",
    collections: Annotated[
        Path | None,
        typer.Option(help="A YAML file of several collections, `name: {model: ..., gallery: ..., key: ...}`, instead."),
    ] = None,
    keys: Annotated[Path | None, typer.Option("--keys", help="The file of API keys (`steadface keys make`).")] = None,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen at.")] = 8000,
    certificate: Annotated[Path | None, typer.Option(help="The certificate for TLS, PEM.")] = None,
    private_key: Annotated[Path | None, typer.Option(help="The private key of the certificate, PEM.")] = None,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="A service to try, of synthetic faces, kept in --demo-folder."),
    ] = False,
    demo_folder: Annotated[Path, typer.Option(help="Where the demonstration's model and people are kept.")] = Path(
        "demo"
    ),
    detector: DetectorOption = None,
    guard: GuardOption = None,
    contract: ContractOption = None,
    output: OutputOption = None,
    backend: BackendOption = "auto",
    days: Annotated[float | None, typer.Option(min=0.001, help="How long people stay enrolled, at most.")] = None,
    staleness: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="How old a state of the gallery a search may answer from, in seconds; 0 asks it before each search. "
            "Without this 1 in a database and 0 in a file.",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="Holds this share of the people alone, such as 2/4, for a node that asks all shares."),
    ] = None,
    nodes: Annotated[
        list[str] | None,
        typer.Option("--node", help="The address of a node that holds a shard, http://HOST:PORT; once for each shard."),
    ] = None,
    nodes_key: Annotated[
        Path | None, typer.Option("--nodes-key", help="File with the API key for the nodes, of the scope shard.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Requests at work at once.")] = 16,
    waiting: Annotated[int, typer.Option(min=0, max=4096, help="Requests that wait; more are told to come back.")] = 64,
    webhook: Annotated[
        str | None, typer.Option(help="An address that is told of strangers and of people who are gone.")
    ] = None,
    webhook_secret_file: Annotated[
        Path | None, typer.Option(help="File with the secret that what is sent to --webhook is signed with.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=256, help="Faces that go through the model at once, at most.")] = 64,
    bench_model: Annotated[
        str | None, typer.Option(help="A second model that the page's attack bench attacks beside the served one.")
    ] = None,
    traces: Annotated[
        str | None, typer.Option(help="An OpenTelemetry collector that gets traces, http://127.0.0.1:4318/v1/traces.")
    ] = None,
    log: Annotated[
        Literal["json", "none"], typer.Option(help="One line of JSON about every request, or none.")
    ] = "json",
) -> None:
    """Recognise over **HTTP**: verify, identify and enrol, with API keys, limits and metrics.

    Without `--keys` it listens on this machine alone, and everybody on it may do everything. With `--demo` it needs no
    model: one is trained on synthetic faces, once, in some minutes.
    """
    try:
        from steadface.service.admission import Doors
        from steadface.service.application import Service, application
        from steadface.service.bench import Bench, second_model
        from steadface.service.collections import DEFAULT, Place, opened, read_places
        from steadface.service.keys import Keys
        from steadface.service.observation import JsonLines, Metrics, Traces
        from steadface.service.server import Address, listening, run
        from steadface.workflows.webhook import opening
    except ImportError as error:
        raise Unsupported(f"a service needs the package {error.name}: pip install 'steadface[serve]'") from None

    address = Address(host=host, port=port, certificate=certificate, private_key=private_key)
    if keys is None and not address.on_loopback:
        raise InvalidInput(
            f"without API keys everybody who reaches {host} could do everything: make some (`steadface keys make`) and "
            "give their file with --keys, or listen at 127.0.0.1"
        )
    if sum((model is not None, collections is not None, demo)) != 1:
        raise InvalidInput("give one of --model (with a --gallery), a file of --collections, and --demo")
    held = None if keys is None else Keys(keys)
    if demo:
        places = {DEFAULT: _demonstration(demo_folder)}
    elif collections is not None:
        places = read_places(collections)
    else:
        assert model is not None
        place = Place(
            model=model,
            gallery=gallery,
            key=key,
            index=index,
            contract=contract,
            detector=detector,
            guard=guard,
            output=output,
            backend=backend,
            days=days,
            staleness=staleness,
            shard=shard,
            nodes=tuple(nodes or ()),
            nodes_key=nodes_key,
        )
        places = {DEFAULT: place}
    open_webhook = opening(webhook, webhook_secret_file)
    _log_as(JsonLines() if log == "json" else None)
    metrics = Metrics(None if traces is None else Traces(traces))
    bench = Bench(second=None if bench_model is None else second_model(bench_model))
    with (
        listening(address) as here,
        opened(places, metrics, batch=batch) as found,
        closing(open_webhook()) if open_webhook is not None else nullcontext() as letters,
        nullcontext() if metrics.traces is None else closing(metrics.traces),
    ):
        service = Service(
            collections=found,
            keys=held,
            metrics=metrics,
            doors=Doors(workers=workers, waiting=waiting),
            webhook=letters,
            bench=bench,
        )
        if held is None:
            say_warning("there are no API keys: whoever uses this machine may do everything; nobody else reaches it")
        console.print(f"recognising at {address.url}; Ctrl-C stops", soft_wrap=True)
        if demo:
            console.print(f"pictures to try lie in {demo_folder / 'pictures'}", soft_wrap=True)
        sys.stdout.flush()
        run(application(service), address, here)


def _demonstration(folder: Path) -> "Place":
    from steadface.cli.console import training_bar
    from steadface.service.demonstration import demonstration, needs_training

    if needs_training(folder):
        say_warning("the demonstration's model is trained first, once: four to eight minutes on two cores")
    with training_bar("gated") as observe:
        place = demonstration(folder, observe)
    if place is None:
        raise typer.Exit(INTERRUPTED)
    return place


def _log_as(lines: logging.Formatter | None) -> None:
    handler: logging.Handler = logging.NullHandler() if lines is None else logging.StreamHandler(sys.stderr)
    handler.setFormatter(lines)
    for name, level in (
        ("steadface.service", logging.INFO),
        ("uvicorn", logging.ERROR),
        ("python_multipart", logging.ERROR),
    ):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.setLevel(level)
        logger.addHandler(handler)
