import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from steadface.errors import Conflict, InvalidInput, NotFound, SteadfaceError
from steadface.gallery.enrollment import Enrollee, NotAlike
from steadface.gallery.gallery import Gallery
from steadface.gallery.person import parse_expiry
from steadface.gallery.sealing.keys import keys_folder, new_key, write_key
from steadface.gallery.sealing.transaction import NotEnrolled

from ..rounding import rounding
from .conftest import IN_BOTH, MODEL, OTHER, Clock, files_of, names, rows_of, unit


def sealed_rows(gallery: Gallery) -> list[bytes]:
    """All ciphertext that the gallery holds."""
    with rows_of(gallery) as rows:
        columns = (("sealed", "templates"), ("sealed", "people"), ("secret", "gallery"))
        return [row for what, table in columns for (row,) in rows.connection.execute(f"SELECT {what} FROM {table}")]


def pieces(rows: list[bytes]) -> set[bytes]:
    return {row[start : start + 16] for row in rows for start in range(0, len(row) - 15, 16)}


def test_who_is_enrolled_is_found_first(gallery: Gallery) -> None:
    vectors = unit(6)
    for number in range(3):
        gallery.enroll(f"p{number}", vectors[2 * number : 2 * number + 2])
    found = gallery.search(vectors, 1)
    assert names(found) == [["p0"], ["p0"], ["p1"], ["p1"], ["p2"], ["p2"]]
    assert [one[0].template for one in found] == [1, 2, 3, 4, 5, 6]
    assert all(one[0].similarity == pytest.approx(1, abs=rounding(MODEL.dimension)) for one in found)


def test_candidates_are_distinct_people_by_their_best_template(gallery: Gallery) -> None:
    """One person with so many templates that they fill the nearest places many times over."""
    vectors = unit(80)
    gallery.enroll("many", vectors[:60])
    for number in range(60, 80):
        gallery.enroll(f"p{number}", vectors[number : number + 1])
    probes = unit(5, seed=1)
    cosines = probes @ vectors.T
    owners = np.array(["many"] * 60 + [f"p{number}" for number in range(60, 80)])
    for found, similar in zip(gallery.search(probes, 4), cosines, strict=True):
        best = {name: similar[owners == name].max() for name in set(owners)}
        expected = sorted(best, key=lambda name: -best[name])[:4]
        assert [candidate.person.name for candidate in found] == expected
        assert [c.similarity for c in found] == pytest.approx(
            [best[name] for name in expected], abs=rounding(MODEL.dimension)
        )
        assert all(vectors[c.template - 1] @ probes[0] <= 1.001 for c in found)


def test_a_comparison_with_one_person_looks_at_nobody_else(gallery: Gallery, clock: Clock) -> None:
    vectors = unit(6)
    gallery.enroll("p0", vectors[:3], expires="2031-05-03")
    gallery.enroll("p1", vectors[3:5])
    probes = vectors[2:]
    near = {"abs": rounding(MODEL.dimension)}
    assert gallery.similarities("p0", probes) == pytest.approx((probes @ vectors[:3].T).max(1), **near)
    assert gallery.similarities("p0", probes, template=2) == pytest.approx(probes @ vectors[1], **near)
    with pytest.raises(NotFound, match="template 4"):
        gallery.similarities("p0", probes, template=4)
    with pytest.raises(NotEnrolled):
        gallery.similarities("p2", probes)
    clock.pass_days(2)
    with pytest.raises(Conflict, match="expired"):
        gallery.similarities("p0", probes)


def test_a_search_of_few_finds_few_and_of_nobody_nobody(gallery: Gallery) -> None:
    assert gallery.search(unit(2), 3) == [[], []]
    gallery.enroll("a", unit(3))
    assert [len(one) for one in gallery.search(unit(2), 3)] == [1, 1]


