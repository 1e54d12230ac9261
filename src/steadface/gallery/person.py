"""Who is enrolled: names, consent and its expiry, and the unit vectors that stand for a person.

Names that look alike though they are not the same: one is written with a Cyrillic letter, another capital or hyphen.
Two names are confusable if they share a skeleton (Unicode Technical Standard 39, section 4): compatibility forms made
one (NFKC), what is not seen taken out, case folded, and letters that look like a Latin one replaced by it. Departures:
of UTS 39's confusables there are only letters of the Latin, Greek and Cyrillic scripts that people's names are written
with and are drawn alike in most typefaces, two Arabic letters that Persian writes differently, apostrophes and hyphens;
case is folded, which UTS 39 leaves alone. A capital may look like another letter than its small form does, so letters
are replaced both before case is folded and after, which gives two skeletons.
"""

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from steadface.errors import InvalidInput, quoted, short
from steadface.gallery.index import Vectors, odd_lengths
from steadface.gallery.storage import ModelIdentity

LONGEST = 200
"""Characters of a name."""

TEXT = 2**14
"""Characters of a consent, or of notes."""

JOINERS = "\u200c\u200d"
"""The zero-width non-joiner and joiner: unseen, but a part of how names are written in Persian and Indic scripts."""

LINE_ENDS = "\u2028\u2029"
"""Unicode's own, which are no control characters."""

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


class PersonId(str):
    """The random id of somebody enrolled, which may stand wherever a gallery takes the name of somebody enrolled."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody enrolled. `id` is random and outlives the name in the log; `number` is that of the row. Times are UTC;
    `templates` counts them.
    """

    id: str
    name: str
    created: datetime
    expires: datetime | None
    consent: str | None
    notes: str | None
    templates: int
    number: int

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and self.expires <= now

    def to_json(self, now: datetime) -> dict[str, Any]:
        return {
            "person": self.name,
            "templates": self.templates,
            "enrolled": self.created.isoformat(),
            "expires": None if self.expires is None else self.expires.isoformat(),
            "expired": self.expired(now),
            "consent": self.consent,
            "notes": self.notes,
            "id": self.id,
        }


def checked_name(name: str) -> str:
    """The name in Unicode's composed form, so that names that look alike are one. Raises `InvalidInput`."""
    if not isinstance(name, str):
        raise InvalidInput(f"a name is text, and this is {type(name).__name__}; give the person's name as a string")
    name = unicodedata.normalize("NFC", name)
    unwritable = any(unicodedata.category(c)[0] == "C" or c in LINE_ENDS for c in name if c not in JOINERS)
    if any("\ud800" <= c <= "\udfff" for c in name):
        raise InvalidInput(
            f"{quoted(name)} is not a name for a person: some of its bytes are no UTF-8; set LANG to a UTF-8 locale, "
            "or PYTHONUTF8=1"
        )
    seen = UNSEEN.sub("", unicodedata.normalize("NFKC", name))
    if not seen or name != name.strip().strip(JOINERS) or len(name) > LONGEST or unwritable:
        raise InvalidInput(
            f"{quoted(name)} is not a name for a person: it takes 1 to {LONGEST} characters, none of them a control "
            "character, some to be seen, no space around them, and joiners (U+200C, U+200D) only between letters"
        )
    return name


def checked_text(text: str | None, what: str, name: str) -> str | None:
    """A consent or notes, as given but for ends of lines, which are made Unix's; None for none.

    Raises `InvalidInput` for what is no text that can be written down, sent and shown: too much of it, control
    characters, which a terminal obeys, and halves of characters (of bytes that were not UTF-8).
    """
    if text is None:
        return None
    if not isinstance(text, str):
        raise InvalidInput(f"the {what} of {name} is {type(text).__name__}; give text")
    text = text.replace("\r\n", "\n")
    wrong = [c for c in text if unwritable(c)]
    if wrong or len(text) > TEXT:
        said = f"holds {wrong[0]!a}, which cannot be shown" if wrong else f"has {len(text):,} characters"
        raise InvalidInput(
            f"the {what} of {name} {said}; give up to {TEXT:,} characters of Unicode text, without control characters"
        )
    return text


def unwritable(character: str) -> bool:
    """A control character, except for an end of a line and a tabulator, or half of a character."""
    return unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"


def skeletons(name: str) -> frozenset[str]:
    """What a name has in common with those that look like it; meant for comparison alone."""
    seen = UNSEEN.sub("", unicodedata.normalize("NFKC", name))
    forms = (seen.translate(ALIKE).casefold(), seen.casefold().translate(ALIKE))
    return frozenset(" ".join(unicodedata.normalize("NFKC", form).split()) for form in forms)


def checked_expiry(expires: date | str | None, now: datetime, name: str) -> datetime | None:
    """As `parse_expiry` reads it. Raises `InvalidInput` for what is not such a time, and for one that has passed."""
    if expires is None:
        return None
    end = parse_expiry(expires)
    if end <= now:
        raise InvalidInput(f"the expiry {expires} of {name} has passed (it is {now:%Y-%m-%d %H:%M} UTC)")
    return end


def parse_expiry(expires: date | str) -> datetime:
    """A `date` or `2031-12-31`, to the end of that day in UTC; a `datetime` with its zone or
    `2031-12-31T18:00+01:00`. In UTC.

    Raises `InvalidInput` for anything else.
    """
    moment: object = expires
    if isinstance(expires, str):
        try:
            parse = date.fromisoformat if len(expires) == len("2031-12-31") else datetime.fromisoformat
            moment = parse(expires)
        except ValueError:
            moment = None
    if isinstance(moment, date) and not isinstance(moment, datetime):
        return datetime.combine(moment, time.max, UTC)
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        why = "names no time zone" if isinstance(expires, datetime) else "is not a date"
        shown = short(repr(str(expires)).strip("'"))
        raise InvalidInput(
            f"the expiry {shown} {why}; write 2031-12-31, or a time with its zone, 2031-12-31T18:00+01:00"
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(f"the expiry {expires} lies outside of the years 1 to 9999; give another") from None


def checked_vectors(vectors: ArrayLike, model: ModelIdentity, whose: str) -> Vectors:
    """Unit vectors (n, D) as float32. Raises `InvalidInput` for another shape, NaN, infinity, or other lengths."""
    try:
        given = np.asarray(vectors)
    except ValueError:  # rows of several lengths
        given = np.empty(0, dtype=object)
    if given.dtype.kind not in "fiu":
        raise InvalidInput(f"the vectors of {whose} are no array of real numbers; give one, (n, {model.dimension})")
    with np.errstate(over="ignore"):  # too large a number is no part of a unit vector
        array = given.astype(np.float32, copy=False)
    if array.ndim != 2 or not len(array) or array.shape[1] != model.dimension:
        raise InvalidInput(
            f"the vectors of {whose} have shape {array.shape}; the gallery takes one or more of {model.dimension} "
            f"numbers each, (n, {model.dimension}), as its model {model.name} makes them"
        )
    for place, length in odd_lengths(array):
        raise InvalidInput(
            f"vector {place + 1} of {whose} is not a unit vector (its length is {length:.4g}); was its image readable, "
            "and the embedding normalised?"
        )
    return array
