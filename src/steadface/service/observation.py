"""What can be seen of a service from outside: Prometheus metrics, JSON lines and, where they are wished for, traces of
OpenTelemetry, with no face, name, template or similarity in any of them.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from steadface.errors import Unsupported

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Of a gallery: how many `people` and `templates`, and the `age` in seconds of what its searches answer from."""

    people: int
    templates: int
    age: float


class Metrics:
    """Of one service; `text` is what Prometheus fetches. Requests and stages are also spans of `traces`, if given."""

    def __init__(self, traces: "Traces | None" = None) -> None:
        self.traces = traces
        self._registry = CollectorRegistry()
        given: dict[str, Any] = {"namespace": "steadface", "registry": self._registry}
        self.requests = Counter(
            "requests", "Requests by route, method and status.", ["route", "method", "status"], **given
        )
        self.seconds = Histogram("request_seconds", "From first to last byte.", ["route"], buckets=SECONDS, **given)
        self.stages = Histogram("stage_seconds", "Parts of the work.", ["stage"], buckets=SECONDS, **given)
        self.batches = Histogram("batch_faces", "Faces that went through the model at once.", buckets=BATCHES, **given)
        self.refusals = Counter("refusals", "Requests that were not let in, by why.", ["why"], **given)
        self.inside = Gauge("requests_inside", "Requests at work or waiting.", **given)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = perf_counter()
        try:
            with nullcontext() if self.traces is None else self.traces.span(name):
                yield
        finally:
            self.stages.labels(name).observe(perf_counter() - began)

    def watch(self, watched: Callable[[], Iterable[tuple[str, Watched | None]]]) -> None:
        """`watched` tells of the gallery of each collection, and is asked when somebody looks."""
        self._registry.register(_Galleries(watched))

    def text(self) -> bytes:
        return generate_latest(self._registry)


class Traces:
    """Spans for a collector of OpenTelemetry at an address (OTLP over HTTP, e.g. http://127.0.0.1:4318/v1/traces); or
    for another `processor`. A request goes on with the trace that its `traceparent` names.

    Raises Unsupported where the packages of OpenTelemetry are missing.
    """

    def __init__(self, address: str, processor: Any = None) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise Unsupported(f"traces need the package {error.name}: pip install 'steadface[traces]'") from None
        self._provider = TracerProvider(resource=Resource.create({"service.name": "steadface"}))
        self._provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter(endpoint=address)))
        self._tracer = self._provider.get_tracer("steadface.service")

    def span(self, name: str) -> AbstractContextManager[Any]:
        """Of a part of the work, within whatever span there is."""
        return self._tracer.start_as_current_span(name, record_exception=False)  # whose words may hold anything

    @contextmanager
    def request(self, headers: Mapping[str, str]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Of a request; what is yielded is given the facts of it once they are known."""
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        parent = extract({name: value for name, value in headers.items() if name == "traceparent"})
        with self._tracer.start_as_current_span(
            "request", context=parent, kind=SpanKind.SERVER, record_exception=False
        ) as span:

            def tell(facts: Mapping[str, Any]) -> None:
                span.update_name(f"{facts['method']} {facts['route']}")
                span.set_attribute("http.request.method", facts["method"])
                span.set_attribute("http.route", facts["route"])
                span.set_attribute("http.response.status_code", facts["status"])
                span.set_attribute("steadface.request", facts["request"])

            yield tell

    def close(self) -> None:
        """Sends what has not been sent."""
        self._provider.shutdown()


class _Galleries(Collector):
    def __init__(self, watched: Callable[[], Iterable[tuple[str, Watched | None]]]) -> None:
        self._watched = watched

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        told = {
            "people": ("people", "People enrolled."),
            "templates": ("templates", "Templates enrolled."),
            "age": ("gallery_age_seconds", "Since the state that searches answer from was certainly the newest."),
        }
        ready = GaugeMetricFamily("steadface_gallery_ready", "Whether searches are answered.", labels=["collection"])
        others = {
            what: GaugeMetricFamily(f"steadface_{name}", words, labels=["collection"])
            for what, (name, words) in told.items()
        }
        for name, one in self._watched():
            ready.add_metric([name], one is not None)
            for what, metric in others.items() if one is not None else ():
                metric.add_metric([name], getattr(one, what))
        yield from (ready, *others.values())


class JsonLines(logging.Formatter):
    """A log record as one line of JSON; what a request says of itself is in `facts`."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        return json.dumps(told)