@IN_BOTH
def test_it_is_all_there_when_opened_again(gallery: Gallery, place: str) -> None:
    expires = datetime.fromisoformat("2040-01-01T00:00+02:00")
    made = gallery.enroll("Ünal", unit(2), consent="form 7", expires=expires, notes="by the door")
    with Gallery.open(place, model=MODEL) as again:
        (person,) = again.people()
        assert person == made.person == again.person("Ünal")
        assert (person.name, person.consent, person.expires, person.notes, person.templates) == (
            *("Ünal", "form 7", expires, "by the door"),
            2,
        )
        assert names(again.search(unit(1))) == [["Ünal"]]
        assert (len(again), again.info().people, again.info().templates) == (1, 1, 2)


def test_more_templates_go_to_the_same_person_and_what_is_not_said_stays(gallery: Gallery) -> None:
    first = gallery.enroll("a", unit(1), consent="form 1", notes="n")
    then = gallery.enroll("a", unit(2, seed=1), consent="form 2")
    assert first.templates + then.templates == (1, 2, 3)
    person = gallery.person("a")
    assert (person.id, person.consent, person.notes, person.templates) == (first.person.id, "form 2", "n", 3)
    assert len(gallery) == 1


def test_names_that_look_alike_are_one(gallery: Gallery) -> None:
    gallery.enroll("Zoe\u0301", unit(1))
    assert gallery.person("Zo\u00e9").templates == 1


@pytest.mark.parametrize(
    "name",
    [
        *("", " a", "a\n", "a\0b", "x" * 201, "\ud800", "a\u202eb", "a\u2066b", "a\u200bb", "\ufeffa", "a\u00adb"),
        *("\u200c", "\u200d\u200c", "\u200ca", "a\u200d", "a\u2028b", "a\u2029b", "\u1160", "\u3164", 5, None),
    ],
)
def test_names_that_nobody_can_type_are_refused(gallery: Gallery, name: str) -> None:
    with pytest.raises(SteadfaceError, match=r"is not a name for a person|a name is text"):
        gallery.enroll(name, unit(1))


@pytest.mark.parametrize(
    "name", ["\u0639\u0644\u06cc\u200c\u0631\u0636\u0627", "\u0915\u094d\u200d\u0937", "Jos\u00e9 O'Neil"]
)
def test_names_are_written_as_their_people_write_them(gallery: Gallery, name: str) -> None:
    """Persian with a zero-width non-joiner, Devanagari with a joiner."""
    gallery.enroll(name, unit(1))
    assert names(gallery.search(unit(1))) == [[name]]


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.full((1, 16), np.nan), "vector 1 of a is not a unit vector"),
        (np.vstack([unit(1), 2 * unit(1)]), r"vector 2 of a is not a unit vector \(its length is 2\)"),
        (np.full((1, 16), 3e38), "is not a unit vector"),
        (unit(1, dimension=8), r"have shape \(1, 8\); the gallery takes one or more of 16"),
        (unit(1)[0], r"have shape \(16,\)"),
        (np.empty((0, 16)), r"have shape \(0, 16\)"),
        (np.full((1, 16), 1e300), "is not a unit vector"),
        ("abc", "no array of real numbers"),
        ([[1.0], [1.0, 2.0]], "no array of real numbers"),
        (1j * unit(1), "no array of real numbers"),
        (None, "no array of real numbers"),
    ],
)
def test_what_is_no_template_is_refused(gallery: Gallery, vectors: np.ndarray, said: str) -> None:
    with pytest.raises(SteadfaceError, match=said):
        gallery.enroll("a", vectors)
    assert len(gallery) == 0
    assert gallery.verify_log().entries == 1


@IN_BOTH
def test_many_are_enrolled_together_or_not_at_all(gallery: Gallery) -> None:
    vectors = unit(3)
    broken = [*vectors[:2], 2 * vectors[2]]
    with pytest.raises(SteadfaceError, match="vector 1 of c"):
        gallery.enroll_many(Enrollee(name=n, vectors=v[None]) for n, v in zip("abc", broken, strict=True))
    assert len(gallery) == 0
    done = gallery.enroll_many(Enrollee(name=n, vectors=v[None]) for n, v in zip("aba", vectors, strict=True))
    assert [one.templates for one in done] == [(1,), (2,), (3,)]
    assert [person.templates for person in gallery.people()] == [2, 1]


