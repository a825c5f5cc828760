"""Signatures, and the signed tokens of people who logged in."""

import hmac
import logging
import re
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from uso.files import PRIVATE, write_over

logger = logging.getLogger(__name__)

LOGIN_SECONDS = 30 * 24 * 3600
"""How long a login lasts."""
MAX_TOKEN = 1000
"""Characters of a token."""


class Signer:
    """Signs texts with HMAC-SHA256 under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, *texts: str) -> str:
        """The signature of several texts, 64 hexadecimal digits."""
        return hmac.new(self._key, "\n".join(texts).encode(), sha256).hexdigest()

    def is_signature(self, signature: str, *texts: str) -> bool:
        return hmac.compare_digest(self.sign(*texts).encode(), signature.encode())


class LoginTokens:
    """Issues, reads and ends the tokens that browsers keep after a login. A token is `name.until.signature`.

    Args:
        hash_of: the hash of an account's password; None if there is no such account. Part of what is signed: a changed
            password ends the account's tokens.
    """

    def __init__(self, key: bytes, hash_of: Callable[[str], str | None]) -> None:
        self._signer, self._hash_of = Signer(key), hash_of
        self._ended = EndedTokens()

    def issue(self, name: str, now: float | None = None) -> str:
        """A token of somebody who just logged in, valid for `LOGIN_SECONDS`."""
        until = int((time.time() if now is None else now) + LOGIN_SECONDS)
        while (token := self._token(name, until)) in self._ended:  # out and in again within a second
            until += 1
        return token

    def name_of(self, token: str, now: float | None = None) -> str | None:
        """Whose token it is; None if it is forged, too old or ended, or the account is gone or has a new password."""
        if token.count(".") != 2 or not token.isascii() or len(token) > MAX_TOKEN or token in self._ended:
            return None
        text, until, signature = token.split(".")
        if not re.fullmatch(r"\d{1,12}", until) or int(until) < (time.time() if now is None else now):
            return None
        try:
            name = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        except ValueError:
            return None
        hashed = self._hash_of(name)
        right = hashed is not None and self._signer.is_signature(signature, name, str(int(until)), hashed)
        return name if right else None

    def end(self, token: str, now: float | None = None) -> None:
        """Make a token worthless: its owner has logged out."""
        if self.name_of(token, now) is not None:
            self._ended.add(token, int(token.split(".")[1]), time.time() if now is None else now)

    def _token(self, name: str, until: int) -> str:
        signature = self._signer.sign(name, str(until), self._hash_of(name) or "")
        return f"{urlsafe_b64encode(name.encode()).decode().rstrip('=')}.{until}.{signature}"


class EndedTokens:
    """Tokens of people who logged out, until they would have expired; forgotten with the process.

    Only valid ones are to be added, so nobody fills it who cannot log in. The oldest goes first.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._until: OrderedDict[bytes, int] = OrderedDict()

    def add(self, token: str, until: int, now: float) -> None:
        self._until[_digest(token)] = until
        for digest in [digest for digest, end in self._until.items() if end < now]:
            del self._until[digest]
        while len(self._until) > self._most:
            self._until.popitem(last=False)

    def __contains__(self, token: str) -> bool:
        return _digest(token) in self._until


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="surrogatepass")).digest()[:16]


def login_key(folder: Path) -> bytes:
    """The secret that signs logins, kept in a folder of the server's so that they outlive a restart."""
    path = folder / ".login-key"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_over(path, secrets.token_hex(32).encode(), PRIVATE)
        key = path.read_bytes()
        if len(key) == 64:
            return key
        logger.warning("%s is not a key of this program: logins end with this process.", path)
    except OSError as error:
        logger.warning("%s cannot be kept (%s): logins end with this process.", path, error.strerror)
    return secrets.token_bytes(32)
