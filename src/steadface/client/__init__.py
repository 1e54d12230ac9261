"""A client of a service that `steadface serve` runs, for small programs: nothing of the recogniser is imported.

    from steadface.client import Client

    with Client("https://faces.example.org", key=key) as faces:
        print(faces.verify("a.jpg", "b.jpg", fmr=1e-3).match)

`AsyncClient` has the same methods, to be awaited. It needs httpx: `pip install 'steadface[client]'`.
"""

from steadface.client.answers import (
    Answer,
    ApiKey,
    Candidate,
    Collection,
    Detection,
    Embeddings,
    Enrolment,
    FaceSeen,
    Identification,
    Log,
    LogEntry,
    Model,
    Person,
    Receipt,
    Verification,
)
from steadface.client.clients import AsyncClient, Client
from steadface.client.problems import Refused, TooOften
from steadface.client.retries import Retries

__all__ = [
    "Answer",
    "ApiKey",
    "AsyncClient",
    "Candidate",
    "Client",
    "Collection",
    "Detection",
    "Embeddings",
    "Enrolment",
    "FaceSeen",
    "Identification",
    "Log",
    "LogEntry",
    "Model",
    "Person",
    "Receipt",
    "Refused",
    "Retries",
    "TooOften",
    "Verification",
]
