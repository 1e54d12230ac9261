"""What is asked for again, under the same key, is told and not done again, whoever asks and whatever came between."""

from pathlib import Path

import pytest

from steadface.errors import NotFound
from steadface.gallery.enrollment import Enrollee, NotAlike
from steadface.gallery.gallery import Gallery
from steadface.gallery.person import PersonId
from steadface.gallery.requests import REMEMBERED, Request, RequestReused
from steadface.gallery.sealing.transaction import NotEnrolled

from .conftest import IN_BOTH, Clock, files_of, unit

ASKED = Request(key="0b6c-first", content="ada, a picture")


def test_a_request_is_done_once(gallery: Gallery) -> None:
    first = gallery.enroll("Ada", unit(1), request=ASKED)
    again = gallery.enroll("Ada", unit(1), request=ASKED)
    assert (first.repeated, again.repeated) == (False, True)
    assert (again.person.id, again.templates) == (first.person.id, first.templates)
    assert gallery.person("Ada").templates == 1
    assert gallery.done(ASKED) == again
    assert gallery.done(Request(key="another", content=ASKED.content)) is None
    assert gallery.enroll("Ada", unit(1)).templates == (2,), "without a request it is done each time"


@IN_BOTH
def test_another_process_and_a_later_one_know_it_too(gallery: Gallery, place: str, clock: Clock) -> None:
    with Gallery.open(place, clock=clock) as other:
        assert other.done(ASKED) is None
        gallery.enroll("Eve", unit(1, seed=2))
        done = gallery.enroll("Ada", unit(1), request=ASKED)
        assert other.enroll("Ada", unit(1), request=ASKED).templates == done.templates
    with Gallery.open(place, clock=clock) as later:
        assert later.enroll("Ada", unit(1), request=ASKED).repeated
    assert gallery.person("Ada").templates == 1
    assert gallery.verify_log().intact


def test_what_came_to_nothing_was_not_done(gallery: Gallery) -> None:
    """Of several who are enrolled at once the last is refused, and with them the others."""
    gallery.enroll("Eve", unit(1))
    ada = Enrollee(name="Ada", vectors=unit(1), request=ASKED)
    eve = Enrollee(name="Eve", vectors=-unit(1), alike=0.5, request=Request(key="of eve", content=""))
    with pytest.raises(NotAlike):
        gallery.enroll_many([ada, eve])
    assert [one.repeated for one in gallery.enroll_many([ada, ada])] == [False, True]
    assert gallery.enroll("Ada", unit(1), request=ASKED).repeated
    assert gallery.person("Ada").templates == 1


def test_its_key_stands_for_that_request_alone(gallery: Gallery) -> None:
    gallery.enroll("Ada", unit(1), request=ASKED)
    with pytest.raises(RequestReused, match="used before"):
        gallery.enroll("Eve", unit(1, seed=2), request=Request(key=ASKED.key, content="eve, a picture"))
    assert len(gallery) == 1


def test_whoever_was_removed_is_not_enrolled_by_an_old_request(gallery: Gallery) -> None:
    gallery.enroll("Ada", unit(1), request=ASKED)
    gallery.remove("Ada")
    with pytest.raises(NotEnrolled, match="removed since"):
        gallery.enroll("Ada", unit(1), request=ASKED)


def test_it_is_remembered_for_a_day_and_by_those_who_open_the_gallery_later(
    gallery: Gallery, path: Path, clock: Clock
) -> None:
    for number in range(5):
        gallery.enroll(f"p{number}", unit(1, seed=number), request=Request(key=f"{number}", content=""))
        clock.pass_days(0.3)
    for opened in (gallery, Gallery.open(path, clock=clock)):
        known = [opened.done(Request(key=f"{number}", content="")) is not None for number in range(5)]
        assert known == [(5 - number) * 0.3 <= REMEMBERED.days for number in range(5)]
    opened.close()


def test_what_is_kept_tells_nothing_of_it(gallery: Gallery, path: Path) -> None:
    gallery.enroll("Ada", unit(1), request=ASKED)
    kept = files_of(path)
    assert ASKED.key.encode() not in kept
    assert ASKED.content.encode() not in kept


def test_people_are_shown_page_by_page_and_known_by_their_ids(gallery: Gallery) -> None:
    for number in range(5):
        gallery.enroll(f"p{number}", unit(1, seed=number))
    first = gallery.page(most=2)
    second = gallery.page(after=first[-1].number, most=2)
    assert [person.name for person in (*first, *second)] == ["p0", "p1", "p2", "p3"]
    known = PersonId(first[1].id)
    assert gallery.person(known).name == "p1"
    assert gallery.rename(known, "q").id == known
    gallery.remove(known)
    with pytest.raises(NotEnrolled):
        gallery.person(known)
    with pytest.raises(NotEnrolled):
        gallery.person(PersonId("p3"))


def test_a_removal_has_a_receipt_which_the_log_confirms(gallery: Gallery) -> None:
    ada = gallery.enroll("Ada", unit(1)).person
    with pytest.raises(NotFound, match="does not tell"):
        gallery.receipt(PersonId(ada.id))
    gallery.remove("Ada")
    receipt = gallery.receipt(PersonId(ada.id))
    gallery.enroll("Eve", unit(1, seed=2))
    assert gallery.verify_log(head=receipt.entry).intact
    assert not gallery.verify_log(head="0" * 64).intact
    assert (receipt.person, receipt.event) == (ada.id, "remove")