def test_who_is_removed_is_gone(gallery: Gallery, path: Path) -> None:
    vectors = unit(4)
    gallery.enroll("Removed Person", vectors[:2], consent="a very private consent")
    gallery.enroll("b", vectors[2:])
    assert names(gallery.search(vectors[:1], 2)) == [["Removed Person", "b"]]
    before = pieces(sealed_rows(gallery))
    assert all(piece in files_of(path) for piece in before)
    gallery.remove("Removed Person")
    assert names(gallery.search(vectors[:1], 2)) == [["b"]]
    after, kept = pieces(sealed_rows(gallery)), files_of(path)
    assert len(before - after) > 10
    assert not [piece for piece in before - after if piece in kept]
    with pytest.raises(NotEnrolled, match="'Removed Person' is not enrolled"):
        gallery.remove("Removed Person")


def test_neither_names_nor_templates_are_legible_in_the_file(gallery: Gallery, path: Path) -> None:
    vectors = unit(1)
    gallery.enroll("Somebody Special", vectors, consent="a very private consent", notes="at the door")
    kept = files_of(path)
    for secret in (b"Somebody", b"private", b"at the door", vectors.tobytes()[:8], gallery.key.secret):
        assert secret not in kept


@IN_BOTH
def test_numbers_of_templates_are_never_used_again(gallery: Gallery) -> None:
    assert gallery.enroll("a", unit(3)).templates == (1, 2, 3)
    gallery.remove("a")
    assert gallery.enroll("a", unit(1)).templates == (4,)


@IN_BOTH
def test_consent_that_expired_is_not_found_and_removed_on_demand(gallery: Gallery, clock: Clock) -> None:
    vectors = unit(3)
    for number, days in enumerate((1, 3, None)):
        until = None if days is None else clock.now + timedelta(days=days)
        gallery.enroll(f"p{number}", vectors[number : number + 1], expires=until)
    assert [len(one) for one in gallery.search(vectors, 3)] == [3, 3, 3]
    clock.pass_days(1)
    assert names(gallery.search(vectors[:1], 1)) != [["p0"]]
    assert sorted(names(gallery.search(vectors[:1], 3))[0]) == ["p1", "p2"]
    with pytest.raises(Conflict, match="consent of p0 expired on 2031-05-03"):
        gallery.enroll("p0", vectors[:1], expires=clock.now + timedelta(days=9))
    assert [person.name for person in gallery.expire()] == ["p0"]
    clock.pass_days(5)
    assert names(gallery.search(vectors[:1], 3)) == [["p2"]]
    assert [person.name for person in gallery.expire()] == ["p1"]
    assert gallery.expire() == []
    assert gallery.verify_log().intact


def test_an_expiry_has_a_zone_and_lies_ahead(gallery: Gallery, clock: Clock) -> None:
    with pytest.raises(SteadfaceError, match="names no time zone"):
        gallery.enroll("a", unit(1), expires=datetime(2040, 1, 1))
    with pytest.raises(SteadfaceError, match="has passed"):
        gallery.enroll("a", unit(1), expires=clock.now)


def test_expiries_are_written_as_days_or_times() -> None:
    assert parse_expiry("2031-12-31").isoformat() == "2031-12-31T23:59:59.999999+00:00"
    assert parse_expiry("2031-12-31T18:00+01:00").isoformat() == "2031-12-31T17:00:00+00:00"
    for text in ("2031", "2031-13-01", "2031-12-31T18:00", "soon"):
        with pytest.raises(SteadfaceError, match=f"expiry {text} is not a date"):
            parse_expiry(text)


