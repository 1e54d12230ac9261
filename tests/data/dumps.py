"""Dumps of a CompreFace's database as `pg_dump` writes them, in its order: pictures before whom they show."""

from collections.abc import Mapping, Sequence
from uuid import UUID

HEAD = """--
-- PostgreSQL database dump
--

SET statement_timeout = 0;
SET client_encoding = 'UTF8';

CREATE TABLE public.img (
    id uuid NOT NULL,
    content bytea NOT NULL
);

"""


def block(table: str, columns: str, rows: Sequence[Sequence[str]]) -> str:
    lines = "".join("\t".join(row) + "\n" for row in rows)
    return f"COPY public.{table} ({columns}) FROM stdin;\n{lines}\\.\n\n\n"


def number(value: int) -> str:
    return str(UUID(int=value))


def escaped(data: bytes) -> str:
    return f"\\\\x{data.hex()}"


def dump(services: Mapping[str, Mapping[str, Sequence[bytes | None]]]) -> str:
    """Of the pictures of subjects of services; None is an example without a picture."""
    embeddings, pictures, models, subjects = [], [], [], []
    for service, people in services.items():
        models.append((str(len(models) + 1), service, number(len(models)), "1", f"key-{service}", "R"))
        for name, several in people.items():
            subjects.append((number(1000 + len(subjects)), f"key-{service}", name))
            for data in several:
                identity = number(2000 + len(pictures)) if data is not None else "\\N"
                if data is not None:
                    pictures.append((identity, escaped(data)))
                embeddings.append(
                    (number(len(embeddings)), subjects[-1][0], "{0.1,-0.2}", "facenet.Calculator", identity)
                )
    return (
        HEAD
        + block("app", "id, name, guid, api_key", [("1", "a\\tb", number(1), "k")])
        + block("embedding", "id, subject_id, embedding, calculator, img_id", embeddings)
        + block("img", "id, content", pictures)
        + block("model", "id, name, guid, app_id, api_key, type", models)
        + block("subject", "id, api_key, subject_name", subjects)
        + "ALTER TABLE ONLY public.img\n    ADD CONSTRAINT pk_img PRIMARY KEY (id);\n"
    )
