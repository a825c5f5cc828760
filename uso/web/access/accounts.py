"""The file of names and hashed passwords behind `--auth`, the tokens of those who logged in, and a brake on guessing.

htpasswd format, bcrypt only. Nothing of HTTP is known here; the login page and its cookie are in `login.py`.
"""

import hmac
import logging
import os
import re
import secrets
import tempfile
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import bcrypt

from uso.errors import ConfigError
from uso.web.access.identity import acceptable_name

logger = logging.getLogger(__name__)

COST = 12
"""Of new hashes: 2^12 rounds, about a quarter of a second."""
MAX_COST = 15
"""Of hashes that are accepted; each step doubles the time of every login."""
MAX_PASSWORD_BYTES = 72
"""All that bcrypt looks at."""
MIN_PASSWORD = 8

LOGIN_SECONDS = 30 * 24 * 3600
"""How long a login lasts."""

_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
"""Version, cost, 16 bytes of salt (the last letter holds two bits), 23 of hash."""
_HOW = "Make one with `python -m uso account FILE NAME`, or with `htpasswd -B`."


def read_accounts(path: Path) -> dict[str, str]:
    """Name to bcrypt hash.

    Raises:
        ConfigError: no such file, not readable, no accounts in it, or a line that is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"The accounts file {path} is not UTF-8 text. {_HOW}") from error
    except OSError as error:
        raise ConfigError(f"The accounts file {path} could not be read ({error.strerror}). {_HOW}") from error
    accounts: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.rstrip().partition(":")
        where = f"Line {number} of the accounts file {path}"
        if not acceptable_name(name):
            raise ConfigError(f"{where} has no usable name before the first colon. {_HOW}")
        if name in accounts:
            raise ConfigError(f"{where} names {name} a second time. Remove one of the two.")
        match = _HASH.fullmatch(hashed)
        if match is None:
            raise ConfigError(f"{where} holds no bcrypt hash ($2y$, $2b$ or $2a$). {_HOW}")
        if not 4 <= int(match[1]) <= MAX_COST:
            raise ConfigError(f"{where} has bcrypt cost {match[1]}; 4 to {MAX_COST} is allowed. {_HOW}")
        accounts[name] = hashed
    if not accounts:
        raise ConfigError(f"The accounts file {path} has no accounts, so nobody could log in. {_HOW}")
    return accounts


def password_fault(password: str) -> str | None:
    """Why a new password is not taken, as a sentence; None if it is."""
    if len(password) < MIN_PASSWORD:
        return f"The password has {len(password)} characters; at least {MIN_PASSWORD} are needed."
    size = len(password.encode())
    if size > MAX_PASSWORD_BYTES:
        return f"The password has {size} bytes; bcrypt takes at most {MAX_PASSWORD_BYTES}."
    return None


def put_account(path: Path, name: str, password: str | None) -> bool:
    """Add or replace one line, or remove it (`password=None`); whether the name was there. The file appears whole, with
    mode 0600; other lines stay as they are.

    Raises:
        ConfigError: name or password is refused, the file holds something else, or cannot be written.
    """
    if not acceptable_name(name) or ":" in name or name.startswith("#"):
        raise ConfigError(f"{name!r} cannot be a name: 1 to 128 printable characters without colons are allowed.")
    fault = None if password is None else password_fault(password)
    if fault:
        raise ConfigError(fault)
    path = path.resolve()  # a link stays a link
    if path.exists() and path.read_bytes().strip():
        read_accounts(path)  # never write into a file that is something else
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if line.partition(":")[0] != name]
        line = [] if password is None else [f"{name}:{hashed(password)}"]
        _write(path, "".join(f"{text}\n" for text in kept + line))
    except OSError as error:
        raise ConfigError(f"The accounts file {path} could not be written ({error.strerror}).") from error
    return len(kept) < len(lines)


def hashed(password: str, cost: int = COST) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def _write(path: Path, text: str) -> None:
    handle, staged = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    except BaseException:
        Path(staged).unlink(missing_ok=True)
        raise


def login_key(folder: Path) -> bytes:
    """The secret under which logins are signed, kept in a folder of the server's so that they outlive a restart."""
    path = folder / ".login-key"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write(path, secrets.token_hex(32))
        key = path.read_bytes()
        if len(key) == 64:
            return key
        logger.warning("%s is not a key of this program: logins end with this process.", path)
    except OSError as error:
        logger.warning("%s cannot be kept (%s): logins end with this process.", path, error.strerror)
    return secrets.token_bytes(32)


