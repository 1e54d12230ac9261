"""Names that look alike though they are not the same: one written with a Cyrillic letter, another capital or hyphen.

Two names are confusable if they share a skeleton (Unicode Technical Standard 39, section 4): compatibility forms made
one (NFKC), what is not seen taken out, case folded, and letters that look like a Latin one replaced by it. Departures:
of UTS 39's confusables there are only letters of the Latin, Greek and Cyrillic scripts that people's names are written
with and are drawn alike in most typefaces, two Arabic letters that Persian writes differently, apostrophes and hyphens;
case is folded, which UTS 39 leaves alone. A capital may look like another letter than its small form does, so letters
are replaced both before case is folded and after, which gives two skeletons.
"""

import re
import sqlite3
import unicodedata

from steadface.gallery import journal, records
from steadface.gallery.people import Person
from steadface.gallery.vault import Vault

UNSEEN = re.compile("[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u206f\ufe00-\ufe0f\ufeff]")
"""Default-ignorable characters (UAX 44) that NFKC leaves and a name may contain, or might come to."""

ALIKE = {
    ord(one): latin
    for latin, others in {
        # Capitals: Greek, then Cyrillic.
        "A": "\u0391\u0410",
        "B": "\u0392\u0412",
        "C": "\u0421",
        "E": "\u0395\u0415",
        "H": "\u0397\u041d",
        "J": "\u0408",
        "K": "\u039a\u041a",
        "M": "\u039c\u041c",
        "N": "\u039d",
        "O": "\u039f\u041e",
        "P": "\u03a1\u0420",
        "S": "\u0405",
        "T": "\u03a4\u0422",
        "X": "\u03a7\u0425",
        "Y": "\u03a5\u04ae\u0423",
        "Z": "\u0396",
        # Small letters.
        "a": "\u03b1\u0430",
        "c": "\u0441",
        "d": "\u0501",
        "e": "\u0435",
        "h": "\u04bb",
        "i": "\u03b9\u0456\u0131",
        "j": "\u0458",
        "k": "\u03ba\u043a",
        "l": "I1|\u04cf\u0399\u0406\u04c0",
        "o": "0\u03bf\u043e",
        "p": "\u03c1\u0440",
        "q": "\u051b",
        "s": "\u0455",
        "u": "\u03c5",
        "v": "\u03bd",
        "w": "\u051d",
        "x": "\u03c7\u0445",
        "y": "\u0443\u04af",
        # Not Latin.
        "\u06cc": "\u064a\u0649",  # yeh
        "\u06a9": "\u0643",  # kaf
        "'": "\u2019\u2018\u02bc\u02bb`\u2032",
        "-": "\u2010\u2011\u2012\u2013\u2014\u2212",
    }.items()
    for one in others
}


def skeletons(name: str) -> frozenset[str]:
    """What a name has in common with those that look like it; meant for comparison alone."""
    seen = UNSEEN.sub("", unicodedata.normalize("NFKC", name))
    forms = (seen.translate(ALIKE).casefold(), seen.casefold().translate(ALIKE))
    return frozenset(" ".join(unicodedata.normalize("NFKC", form).split()) for form in forms)


class Names:
    """Who is enrolled by what their names look like, kept in step with the gallery: only names that are new are opened.

    One thread at a time may use it.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, set[int]] = {}
        self._last = 0
        self._sequence = 0

    def catch_up(self, connection: sqlite3.Connection, vault: Vault) -> None:
        """To the state that the connection's transaction sees. Who went or changed their name is noticed by `like`."""
        people = records.people_after(connection, vault, self._last, self._sequence)
        for person in people:
            for skeleton in skeletons(person.name):
                self._numbers.setdefault(skeleton, set()).add(person.number)
            self._last = max(self._last, person.number)
        self._sequence = journal.last_sequence(connection)

    def like(self, name: str, connection: sqlite3.Connection, vault: Vault) -> list[str]:
        """The names of the people who are enrolled under another one that looks like `name`."""
        own = skeletons(name)
        numbers = {number for skeleton in own for number in self._numbers.get(skeleton, ())}
        people: list[Person] = sorted(
            records.people_numbered(connection, vault, numbers).values(), key=lambda person: person.number
        )
        return [one.name for one in people if one.name != name and own & skeletons(one.name)]
