"""What can be seen of a service from outside: Prometheus metrics and JSON lines, with no face, name, template or
similarity in any of them.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)

logger = logging.getLogger("steadface.service")


class Metrics:
    """Of one service; `text` is what Prometheus fetches."""

    def __init__(self) -> None:
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
            yield
        finally:
            self.stages.labels(name).observe(perf_counter() - began)

    def watch(self, counts: Callable[[], Mapping[str, tuple[int, int]]]) -> None:
        """`counts` are people and templates by collection, asked for when somebody looks."""
        self._registry.register(_Galleries(counts))

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Galleries(Collector):
    def __init__(self, counts: Callable[[], Mapping[str, tuple[int, int]]]) -> None:
        self._counts = counts

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        people = GaugeMetricFamily("steadface_people", "People enrolled.", labels=["collection"])
        templates = GaugeMetricFamily("steadface_templates", "Templates enrolled.", labels=["collection"])
        for name, (persons, vectors) in self._counts().items():
            people.add_metric([name], persons)
            templates.add_metric([name], vectors)
        yield people
        yield templates


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