class Accounts:
    """The accounts of a file, read again whenever it changes.

    Raises:
        ConfigError: what the file is refused for at the start. Later, what could be read last stays in force.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        self._path = path
        self._key = key
        self._ended = Ended()
        self._seen = self._stamp()
        self._accounts = read_accounts(path)
        self._decoy = self._made_decoy()
        if path.stat().st_mode & 0o004:
            logger.warning("Everybody on this machine can read %s: `chmod o-r` it.", path)

    def check(self, name: str, password: str) -> bool:
        """Whether a password is right. Takes a fraction of a second, and as long for a name that is not there."""
        self._refresh()
        known = self._accounts.get(name)
        secret = password.encode(errors="surrogatepass")
        fits = len(secret) <= MAX_PASSWORD_BYTES
        right = bcrypt.checkpw(secret[:MAX_PASSWORD_BYTES], (known or self._decoy).encode())
        return right and fits and known is not None

    def token(self, name: str, now: float | None = None) -> str:
        """What the browser of somebody who logged in keeps; worthless when the password is changed or the line gone."""
        self._refresh()
        until = int((time.time() if now is None else now) + LOGIN_SECONDS)
        while (token := self._token(name, until)) in self._ended:  # out and in again within a second
            until += 1
        return token

    def _token(self, name: str, until: int) -> str:
        return f"{urlsafe_b64encode(name.encode()).decode().rstrip('=')}.{until}.{self._signed(name, until)}"

    def name_of(self, token: str, now: float | None = None) -> str | None:
        """Whose token it is; None if it is forged, too old, ended, or of an account that is no longer so."""
        self._refresh()
        if token.count(".") != 2 or not token.isascii() or len(token) > 1000 or token in self._ended:
            return None
        text, until, signature = token.split(".")
        if not re.fullmatch(r"\d{1,12}", until) or int(until) < (time.time() if now is None else now):
            return None
        try:
            name = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        except ValueError:
            return None
        right = name in self._accounts and hmac.compare_digest(self._signed(name, int(until)), signature)
        return name if right else None

    def end(self, token: str, now: float | None = None) -> None:
        """Whoever had this token has logged out: it is worthless from now on."""
        if self.name_of(token, now) is not None:
            self._ended.add(token, int(token.split(".")[1]), time.time() if now is None else now)

    def _signed(self, name: str, until: int) -> str:
        text = f"{name}\n{until}\n{self._accounts.get(name, '')}"
        return hmac.new(self._key, text.encode(), sha256).hexdigest()

    def _stamp(self) -> tuple[int, ...]:
        try:
            status = self._path.stat()
        except OSError:
            return ()
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _refresh(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._accounts = read_accounts(self._path)
        except ConfigError as error:
            logger.warning("%s Until that is mended, the accounts read before are used.", error)
            return
        self._decoy = self._made_decoy()
        logger.info("Read %d accounts from %s.", len(self._accounts), self._path)

    def _made_decoy(self) -> str:
        """A hash that no password is known for, as costly as the costliest in the file."""
        cost = max(hashed_one.split("$")[2] for hashed_one in self._accounts.values())
        return f"$2b${cost}$" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(21)) + "." * 32


class Throttle:
    """Counts wrong tries per key over a sliding time.

    Its memory is bounded: a digest of each key, the last `limit` times of its tries, and the latest `keys` keys.

    Args:
        limit: tries after which a key must wait.
        seconds: the time in which they count.
    """

    def __init__(
        self, limit: int, seconds: float, *, keys: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit, self.seconds, self.keys, self._clock = limit, seconds, keys, clock
        self._tries: OrderedDict[bytes, tuple[float, ...]] = OrderedDict()

    def wait(self, key: str) -> float:
        """Seconds until a key may try again; 0 if now. Leaves nothing behind."""
        tries = self._recent(_digest(key))
        return max(tries[0] + self.seconds - self._clock(), 0.001) if len(tries) >= self.limit else 0.0

    def count(self, key: str) -> None:
        """Before a password is looked at, so that many tries at once are counted too."""
        digest = _digest(key)
        self._tries[digest] = (*self._recent(digest), self._clock())[-self.limit :]
        self._tries.move_to_end(digest)
        while len(self._tries) > self.keys:
            self._tries.popitem(last=False)

    def forgive(self, key: str) -> None:
        """It was right: the try does not count."""
        digest = _digest(key)
        tries = self._recent(digest)[:-1]
        if tries:
            self._tries[digest] = tries
        else:
            self._tries.pop(digest, None)

    def _recent(self, digest: bytes) -> tuple[float, ...]:
        since = self._clock() - self.seconds
        return tuple(moment for moment in self._tries.get(digest, ()) if moment > since)


class Ended:
    """Tokens of those who logged out, until they would have ended by themselves; forgotten with the process.

    Only valid ones are to be put in, so nobody fills it who cannot log in; the one put in first goes first.
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


def _digest(text: str) -> bytes:
    return sha256(text.encode(errors="surrogatepass")).digest()[:16]
