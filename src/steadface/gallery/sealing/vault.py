"""How rows are sealed: each bound to its gallery, its person and its place, so that none can stand in for another.

The gallery's key seals everything; a second secret, itself sealed with that key and kept in the gallery, keys the log
and the look-up of names, and so outlives a change of the key. Of a person only the random id and the times are legible
in the file; the name, consent and notes are sealed, and a name is looked up by its keyed digest.

Sealed together with that secret is the `State` of the gallery, anew with every change. What stands legible in the
header is compared with it, and the end of the log, so that those who lack the key can change neither, nor exchange it
for another. A sum over all rows tells whether they are those that were written last, and not ones that were once in
their place, or are so in a copy that the same key opens (MSet-Add-Hash of Clarke et al., Incremental Multiset Hash
Functions and Their Application to Memory Integrity Checking, ASIACRYPT 2003):

    rows = sum over rows of HMAC-SHA-256(rows key, (kind, number, nonce))        modulo 2^256

They can still put back all of an older copy: what shows that is a head of the log noted elsewhere.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property

from steadface.gallery.index import Vectors
from steadface.gallery.person import Person
from steadface.gallery.sealing.keys import BYTES, NONCE, Key, Unsealable, derive
from steadface.gallery.storage import Header, ModelIdentity, PersonRow, TemplateRow

HEADER = "the header"
SUMS = 2**256


@dataclass(frozen=True, kw_only=True)
class State:
    """What a gallery was when it was last written: `created`, `model` and `owed` of its header; the `sequence` and
    `head` (hex) of the last entry of its log; the highest number that a `template` had until then; how many `people`
    and `templates` there were; and the sum over `rows`. The last four are -1 where that is not known, as in galleries
    of layout 1.
    """

    created: str
    model: ModelIdentity
    owed: bool
    sequence: int
    head: str
    template: int = -1
    people: int = -1
    templates: int = -1
    rows: int = -1


@dataclass(frozen=True, kw_only=True)
class Vault:
    """The `key` of the gallery with id `gallery`, and the `secret` that outlives it."""

    gallery: str
    key: Key
    secret: bytes

    @classmethod
    def unlock(cls, header: Header, key: Key) -> "Vault":
        """Raises `Unsealable` where the header was changed."""
        return cls(gallery=header.id, key=key, secret=_opened(header, key)[:BYTES])

    @classmethod
    def new(cls, gallery: str, key: Key) -> "Vault":
        return cls(gallery=gallery, key=key, secret=secrets.token_bytes(BYTES))

    def rekeyed(self, key: Key) -> "Vault":
        return Vault(gallery=self.gallery, key=key, secret=self.secret)

    def sealed(self, state: State) -> bytes:
        """The secret and a state, for the header."""
        plain = self.secret + json.dumps(asdict(state)).encode()
        return self.key.seal(plain, _header_bound(self.gallery, self.key))

    def state(self, header: Header) -> State | None:
        """None in a header of layout 1, which is not sealed. Raises `Unsealable` for one that was changed."""
        plain = _opened(header, self.key)
        if header.id != self.gallery or not hmac.compare_digest(plain[:BYTES], self.secret):
            raise Unsealable(HEADER)
        if len(plain) == BYTES:
            return None
        told = json.loads(plain[BYTES:])
        state = State(**told | {"model": ModelIdentity(**told["model"])})
        if (header.created, header.model) != (state.created, state.model):
            raise Unsealable(HEADER)
        return state

    @cached_property
    def log_key(self) -> bytes:
        return derive(self.secret, "log")

    @cached_property
    def requests_key(self) -> bytes:
        return derive(self.secret, "requests")

    @cached_property
    def _names_key(self) -> bytes:
        return derive(self.secret, "names")

    @cached_property
    def _rows_key(self) -> bytes:
        return derive(self.secret, "rows")

    def sum(self, rows: Iterable[PersonRow | TemplateRow]) -> int:
        """What the rows add to the `rows` of a state, modulo `SUMS`: everything else in a row is bound to its nonce."""
        return sum(int.from_bytes(hmac.digest(self._rows_key, _place(row), "sha256")) for row in rows) % SUMS

    def tag(self, name: str) -> bytes:
        """What a name is looked up by; without the key nobody can tell whose it is."""
        return hmac.new(self._names_key, name.encode(), hashlib.sha256).digest()

    def seal_person(self, person: Person) -> PersonRow:
        """The name, consent and notes are sealed, bound to id and times."""
        plain = json.dumps([person.name, person.consent, person.notes]).encode()
        created, expires = stamp(person.created), None if person.expires is None else stamp(person.expires)
        return PersonRow(
            number=person.number,
            id=person.id,
            tag=self.tag(person.name),
            created=created,
            expires=expires,
            sealed=self.key.seal(plain, self._person_bound(person.id, created, expires)),
            templates=person.templates,
        )

    def open_person(self, row: PersonRow) -> Person:
        """Raises `Unsealable` for a row that was changed in any column."""
        bound = self._person_bound(row.id, row.created, row.expires)
        name, consent, notes = json.loads(self.key.open(row.sealed, bound, f"person {row.number}"))
        if not hmac.compare_digest(row.tag, self.tag(name)):
            raise Unsealable(f"person {row.number}")
        return Person(
            id=row.id,
            name=name,
            created=moment(row.created),
            expires=None if row.expires is None else moment(row.expires),
            consent=consent,
            notes=notes,
            templates=row.templates,
            number=row.number,
        )

    def seal_template(self, number: int, person: Person, vector: Vectors) -> TemplateRow:
        """One vector (D,) as little-endian float32, bound to its number and its owner's id."""
        sealed = self.key.seal(vector.astype("<f4").tobytes(), self._template_bound(number, person.id))
        return TemplateRow(number=number, person=person.number, owner=person.id, sealed=sealed)

    def open_template(self, row: TemplateRow) -> bytes:
        """Raises `Unsealable` for a row that was changed or is somebody else's."""
        bound = self._template_bound(row.number, row.owner)
        return self.key.open(row.sealed, bound, f"template {row.number}")

    def resealed(self, row: TemplateRow, new: "Vault") -> TemplateRow:
        """With the key of `new` in place of this one's."""
        bound = new._template_bound(row.number, row.owner)
        return row._replace(sealed=new.key.seal(self.open_template(row), bound))

    def _person_bound(self, identity: str, created: str, expires: str | None) -> str:
        return (
            f"person {identity} created {created} expiring {expires} in gallery {self.gallery} under key {self.key.id}"
        )

    def _template_bound(self, template: int, person: str | None) -> str:
        return f"template {template} of person {person} in gallery {self.gallery} under key {self.key.id}"


def _place(row: PersonRow | TemplateRow) -> bytes:
    kind = "template" if isinstance(row, TemplateRow) else "person"
    return f"{kind} {row.number} ".encode() + trace(row.sealed)


def trace(sealed: bytes) -> bytes:
    """What must not be left of a row that is gone: without its nonce nothing of it can be opened, by anybody."""
    return sealed[:NONCE]


def _opened(header: Header, key: Key) -> bytes:
    """The secret, and behind it the state. Raises `Unsealable`."""
    try:
        return key.open(header.secret, _header_bound(header.id, key))
    except Unsealable:  # as layout 1 has it, alone
        plain = key.open(header.secret, f"secret of gallery {header.id} under key {key.id}")
    if len(plain) != BYTES:
        raise Unsealable(HEADER)
    return plain


def _header_bound(gallery: str, key: Key) -> str:
    return f"header of gallery {gallery} under key {key.id}"


def stamp(when: datetime) -> str:
    """UTC to the microsecond; later times sort behind earlier ones as text."""
    return when.astimezone(UTC).isoformat(timespec="microseconds")


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
