from pathlib import Path

import pytest

from steadface.gallery.gallery import Gallery
from steadface.gallery.person import ALIKE, Person, skeletons
from steadface.gallery.sealing.vault import Vault
from steadface.gallery.storage import PersonRow

from .conftest import unit

SAME = [
    ("dan", "d\u0430n"),  # Cyrillic a
    ("dan", "Dan"),
    ("\u0412\u0410\u041d", "BAH"),  # Cyrillic capitals
    ("\u0412\u0410\u041d", "\u0432\u0430\u043d"),  # and small ones
    ("Anna", "\u0391nna"),  # Greek capital
    ("Ian", "lan"),
    ("O'Neil", "O\u2019Neil"),
    ("Anne-Marie", "Anne\u2010Marie"),
    ("Ada B", "Ada\u00a0 B"),
    ("Ada", "\uff21da"),  # full width
    ("\u0639\u0644\u06cc\u200c\u0631\u0636\u0627", "\u0639\u0644\u06cc\u0631\u0636\u0627"),  # with and without ZWNJ
    ("\u0639\u0644\u06cc", "\u0639\u0644\u064a"),  # Persian and Arabic yeh
    ("Ada", "A\u034fda"),
    ("Stra\u00dfe", "STRASSE"),
]
OTHER = [("dan", "don"), ("Zoe", "Zo\u00eb"), ("Anna", "Hanna"), ("\u0432\u0430\u043d", "bah"), ("ada", "a da")]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_names_that_look_alike_share_a_skeleton(one: str, other: str) -> None:
    assert skeletons(one) & skeletons(other)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_names_that_do_not_share_none(one: str, other: str) -> None:
    assert not skeletons(one) & skeletons(other)


def test_what_letters_are_replaced_by_is_replaced_no_further() -> None:
    assert not {ord(letter) for letter in ALIKE.values()} & ALIKE.keys()


def test_people_of_confusable_names_are_named_through_all_changes(gallery: Gallery, path: Path) -> None:
    cyrillic = "d\u0430n"
    gallery.enroll("dan", unit(1))
    gallery.enroll("eve", unit(1))
    assert gallery.confusable(cyrillic) == ["dan"]
    assert gallery.confusable("dan") == []
    with Gallery.open(path) as other:
        other.enroll("DAN", unit(1))
        assert gallery.confusable(cyrillic) == ["dan", "DAN"]
        other.rename("dan", "someone")
        other.rename("eve", "D\u0430N")
        assert gallery.confusable(cyrillic) == ["D\u0430N", "DAN"]
        other.remove("DAN")
        assert gallery.confusable(cyrillic) == ["D\u0430N"]
        assert gallery.confusable("EVE") == []
        assert gallery.confusable("Some0ne") == ["someone"]


def test_only_new_names_are_opened(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery.enroll("dan", unit(1))
    gallery.confusable("x")
    gallery.enroll("eve", unit(1))
    opened: list[str] = []
    real = Vault.open_person

    def counted(vault: Vault, row: PersonRow) -> Person:
        person = real(vault, row)
        opened.append(person.name)
        return person

    monkeypatch.setattr(Vault, "open_person", counted)
    gallery.confusable("x")
    gallery.confusable("x")
    assert opened == ["eve"]
