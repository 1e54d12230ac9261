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

from steadface.gallery.keys import BYTES, Key, Unsealable, derive
from steadface.gallery.people import Person, Vectors

PersonRow = tuple[int, str, bytes, str, str | None, bytes, int]
"""number, id, tag, created, expires, sealed, number of templates."""


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

    def seal_person(self, person: Person) -> bytes:
        """The person's name, consent and notes, bound to id and times."""
        plain = json.dumps([person.name, person.consent, person.notes]).encode()
        expires = None if person.expires is None else stamp(person.expires)
        return self.key.seal(plain, self._person_bound(person.id, stamp(person.created), expires))

    def open_person(self, row: PersonRow) -> Person:
        """Raises `Unsealable` for a row that was changed in any column."""
        number, identity, tag, created, expires, sealed, templates = row
        bound = self._person_bound(identity, created, expires)
        name, consent, notes = json.loads(self.key.open(sealed, bound))
        if not hmac.compare_digest(tag, self.tag(name)):
            raise Unsealable(bound)
        return Person(
            id=identity,
            name=name,
            created=moment(created),
            expires=None if expires is None else moment(expires),
            consent=consent,
            notes=notes,
            templates=templates,
            number=number,
        )

    def seal_template(self, template: int, person: str, vector: Vectors) -> bytes:
        """One vector (D,) as little-endian float32."""
        return self.key.seal(vector.astype("<f4").tobytes(), self.template_bound(template, person))

    def open_template(self, template: int, person: str, sealed: bytes) -> bytes:
        return self.key.open(sealed, self.template_bound(template, person))

    def _person_bound(self, identity: str, created: str, expires: str | None) -> str:
        return (
            f"person {identity} created {created} expiring {expires} in gallery {self.gallery} under key {self.key.id}"
        )

    def template_bound(self, template: int, person: str) -> str:
        return f"template {template} of person {person} in gallery {self.gallery} under key {self.key.id}"


def _secret_bound(gallery: str, key: Key) -> str:
    return f"secret of gallery {gallery} under key {key.id}"


def stamp(when: datetime) -> str:
    """UTC to the microsecond; later times sort behind earlier ones as text."""
    return when.astimezone(UTC).isoformat(timespec="microseconds")


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
