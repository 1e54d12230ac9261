"""A gallery's key: 32 random bytes that seal every row, and where they are found, never beside the gallery.

Rows are sealed with AES-256-GCM (NIST SP 800-38D) under random nonces of 96 bits, which one key may use for 2^32 rows;
what a row belongs to is bound as associated data, so that no row can stand in for another. Keys for single purposes
are HMAC-SHA-256 of a label (the expansion step of RFC 5869 for one block).
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from steadface.arguments import as_path
from steadface.errors import Conflict, InvalidInput, NotFound
from steadface.files import read_private

BYTES = 32
MOST_BYTES = 4096
"""Of a file with a key: 32, or 45 as base64 with its line's end."""
NONCE = 12
KEY_VARIABLE = "STEADFACE_GALLERY_KEY"
FILE_VARIABLE = "STEADFACE_GALLERY_KEY_FILE"


class Unsealable(Exception):
    """A sealed value that was changed, moved from elsewhere, or sealed with another key."""


def derive(secret: bytes, purpose: str) -> bytes:
    """32 bytes for one purpose, from which neither `secret` nor those for another purpose follow."""
    return hmac.new(secret, f"steadface gallery: {purpose}".encode() + b"\x01", hashlib.sha256).digest()


@dataclass(frozen=True, kw_only=True)
class Key:
    """`secret` (32 bytes) and where it came from, for messages. Only `id` may be shown."""

    secret: bytes = field(repr=False)
    source: str = field(compare=False)

    @cached_property
    def id(self) -> str:
        """Which key this is, 16 hex digits; tells nothing of the secret."""
        return derive(self.secret, "key id")[:8].hex()

    @cached_property
    def _cipher(self) -> AESGCM:
        return AESGCM(derive(self.secret, "seal"))

    def seal(self, plain: bytes, bound: str) -> bytes:
        """Nonce, ciphertext and tag (28 bytes more than `plain`), to be opened only with what it is `bound` to."""
        nonce = os.urandom(NONCE)
        return nonce + self._cipher.encrypt(nonce, plain, bound.encode())

    def open(self, sealed: bytes, bound: str, what: str = "") -> bytes:
        """What was sealed. Raises `Unsealable`, which calls it `what` (by default what it is bound to)."""
        try:
            return self._cipher.decrypt(sealed[:NONCE], sealed[NONCE:], bound.encode())
        except (InvalidTag, ValueError, TypeError) as error:
            raise Unsealable(what or bound) from error


def new_key(source: str = "a new key") -> Key:
    return Key(secret=secrets.token_bytes(BYTES), source=source)


def given(key: Key | str | os.PathLike[str] | None) -> Key | None:
    """A key, or that in the file of that name. Raises as `read_key` does."""
    return key if key is None or isinstance(key, Key) else read_key(key)


def read_key(path: str | os.PathLike[str]) -> Key:
    """The key in a file: 32 bytes, or these as base64.

    Raises `NotFound`, and `InvalidInput` for a file that holds no key, or that other users of the machine can read or
    write.
    """
    path = as_path(path, "the key")
    try:
        content = read_private(path, "the key file", most=MOST_BYTES)
    except OSError as error:
        if len(str(path)) != BYTES and _secret(os.fsencode(path)) is not None:  # not to be repeated
            raise InvalidInput(
                f"a key was given in place of the name of its file; put it into {KEY_VARIABLE}, or into a file"
            ) from None
        kind = NotFound if isinstance(error, FileNotFoundError) else InvalidInput
        raise kind(
            f"the key file {path} cannot be read: {error.strerror}; check the path, or set {KEY_VARIABLE} to the key"
        ) from None
    return _parsed(content, str(path))


def write_key(path: Path, key: Key | None = None) -> Key:
    """A key, a new one if none is given, in a file that only its owner can read, flushed to the disk before it is used.

    Raises `Conflict` where there is a file already, which may be all that opens some gallery.
    """
    key = Key(secret=(key or new_key()).secret, source=str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(base64.b64encode(key.secret) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise Conflict(f"there is a file at {path} already, perhaps a key in use; name another") from None
    except OSError as error:
        raise InvalidInput(
            f"cannot write the key file {path}: {error.strerror}; name a folder that can be written"
        ) from None
    return key


def read_or_write_key(path: Path) -> Key:
    """The key in a file, which is made where there is none."""
    path = as_path(path, "the key")
    return read_key(path) if os.path.lexists(path) else write_key(path)


def keys_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where keys that nobody gave are kept: `steadface/keys` in the user's configuration."""
    configuration = environment.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(os.path.expanduser(configuration)) / "steadface" / "keys"  # noqa: PTH111 - Path's raises for ~nobody


def given_key(environment: Mapping[str, str] = os.environ) -> Key | None:
    """The key that the environment gives, if it does. Raises `InvalidInput` for what is not a key."""
    if text := environment.get(KEY_VARIABLE):
        return _parsed(os.fsencode(text), f"the environment variable {KEY_VARIABLE}")
    if name := environment.get(FILE_VARIABLE):
        return read_key(Path(name))
    return None


def find_key(gallery: str, key: str, environment: Mapping[str, str] = os.environ) -> Key:
    """The key whose id is `key`, of the gallery of that id: from the environment, else from the user's configuration,
    where a rotation leaves the old key beside the new one. Raises `NotFound` where there is none.
    """
    if (key_given := given_key(environment)) is not None:
        return key_given
    folder = keys_folder(environment)
    for path in (folder / f"{gallery}.key", folder / f"{gallery}.{key}.key"):
        if path.exists() and (kept := read_key(path)).id == key:
            return kept
    raise NotFound(
        f"the key {key} of gallery {gallery} is not in {folder} and none was given; name its file with --key FILE or "
        f"in {FILE_VARIABLE}, or set {KEY_VARIABLE} to it as base64 (without its key nobody can read a gallery)"
    )


def _parsed(content: bytes, source: str) -> Key:
    secret = _secret(content)
    if secret is None:
        raise InvalidInput(
            f"{source} holds no key: {BYTES} bytes are expected, as they are or as base64 ({len(content)} bytes found)"
        )
    return Key(secret=secret, source=source)


def _secret(content: bytes) -> bytes | None:
    """32 bytes, as they are or as base64; None for anything else."""
    if len(content) == BYTES:
        return content
    try:
        secret = base64.b64decode(content.strip(), validate=True)
    except binascii.Error:
        return None
    return secret if len(secret) == BYTES else None
