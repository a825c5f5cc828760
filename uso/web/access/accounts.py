"""The file of names and hashed passwords behind `--auth`: htpasswd format, bcrypt only.

Knows nothing of HTTP; the login page and its cookie are in `login.py`, the tokens in `tokens.py`.
"""

import logging
import re
import secrets
from pathlib import Path

import bcrypt

from uso.errors import ConfigError
from uso.files import write_over
from uso.web.access.identity import acceptable_name
from uso.web.access.tokens import PRIVATE

logger = logging.getLogger(__name__)

COST = 12
"""Of new hashes: 2^12 rounds, about a quarter of a second."""
MAX_COST = 15
"""Of accepted hashes; each step doubles the time of every login."""
MAX_PASSWORD_BYTES = 72
"""All that bcrypt looks at."""
MIN_PASSWORD = 8

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
    """Why a new password is refused, as a sentence; None if it is fine."""
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
        write_over(path, "".join(f"{text}\n" for text in kept + line).encode(), PRIVATE)
    except OSError as error:
        raise ConfigError(f"The accounts file {path} could not be written ({error.strerror}).") from error
    return len(kept) < len(lines)


def hashed(password: str, cost: int = COST) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


class Accounts:
    """The accounts of a file, read again whenever it changes.

    Raises:
        ConfigError: the file is refused at the start. Later the accounts that were read last stay in force.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._stamp()
        self._accounts = read_accounts(path)
        self._decoy = self._made_decoy()
        if path.stat().st_mode & 0o004:
            logger.warning("Everybody on this machine can read %s: `chmod o-r` it.", path)

    def check(self, name: str, password: str) -> bool:
        """Whether a password is right. Takes a fraction of a second, and as long for an unknown name."""
        self._refresh()
        known = self._accounts.get(name)
        secret = password.encode(errors="surrogatepass")
        fits = len(secret) <= MAX_PASSWORD_BYTES
        right = bcrypt.checkpw(secret[:MAX_PASSWORD_BYTES], (known or self._decoy).encode())
        return right and fits and known is not None

    def hash_of(self, name: str) -> str | None:
        """The hash of a password; None if there is no such account."""
        self._refresh()
        return self._accounts.get(name)

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
