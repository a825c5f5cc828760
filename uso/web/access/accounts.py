"""The file of names and hashed passwords behind `--auth`: htpasswd format, bcrypt only.

Knows nothing of HTTP; the login page and its cookie are in `login.py`, the tokens in `tokens.py`.
"""

import logging
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import bcrypt

from uso.errors import ConfigError
from uso.files import PRIVATE, read_text, write_over
from uso.language import Text
from uso.web.access.identity import acceptable_name

logger = logging.getLogger(__name__)

COST = 12
"""Of new hashes: 2^12 rounds, about a quarter of a second."""
MAX_COST = 15
"""Of accepted hashes; each step doubles the time of every login."""
MAX_PASSWORD_BYTES = 72
"""All that bcrypt looks at."""
MIN_PASSWORD = 8
MAX_BYTES = 10**7
"""Of the file, which is read with every request: 100,000 accounts."""

UNREADABLE = Text(
    "Nobody can log in now: the server cannot read its accounts. Whoever runs it finds the reason in its log."
)
EMPTY = Text("Nobody can log in now: this server has no accounts. Whoever runs it can add one.")

_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
"""Version, cost, 16 bytes of salt (the last letter holds two bits), 23 of hash."""
_HOW = "Make one with `python -m uso account FILE NAME`, or with `htpasswd -B`."


def read_accounts(path: Path) -> dict[str, str]:
    """Name to bcrypt hash.

    Raises:
        ConfigError: no such file, not readable, no accounts in it, or a line that is none.
    """
    accounts, faults = _parsed(path, _text(path))
    if faults:
        raise ConfigError(faults[0])
    if not accounts:
        raise ConfigError(f"The accounts file {path} has no accounts, so nobody could log in. {_HOW}")
    return accounts


def _text(path: Path) -> str:
    # To open a pipe would wait for its other end. Unlike `Path.exists`, these never raise.
    if os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError(f"The accounts file {path} could not be read: it is not a regular file. {_HOW}")
    if os.path.exists(path) and os.path.getsize(path) > MAX_BYTES:
        raise ConfigError(f"The accounts file {path} is larger than {MAX_BYTES // 10**6} MB. {_HOW}")
    return read_text(path, "accounts file")


def _parsed(path: Path, text: str) -> tuple[dict[str, str], list[str]]:
    """The accounts of all good lines, and a sentence on each other line. Of two with one name the first counts."""
    accounts: dict[str, str] = {}
    faults = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.rstrip().partition(":")
        match = _HASH.fullmatch(hashed)
        if not acceptable_name(name):
            fault = f"has no usable name before the first colon. {_HOW}"
        elif name in accounts:
            fault = f"names {name} a second time. Remove one of the two."
        elif match is None:
            fault = f"holds no bcrypt hash ($2y$, $2b$ or $2a$). {_HOW}"
        elif not 4 <= int(match[1]) <= MAX_COST:
            fault = f"has bcrypt cost {match[1]}; 4 to {MAX_COST} is allowed. {_HOW}"
        else:
            accounts[name] = hashed
            continue
        faults.append(f"Line {number} of the accounts file {path} {fault}")
    return accounts, faults


def password_fault(password: str) -> str | None:
    """Why a new password is refused, as a sentence; None if it is fine."""
    if len(password) < MIN_PASSWORD:
        return f"The password has {len(password)} characters; at least {MIN_PASSWORD} are needed."
    size = len(password.encode())
    if size > MAX_PASSWORD_BYTES:
        return f"The password has {size} bytes; bcrypt takes at most {MAX_PASSWORD_BYTES}."
    return None


