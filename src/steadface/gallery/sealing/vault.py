"""How rows are sealed: each bound to its gallery, its person and its place, so that none can stand in for another.

The gallery's key seals everything; a second secret, itself sealed with that key and kept in the gallery, keys the log
and the look-up of names, and so outlives a change of the key. Of a person only the random id and the times are legible
in the file; the name, consent and notes are sealed, and a name is looked up by its keyed digest.
"""

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from steadface.gallery.index import Vectors
from steadface.gallery.person import Person
from steadface.gallery.sealing.keys import BYTES, NONCE, Key, Unsealable, derive
from steadface.gallery.storage import PersonRow, TemplateRow


@dataclass(frozen=True, kw_only=True)
class Vault:
    """The `key` of the gallery with id `gallery`, and the `secret` that outlives it."""

    gallery: str
    key: Key
    secret: bytes

    @classmethod
    def unlock(cls, gallery: str, key: Key, wrapped: bytes) -> "Vault":
        """Raises `Unsealable` where the wrapped secret was changed."""
        return cls(gallery=gallery, key=key, secret=key.open(wrapped, _secret_bound(gallery, key)))

    @classmethod
    def new(cls, gallery: str, key: Key) -> "Vault":
        return cls(gallery=gallery, key=key, secret=secrets.token_bytes(BYTES))

    def rekeyed(self, key: Key) -> "Vault":
        return Vault(gallery=self.gallery, key=key, secret=self.secret)

    def wrapped(self) -> bytes:
        return self.key.seal(self.secret, _secret_bound(self.gallery, self.key))

    @cached_property
    def log_key(self) -> bytes:
        return derive(self.secret, "log")

    @cached_property
    def _names_key(self) -> bytes:
        return derive(self.secret, "names")

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
        name, consent, notes = json.loads(self.key.open(row.sealed, bound))
        if not hmac.compare_digest(row.tag, self.tag(name)):
            raise Unsealable(bound)
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
        return self.key.open(row.sealed, self._template_bound(row.number, row.owner))

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


def trace(sealed: bytes) -> bytes:
    """What must not be left of a row that is gone: without its nonce nothing of it can be opened, by anybody."""
    return sealed[:NONCE]


def _secret_bound(gallery: str, key: Key) -> str:
    return f"secret of gallery {gallery} under key {key.id}"


def stamp(when: datetime) -> str:
    """UTC to the microsecond; later times sort behind earlier ones as text."""
    return when.astimezone(UTC).isoformat(timespec="microseconds")


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
