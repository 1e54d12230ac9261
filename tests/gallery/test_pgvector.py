"""The index in PostgreSQL, on a server that has the extension pgvector; the others say that it is missing."""

from dataclasses import replace

import numpy as np
import pytest

from steadface.errors import Conflict, InvalidInput, SteadfaceError, Unavailable, Unsupported
from steadface.gallery.gallery import Gallery
from steadface.gallery.index.address import index_at
from steadface.gallery.index.comparison import Compared
from steadface.gallery.index.engine import Mark
from steadface.gallery.index.exact import FlatIndex
from steadface.gallery.storage import ModelIdentity

from ..rounding import rounding
from .conftest import MODEL, names, unit

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'steadface[postgres]'")

A_MARK = Mark(gallery="ab" * 16, sequence=7, head="cd" * 32, template=40)


def opened(address, words="", model=MODEL):
    return index_at(address + words)["engine"](model)


@pytest.fixture(scope="module")
def with_vectors(postgres):
    """Makes addresses of schemas in a database with the extension."""
    if not postgres.sql("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"):
        pytest.skip("the server has no pgvector: apt-get install postgresql-15-pgvector, say")
    postgres.sql("CREATE EXTENSION IF NOT EXISTS vector")
    return postgres.address


@pytest.mark.parametrize("words", ["", "&index=hnsw"])
def test_it_finds_what_the_exact_index_finds_through_all_changes(with_vectors, words):
    address, keys = with_vectors(), np.arange(1, 151)
    templates, probes = unit(150), unit(5, seed=1)
    exact, index = FlatIndex(MODEL.dimension), opened(address, words)
    for either in (exact, index):
        either.add(keys, templates)
        either.add(keys[:50], templates[50:100])
        either.remove(keys[100:120])
        either.remove(keys[100:120])
    assert len(index) == len(exact) == 130
    found, wanted = index.search(probes, 5), exact.search(probes, 5)
    np.testing.assert_allclose(found.similarities, wanted.similarities, atol=rounding(MODEL.dimension))
    every = [np.sort(either.search(probes, 200).keys) for either in (index, exact)]
    np.testing.assert_array_equal(*every)
    held, vectors = index.within(90, 125)
    np.testing.assert_array_equal(held, [*range(90, 101), *range(121, 126)])
    np.testing.assert_array_equal(vectors, templates[held - 1])
    assert sorted(index.outside(148, 9)) == [149, 150]
    index.put_mark(replace(A_MARK, sequence=1))
    index.put_mark(A_MARK)
    index.close()
    again = opened(address, words)
    assert (again.mark(), len(again)) == (A_MARK, 130)
    again.close()


def test_a_gallery_is_searched_and_checked_through_it(with_vectors, postgres, path):
    address = with_vectors()
    place = index_at(address + "&index=hnsw")
    with Gallery.create(path, model=MODEL, **place) as one, Gallery.open(path, **place) as other:
        one.enroll("a", unit(3))
        one.enroll("b", unit(2, seed=1))
        assert names(other.search(unit(1), 2)) == [["a", "b"]]
        one.remove("a")
        assert names(other.search(unit(1), 2)) == [["b"]]
        assert one.check_index() == Compared(templates=2)
        postgres.sql(f"DELETE FROM {address.partition('schema=')[2]}.vectors WHERE number = 4")
        assert one.check_index(mend=True) == Compared(templates=2, missing=1)
        assert one.check_index() == Compared(templates=2)
        postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        assert names(other.search(unit(1), 2)) == [["b"]], "a connection that was lost is made anew"


def test_what_was_made_for_another_model_is_refused(with_vectors):
    address = with_vectors()
    opened(address).close()
    for other in (replace(MODEL, fingerprint="cd" * 32), replace(MODEL, dimension=8)):
        with pytest.raises(Conflict, match="holds other vectors"):
            opened(address, model=other)


def test_tables_of_somebody_else_are_left_alone(with_vectors, postgres):
    address = with_vectors()
    schema = address.partition("schema=")[2]
    postgres.sql(f"CREATE SCHEMA {schema}", f"CREATE TABLE {schema}.vectors (number bigint, vector text)")
    with pytest.raises(SteadfaceError, match="the index postgresql://"):
        opened(address)
    assert postgres.sql(f"SELECT count(*) FROM {schema}.vectors") == [(0,)]


def test_a_server_without_the_extension_is_told(postgres):
    with pytest.raises(Unsupported, match="CREATE EXTENSION vector"):
        opened(postgres.address().replace("/postgres?", "/template1?"))


def test_nobody_there_is_said_with_the_address():
    with pytest.raises(Unavailable, match=r"the index postgresql://u@127.0.0.1:1/d\?schema=steadface_index: "):
        opened("postgresql://u:sesame@127.0.0.1:1/d")


@pytest.mark.parametrize(
    ("dimension", "words"), [(2001, "index=hnsw"), (4001, "index=hnsw&half=yes"), (16_001, "half=yes")]
)
def test_more_numbers_than_pgvector_takes_are_refused_before_anything_is_asked(dimension, words):
    model = ModelIdentity(fingerprint="ab" * 32, dimension=dimension, mirror=True)
    with pytest.raises(InvalidInput, match="numbers of a vector at most"):
        opened(f"postgresql://127.0.0.1:1/d?{words}", model=model)