def put_account(path: Path, name: str, password: str | None) -> bool:
    """Add or replace one line, or remove it (`password=None`); whether the name was there.

    The file appears whole, other lines stay as they are. A new file is private; an old one keeps its owner and mode.

    Raises:
        ConfigError: name or password is refused, the file holds something else, or cannot be written.
    """
    if not acceptable_name(name) or ":" in name or name.startswith("#"):
        raise ConfigError(f"{name!r} cannot be a name: 1 to 128 printable characters without colons are allowed.")
    fault = None if password is None else password_fault(password)
    if fault:
        raise ConfigError(fault)
    path = Path(os.path.realpath(path))  # a link stays a link
    there = os.path.exists(path)
    text = _text(path) if there else ""
    faults = _parsed(path, text)[1]
    if faults:  # never write into a file that is something else
        raise ConfigError(faults[0])
    lines = text.splitlines()
    kept = [line for line in lines if line.partition(":")[0] != name]
    line = [] if password is None else [f"{name}:{hashed(password)}"]
    try:
        before = path.stat() if there else None
        mode = before.st_mode & 0o660 if before else PRIVATE
        write_over(path, "".join(f"{text}\n" for text in kept + line).encode(), mode)
        if before and (before.st_uid, before.st_gid) != (path.stat().st_uid, path.stat().st_gid):
            with suppress(OSError):  # the server that reads it may run as another user
                os.chown(path, before.st_uid, before.st_gid)
    except OSError as error:
        raise ConfigError(f"The accounts file {path} could not be written ({error.strerror}).") from error
    return len(kept) < len(lines)


def hashed(password: str, cost: int = COST) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


@dataclass(frozen=True)
class _Reading:
    """What the file held when it was read last."""

    text: str | None = None
    """None where it could not be read."""
    accounts: dict[str, str] = field(default_factory=dict)
    fault: str = ""
    """Why nobody can log in; empty where somebody can."""
    cost: int = COST
    """Of the costliest hash."""


class Accounts:
    """The accounts of a file, which is read again at each use: whoever is not in it now is nobody.

    Raises:
        ConfigError: the file is refused at the start. Later a bad line counts for nobody, and neither does a file that
            cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        text = _text(path)  # read first: what changes meanwhile is seen as a change
        accounts = read_accounts(path)
        self._last = _Reading(text, accounts, cost=_dearest(accounts))
        if path.stat().st_mode & 0o004:
            logger.warning("Everybody on this machine can read %s: `chmod o-r` it.", path)

    def check(self, name: str, password: str) -> bool:
        """Whether a password is right. Takes as long as the costliest account of the file takes, whoever is named."""
        now = self._read()
        known = now.accounts.get(name)
        secret = password.encode(errors="surrogatepass")
        fits = len(secret) <= MAX_PASSWORD_BYTES
        secret = secret[:MAX_PASSWORD_BYTES]
        right = bcrypt.checkpw(secret, (known or _decoy(now.cost)).encode())
        for cost in range(_cost(known), now.cost) if known else ():  # 2^a + 2^a + 2^(a+1) + ... + 2^(b-1) is 2^b
            bcrypt.checkpw(secret, _decoy(cost).encode())
        return right and fits and known is not None and self.hash_of(name) == known  # it may have changed meanwhile

    def hash_of(self, name: str) -> str | None:
        """The hash of a password; None if there is no such account."""
        return self._read().accounts.get(name)

    def fault(self) -> str:
        """Why nobody can log in at the moment, as a sentence for visitors; empty if somebody can."""
        return self._read().fault

    def _read(self) -> _Reading:
        """Any thread may call it. Of two that find a change, each uses what it read."""
        last = self._last
        try:
            text = _text(self._path)
        except ConfigError as error:
            if last.text is not None:
                logger.error("%s Until that is mended, nobody can log in.", error)
                self._last = _Reading(fault=UNREADABLE)
            return _Reading(fault=UNREADABLE)
        if text == last.text:
            return last
        accounts, faults = _parsed(self._path, text)
        for sentence in faults:
            logger.warning("%s The other lines count.", sentence)
        logger.info("Read %d accounts from %s.", len(accounts), self._path)
        if not accounts:
            logger.error("The accounts file %s has no accounts: nobody can log in. %s", self._path, _HOW)
        self._last = now = _Reading(text, accounts, "" if accounts else EMPTY, _dearest(accounts))
        return now


def _cost(hashed_one: str) -> int:
    return int(hashed_one.split("$")[2])


def _dearest(accounts: dict[str, str]) -> int:
    return max(map(_cost, accounts.values()), default=COST)


def _decoy(cost: int) -> str:
    """A hash that no password is known for."""
    return f"$2b${cost:02}$" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(21)) + "." * 32
