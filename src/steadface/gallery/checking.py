"""Whether a gallery may be opened, and whether it is what its log says."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from steadface.errors import SteadfaceError
from steadface.gallery import journal, records
from steadface.gallery.identity import ModelIdentity
from steadface.gallery.journal import Finding, Verification
from steadface.gallery.keys import Key, Unsealable, find_key, read_key
from steadface.gallery.store import Header, check_pages
from steadface.gallery.vault import Vault


def check_model(own: ModelIdentity, model: ModelIdentity | None, path: Path) -> None:
    """Raises `SteadfaceError` where the gallery's templates come from another model, its `own`, than `model`."""
    if model is not None and not same_model(own, model):
        raise SteadfaceError(
            f"the gallery {path} holds templates of {described(own)}, and this is {described(model)}; vectors "
            "of two models cannot be compared: use the gallery's model, or bring the gallery over with `steadface "
            "gallery re-embed`"
        )


def same_model(one: ModelIdentity, other: ModelIdentity) -> bool:
    """Whatever they are called."""
    return (one.fingerprint, one.dimension, one.mirror) == (other.fingerprint, other.dimension, other.mirror)


def described(model: ModelIdentity) -> str:
    mirrored = "with mirror images" if model.mirror else "without mirror images"
    return (
        f"the model {model.name or 'without a name'} ({model.fingerprint[:12]}, {model.dimension} numbers, {mirrored})"
    )


def unlocked(header: Header, key: Key | Path | None, path: Path) -> Vault:
    """Raises `SteadfaceError` where the key is not that of the gallery, or there is none."""
    given = read_key(key) if isinstance(key, Path) else key
    found = given or find_key(header.id, header.key)
    if found.id != header.key:
        raise SteadfaceError(
            f"the gallery {path} is sealed with the key {header.key}, and {found.source} holds the key {found.id}; "
            "give the gallery's own with --key FILE or in the environment"
        )
    return Vault.unlock(header.id, found, header.secret)


def check_current(header: Header, vault: Vault, model: ModelIdentity, path: Path) -> None:
    """Raises `SteadfaceError` where another process changed the key or the model since the gallery was opened."""
    if header.key != vault.key.id:
        raise SteadfaceError(
            f"the key of the gallery {path} was changed to {header.key} since it was opened; open it again with that"
        )
    if not same_model(header.model, model):
        raise SteadfaceError(
            f"the gallery {path} was given templates of {described(header.model)} since it was opened; open it again "
            "with that"
        )


def verify_log(connection: sqlite3.Connection, vault: Vault, path: Path, head: str | None) -> Verification:
    """The chain, its agreement with the rows, and that each row is as it was sealed.

    Raises `SteadfaceError` where pages of the file are damaged.
    """
    check_pages(connection, path)
    templates = connection.execute(
        "SELECT templates.number, people.id FROM templates JOIN people ON people.number = templates.person"
    )
    found = journal.verify(
        journal.entries(connection),
        vault.log_key,
        templates=dict(templates.fetchall()),
        people={identity for (identity,) in connection.execute("SELECT id FROM people")},
        head=head,
    )
    return replace(found, findings=(*found.findings, *_unsealable(connection, vault)))


def _unsealable(connection: sqlite3.Connection, vault: Vault) -> Iterator[Finding]:
    """The first person and the first template that are not as they were sealed."""
    for rows in (records.all_people(connection, vault), records.templates_after(connection, vault, 0)):
        try:
            for _ in rows:
                pass
        except Unsealable as error:
            yield Finding(sequence=None, what=f"a row was edited or moved: {error} does not unseal")