@pytest.mark.usefixtures("gallery")
def test_another_model_is_refused_by_name(path: Path) -> None:
    with pytest.raises(SteadfaceError, match=r"the model ours .*and this is the model theirs .*gallery re-embed"):
        Gallery.open(path, model=OTHER)
    for other in (replace(MODEL, mirror=False), replace(MODEL, fingerprint="0" * 64)):
        with pytest.raises(SteadfaceError, match="cannot be compared"):
            Gallery.open(path, model=other)
    Gallery.open(path, model=replace(MODEL, name="by another name")).close()


def test_a_key_is_made_where_none_is_given_and_found_again(gallery: Gallery, path: Path) -> None:
    source = Path(gallery.key.source)
    assert source == keys_folder() / f"{gallery.info().id}.key"
    assert path.parent not in source.parents
    Gallery.open(path).close()
    source.unlink()
    with pytest.raises(NotFound, match="none was given"):
        Gallery.open(path)


def test_another_key_is_refused(gallery: Gallery, path: Path, tmp_path: Path) -> None:
    key = write_key(tmp_path / "other.key")
    said = f"is sealed with the key {gallery.key.id}, and .*other.key holds the key {key.id}"
    for wrong in (key, tmp_path / "other.key"):
        with pytest.raises(SteadfaceError, match=said):
            Gallery.open(path, key=wrong)


@pytest.mark.usefixtures("gallery")
def test_a_making_that_fails_leaves_no_key(path: Path) -> None:
    keys = sorted(keys_folder().iterdir())
    with pytest.raises(SteadfaceError, match="there is a file"):
        Gallery.create(path, model=MODEL)
    (path.parent / "file").write_text("")
    with pytest.raises(SteadfaceError, match="cannot make a gallery"):
        Gallery.create(path.parent / "file" / "g.db", model=MODEL)
    assert sorted(keys_folder().iterdir()) == keys


def test_rotation_seals_everything_anew_and_leaves_nothing_of_the_old(gallery: Gallery, path: Path) -> None:
    vectors, old = unit(40), gallery.key
    gallery.enroll_many(Enrollee(name=f"p{n}", vectors=vectors[n : n + 2]) for n in range(0, 40, 2))
    before = names(gallery.search(vectors, 2))
    sealed = sealed_rows(gallery)
    new = gallery.rotate()
    assert names(gallery.search(vectors, 2)) == before
    kept = files_of(path)
    assert not [piece for piece in pieces(sealed) if piece in kept]
    gallery.enroll("late", unit(1, seed=9))
    with pytest.raises(SteadfaceError, match=f"is sealed with the key {new.id}"):
        Gallery.open(path, key=old)
    with Gallery.open(path) as again:
        assert again.key == new
        assert names(again.search(vectors, 2))[:3] == before[:3]
        assert again.verify_log().intact
    with pytest.raises(SteadfaceError, match="present key; give another"):
        gallery.rotate(new)


