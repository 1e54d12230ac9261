"""Requests and their stages as spans, with nothing in them that says whom they were about."""

import pytest

from steadface.service.collections import Collections, TimedEmbedder
from steadface.service.observation import Metrics, Traces

from .conftest import Sat

sdk = pytest.importorskip("opentelemetry.sdk.trace.export")
memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")


def test_a_request_is_a_span_with_its_stages_in_it(
    sit: Sat, pngs: list[list[bytes]], collections: tuple[Collections, Metrics], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = memory.InMemorySpanExporter()
    metrics = Metrics(Traces("http://127.0.0.1:9", processor=sdk.SimpleSpanProcessor(kept)))
    recognizer = collections[0].get(None).recognizer
    timed = recognizer.embedder
    assert isinstance(timed, TimedEmbedder)
    monkeypatch.setattr(recognizer, "embedder", TimedEmbedder(timed.embedder, metrics))
    desk = sit(metrics=metrics)
    desk.enroll("Ada Lovelace", pngs[0][0])
    kept.clear()
    parent = "0af7651916cd43dd8448eb211c80319c"
    said = desk.identify(pngs[0][0], headers={"traceparent": f"00-{parent}-b7ad6b7169203331-01"})
    spans = {span.name: span for span in kept.get_finished_spans()}
    assert spans.keys() == {"decode", "embed", "POST /v1/identify"}
    request = spans["POST /v1/identify"]
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["steadface.request"] == said.headers["x-request-id"]
    for span in spans.values():
        assert f"{span.context.trace_id:032x}" == parent
        assert "Ada" not in str(span.attributes)
        assert span is request or span.parent.span_id == request.context.span_id