def test_a_rotation_that_fails_changes_nothing(gallery: Gallery, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery.enroll("a", unit(2))

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("steadface.gallery.storage.sqlite.rows.Rows.write_header", broken)
        with pytest.raises(KeyboardInterrupt):
            gallery.rotate(new_key())
    with Gallery.open(path) as again:
        assert names(again.search(unit(1))) == names(gallery.search(unit(1))) == [["a"]]


def test_who_died_before_clearing_up_is_made_good_by_the_next_writer(
    gallery: Gallery, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.enroll("a", unit(2))
    sealed = sealed_rows(gallery)
    with monkeypatch.context() as patch:
        patch.setattr("steadface.gallery.storage.sqlite.SQLiteStorage.scrub", lambda *_: None)
        gallery.rotate()
    assert all(row[:12] in files_of(path) for row in sealed)
    with Gallery.open(path) as again:
        again.enroll("b", unit(1))
    assert not any(row[:12] in files_of(path) for row in sealed)


@IN_BOTH
def test_other_processes_notice_a_changed_key(gallery: Gallery, place: str) -> None:
    gallery.enroll("a", unit(1))
    with Gallery.open(place) as other:
        gallery.rotate()
        for attempt in (lambda: other.search(unit(1)), lambda: other.enroll("b", unit(1)), other.people):
            with pytest.raises(Conflict, match=r"the key .* was changed"):
                attempt()
    assert len(gallery) == 1


@IN_BOTH
def test_re_embedding_makes_it_a_gallery_of_another_model(gallery: Gallery, place: str) -> None:
    gallery.enroll("a", unit(2))
    gallery.enroll("b", unit(1, seed=1))
    old = gallery.search(unit(1))
    assert names(old) == [["a"]]
    theirs = unit(3, dimension=24)
    with Gallery.open(place) as other:
        renewed, dropped = gallery.re_embed(OTHER, {"a": theirs[:1], "b": theirs[1:]})
        assert [(one.person.name, one.templates) for one in renewed] == [("a", (4,)), ("b", (5, 6))]
        assert dropped == []
        assert names(gallery.search(theirs)) == [["a"], ["b"], ["b"]]
        for attempt in (lambda: other.search(unit(1)), lambda: other.enroll("c", unit(1))):
            with pytest.raises(Conflict, match="templates of the model theirs"):
                attempt()
    with pytest.raises(SteadfaceError, match="have shape"):
        gallery.search(unit(1))
    with Gallery.open(place, model=OTHER) as again:
        assert names(again.search(theirs)) == [["a"], ["b"], ["b"]]
        assert again.verify_log().intact


def test_re_embedding_drops_nobody_unasked(gallery: Gallery, path: Path) -> None:
    for name in "abc":
        gallery.enroll(name, unit(1))
    theirs = {"b": unit(1, dimension=24)}
    with pytest.raises(SteadfaceError, match="2 of 3 people have no images for the new model: a, c; bring theirs"):
        gallery.re_embed(OTHER, theirs)
    with pytest.raises(SteadfaceError, match="not enrolled, and so not to be embedded anew: z"):
        gallery.re_embed(OTHER, theirs | {"z": theirs["b"]}, drop_missing=True)
    with pytest.raises(SteadfaceError, match=r"the vectors of b have shape \(1, 16\)"):
        gallery.re_embed(OTHER, {"b": unit(1)}, drop_missing=True)
    with Gallery.open(path, model=MODEL) as again:
        assert len(again) == 3
    _, dropped = gallery.re_embed(OTHER, theirs, drop_missing=True)
    assert [person.name for person in dropped] == ["a", "c"]
    assert [person.name for person in gallery.people()] == ["b"]
    assert gallery.verify_log().intact


def test_searches_are_logged_only_on_request_and_without_vectors(path: Path) -> None:
    with Gallery.create(path, model=MODEL, log_searches=True) as gallery:
        ada = gallery.enroll("Ada", unit(1)).person
        before = gallery.verify_log().entries
        gallery.search(unit(2), 1)
        assert gallery.verify_log().entries == before + 1
        with rows_of(gallery) as rows:
            last = rows.last_entry()
        assert last is not None
        assert last.details == f'{{"k": 1, "best": ["{ada.id}", "{ada.id}"]}}'
    with Gallery.open(path) as gallery:
        gallery.search(unit(1))
        assert gallery.verify_log().entries == before + 1


def test_the_log_names_nobody(gallery: Gallery) -> None:
    gallery.enroll("Somebody Special", unit(2), consent="private")
    gallery.remove("Somebody Special")
    with rows_of(gallery) as rows:
        entries = list(rows.entries())
    assert [entry.event for entry in entries] == ["create", "enroll", "remove"]
    assert entries[1].person == entries[2].person
    assert "Special" not in str(entries)
    assert "private" not in str(entries)


TAMPERING = {
    "templates of two people swapped": (
        "UPDATE templates SET sealed = (SELECT sealed FROM templates AS t WHERE t.number = 3 - templates.number)",
        "template",
    ),
    "a template given to another": ("UPDATE templates SET person = 2 WHERE number = 1", "template"),
    "names of two people swapped": (
        "UPDATE people SET sealed = (SELECT sealed FROM people AS p WHERE p.number = 3 - people.number)",
        "person",
    ),
    "look-up of a name turned": ("UPDATE people SET tag = sealed WHERE number = 1", "person"),
    "consent prolonged": ("UPDATE people SET expires = '2099' WHERE number = 1", "person"),
}


@IN_BOTH
@pytest.mark.parametrize("how", TAMPERING)
def test_rows_that_were_tampered_with_are_never_used(gallery: Gallery, place: str, how: str) -> None:
    statement, what = TAMPERING[how]
    gallery.enroll("a", unit(1))
    gallery.enroll("b", unit(1, seed=1))
    with rows_of(gallery) as rows:
        rows.connection.execute(statement)
    with Gallery.open(place) as opened:
        with pytest.raises(SteadfaceError, match=r"was changed by other means or is damaged.*restore a backup"):
            opened.search(unit(2), 2)
        assert any(f"a row was edited or moved: {what} " in finding.what for finding in opened.verify_log().findings)


@IN_BOTH
def test_rows_that_were_taken_out_are_missed_by_the_log(gallery: Gallery) -> None:
    gallery.enroll("a", unit(2))
    with rows_of(gallery) as rows:
        rows.connection.execute("DELETE FROM templates WHERE number = 2")
    (finding,) = gallery.verify_log().findings
    assert "1 templates of the log are not in the gallery (2)" in finding.what


@IN_BOTH
def test_a_backup_opens_with_the_same_key(gallery: Gallery, tmp_path: Path) -> None:
    gallery.enroll("a", unit(1))
    gallery.backup(tmp_path / "b.db")
    gallery.remove("a")
    with Gallery.open(tmp_path / "b.db") as copy:
        assert names(copy.search(unit(1))) == [["a"]]
        copy.enroll("b", unit(1))
        assert copy.verify_log().intact


@pytest.mark.parametrize("k", [0, -1, 1.5, "3", True, math.nan])
def test_only_a_number_of_people_is_asked_for(gallery: Gallery, k: int) -> None:
    with pytest.raises(InvalidInput, match="give a whole number of 1 or more"):
        gallery.search(unit(1), k)


def test_no_more_are_found_than_there_are(gallery: Gallery) -> None:
    gallery.enroll("a", unit(1))
    assert names(gallery.search(unit(1), 10**30)) == [["a"]]


def test_somebody_else_under_an_enrolled_name_is_refused_where_a_cosine_is_asked_for(gallery: Gallery) -> None:
    one, other = np.eye(16, dtype=np.float32)[:2]
    near = (one + 0.5 * other) / np.linalg.norm(one + 0.5 * other)
    assert gallery.enroll("dan", one[None], alike=0.3).similarity is None
    entries = gallery.verify_log().entries
    for wrong in (other[None], np.stack([near, other])):
        with pytest.raises(NotAlike, match=r"dan is enrolled already .* 1 template.* is 0.000, .* 0.300 or more"):
            gallery.enroll("dan", wrong, alike=0.3, consent="theirs")
    with pytest.raises(NotAlike):
        gallery.enroll("dan", one[None], alike=float("nan"))
    assert (gallery.person("dan").templates, gallery.person("dan").consent) == (1, None)
    assert gallery.verify_log().entries == entries
    added = gallery.enroll("dan", near[None], alike=0.3)
    assert added.similarity == pytest.approx(2 / 5**0.5, abs=1e-6)
    assert gallery.enroll("dan", other[None]).person.templates == 3, "nobody asked"


def test_one_template_is_removed_and_leaves_no_trace(gallery: Gallery, path: Path) -> None:
    vectors = np.eye(16, dtype=np.float32)[:3]
    gallery.enroll("dan", vectors)
    gallery.enroll("eve", unit(1))
    with rows_of(gallery) as rows:
        (sealed,) = rows.connection.execute("SELECT sealed FROM templates WHERE number = 2").fetchone()
    with Gallery.open(path) as other:
        other.search(vectors)
        assert gallery.remove_template("dan", 2).templates == 2
        assert [one.number for one in other.templates("dan")] == [1, 3]
        assert other.search(vectors[1:2])[0][0].similarity < 0.9, "followers learn of it"
    assert sealed[:12] not in files_of(path)
    for template in (2, 4):
        with pytest.raises(NotFound, match=f"template {template} "):
            gallery.remove_template("dan", template)
    with pytest.raises(Conflict, match="the only one of eve"):
        gallery.remove_template("eve", 4)
    assert gallery.person("eve").templates == 1
    assert gallery.verify_log().intact


def test_templates_tell_when_they_came_and_which_is_odd(gallery: Gallery, clock: Clock) -> None:
    one, other = np.eye(16, dtype=np.float32)[:2]
    gallery.enroll("dan", one[None])
    assert gallery.templates("dan")[0].similarity is None
    first = clock.now
    clock.pass_days(1)
    gallery.enroll("dan", np.stack([one, other]))
    found = gallery.templates("dan")
    assert [(t.number, t.added) for t in found] == [(1, first), (2, clock.now), (3, clock.now)]
    assert [t.similarity for t in found] == pytest.approx([1, 1, 0])


def test_a_new_name_leaves_nothing_of_the_old(gallery: Gallery, path: Path) -> None:
    before = gallery.enroll("old", unit(1), consent="form").person
    gallery.enroll("eve", unit(1, seed=1))
    rows = sealed_rows(gallery)
    with Gallery.open(path) as other:
        other.search(unit(1))
        person = gallery.rename("old", "Zoe\u0301")
        assert names(other.search(unit(1))) == [["Zo\u00e9"]]
    assert (person.id, person.consent, person.templates) == (before.id, "form", 1)
    assert [one.name for one in gallery.people()] == ["Zo\u00e9", "eve"]
    gone = pieces(rows) - pieces(sealed_rows(gallery))
    assert gone
    assert not [piece for piece in gone if piece in files_of(path)]
    with pytest.raises(NotEnrolled):
        gallery.rename("old", "x")
    with pytest.raises(
        SteadfaceError, match=r"eve is enrolled already, so .* merge them with `steadface gallery merge`"
    ):
        gallery.rename("Zo\u00e9", "eve")
    with pytest.raises(SteadfaceError, match="is not a name for a person"):
        gallery.rename("eve", " ")
    entries = gallery.verify_log().entries
    assert gallery.rename("eve", "eve").name == "eve"
    assert gallery.verify_log() == replace(gallery.verify_log(), entries=entries, findings=())


def test_two_names_become_one_person(gallery: Gallery, path: Path, clock: Clock) -> None:
    vectors = np.eye(16, dtype=np.float32)
    soon = clock.now + timedelta(days=2)
    gallery.enroll("dan", vectors[:2], expires=soon, consent="form 1", notes="n")
    kept = gallery.enroll("Daniel", vectors[2:3], consent="form 2").person
    rows = sealed_rows(gallery)
    with Gallery.open(path, clock=clock) as other:
        assert names(other.search(vectors[:3])) == [["dan"], ["dan"], ["Daniel"]]
        with pytest.raises(NotAlike, match=r"dan and Daniel look different: .* is 0.000"):
            gallery.merge("dan", "Daniel", alike=0.3)
        assert len(gallery) == 2
        merged = gallery.merge("dan", "Daniel")
        assert (merged.name, merged.templates, merged.similarity) == ("dan", (4, 5), 0)
        person = gallery.person("Daniel")
        assert person == merged.person
        assert (person.id, person.templates, person.consent, person.notes) == (kept.id, 3, "form 2", "n")
        assert person.expires == soon, "nobody is found for longer than they agreed to"
        assert names(other.search(vectors[:3])) == [["Daniel"]] * 3
        assert len(other) == 1
    assert not [row for row in rows[:2] if row[:12] in files_of(path)]
    assert gallery.verify_log().intact
    with pytest.raises(NotEnrolled, match="'dan' is not enrolled"):
        gallery.merge("dan", "Daniel")
    with pytest.raises(SteadfaceError, match="who is the same; name two people"):
        gallery.merge("Daniel", "Daniel")
    gallery.enroll("eve", vectors[5:6])
    clock.pass_days(3)
    with pytest.raises(SteadfaceError, match="the consent of Daniel expired"):
        gallery.merge("eve", "Daniel")


def test_a_merge_that_fails_changes_nothing(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery.enroll("a", unit(2))
    gallery.enroll("b", unit(1, seed=1))

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("steadface.gallery.sealing.transaction.Writer.put_templates", broken)
        with pytest.raises(KeyboardInterrupt):
            gallery.merge("a", "b")
    assert [(one.name, one.templates) for one in gallery.people()] == [("a", 2), ("b", 1)]
    assert names(gallery.search(unit(1))) == [["a"]]
    assert gallery.verify_log().intact


def test_who_can_be_found_are_all_but_those_who_expired(gallery: Gallery, clock: Clock) -> None:
    assert gallery.findable() == 0
    for number, days in enumerate((1, 3, None)):
        until = None if days is None else clock.now + timedelta(days=days)
        gallery.enroll(f"p{number}", unit(1), expires=until)
    for passing, left in ((0, 3), (1, 2), (2, 1)):
        clock.pass_days(passing)
        assert gallery.findable() == len(gallery.search(unit(1), 9)[0]) == left
    assert len(gallery) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *(("form \udcff", "holds"), ("\x1b[31mred", "holds"), ("a\rb", "holds"), ("\x9b2J", "holds"), ("a\0", "holds")),
        *(("x" * 20_000, "20,000 characters"), (7, "is int"), (b"form", "is bytes")),
    ],
)
def test_a_consent_that_cannot_be_shown_or_written_down_is_refused(gallery: Gallery, text: str, said: str) -> None:
    for what in ("consent", "notes"):
        with pytest.raises(InvalidInput, match=f"the {what} of Ada .*{said}") as told:
            gallery.enroll("Ada", unit(1), **{what: text})
        assert str(told.value).isprintable()
    assert len(gallery) == 0


def test_a_consent_is_kept_as_it_was_written(gallery: Gallery) -> None:
    text = "Formular 7\n\tgez. \u00dcnal \U0001f469\u200d\U0001f4bb \u0645\u0648\u0627\u0641\u0642"
    gallery.enroll("Ada", unit(1), consent=text.replace("\n", "\r\n"), notes=text)
    assert (gallery.person("Ada").consent, gallery.person("Ada").notes) == (text, text)


@pytest.mark.parametrize(
    "expires",
    [
        *("9999-12-31", "9999-12-31T23:59:59.999999+00:00", datetime.max.replace(tzinfo=UTC)),
        *("9999-12-31T23:59-14:00", "0001-01-01", "0001-01-01T00:00+14:00", datetime.min.replace(tzinfo=UTC)),
        *("10000-01-01", "0000-01-01", "-001-01-01", "2031-02-30", "2031-12-31T25:00Z", "\udcff031-12-31", 5, b"2031"),
    ],
)
def test_the_first_and_the_last_years_are_dates_or_refused(gallery: Gallery, path: Path, expires: object) -> None:
    said = ""
    try:
        gallery.enroll("Ada", unit(1), expires=expires)  # type: ignore[arg-type]
    except InvalidInput as error:
        said = str(error)
    assert said.isprintable()
    if said:
        return
    assert str(expires).startswith("9999-12-31")
    assert gallery.findable() == 1
    gallery.export(path.with_name("e.parquet"), plain=True)
    with Gallery.create(path.with_name("other.db"), model=MODEL) as other:
        other.import_(path.with_name("e.parquet"))
        assert other.person("Ada").expires == gallery.person("Ada").expires
