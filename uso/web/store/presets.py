"""Presets: the values of the page's fields under names, kept for each owner; and as JSON files that people share.

Images are in none of them: a file stays small, and nobody's photograph is passed on unseen. Values are only held to
their form here. The page checks them against its model when a preset is used, as it does with a picture's.
"""

import json
from typing import Any

from uso.errors import RequestError
from uso.language import Text
from uso.web.store.ledger import Ledger

FORMAT = "uso-preset/1"

MOST = 100
"""Of one owner."""

MAX_NAME = 60
"""Characters."""

MAX_BYTES = 64_000
"""Of one preset as JSON; the longest prompt takes 40,000."""

Fields = dict[str, Any]
"""A value for each field, by name."""

NOBODY = Text("This browser keeps no cookies, so presets cannot be kept here. Export them to files instead.")


def presets(ledger: Ledger, owner: str | None) -> dict[str, Fields]:
    """An owner's presets by name, in alphabetical order."""
    with ledger.transaction() as db:
        rows = db.execute("SELECT name, fields FROM presets WHERE owner = ?", (owner,)).fetchall()
    return {name: json.loads(fields) for name, fields in sorted(rows, key=lambda row: row[0].casefold())}


def save(ledger: Ledger, owner: str | None, name: Any, fields: Fields) -> str:
    """Keep a preset, in place of one of that name; returns its name.

    Raises:
        RequestError: it cannot be kept, in a sentence.
    """
    name, text = _name(name), _text(fields)
    if owner is None:
        raise RequestError(NOBODY)
    with ledger.transaction() as db:
        others = "SELECT count(*) FROM presets WHERE owner = ? AND name != ?"
        if db.execute(others, (owner, name)).fetchone()[0] >= MOST:
            raise RequestError(Text("You have {} presets, and no more can be kept. Delete one first.", MOST))
        db.execute("INSERT OR REPLACE INTO presets (owner, name, fields) VALUES (?, ?, ?)", (owner, name, text))
    return name


def rename(ledger: Ledger, owner: str | None, name: Any, new: Any) -> str:
    """Give a preset another name, and return that.

    Raises:
        RequestError: there is no such preset, or the name is taken or cannot be used.
    """
    _check_chosen(name)
    new = _name(new)
    with ledger.transaction() as db:
        if new != name and db.execute(_ONE, (owner, new)).fetchone():
            raise RequestError(Text("There is a preset “{}” already. Choose another name.", new))
        if not db.execute("UPDATE presets SET name = ? WHERE owner = ? AND name = ?", (new, owner, name)).rowcount:
            raise RequestError(MISSING)
    return new


def delete(ledger: Ledger, owner: str | None, name: Any) -> None:
    """Delete a preset.

    Raises:
        RequestError: there is no such preset.
    """
    _check_chosen(name)
    with ledger.transaction() as db:
        if not db.execute("DELETE FROM presets WHERE owner = ? AND name = ?", (owner, name)).rowcount:
            raise RequestError(MISSING)


_ONE = "SELECT fields FROM presets WHERE owner = ? AND name = ?"
MISSING = Text("There is no such preset any more. Choose one first.")


def _check_chosen(name: Any) -> None:
    if not name:
        raise RequestError(Text("Choose a preset first."))


def preset(ledger: Ledger, owner: str | None, name: Any) -> Fields:
    """A preset of an owner.

    Raises:
        RequestError: there is none.
    """
    with ledger.transaction() as db:
        row = db.execute(_ONE, (owner, name)).fetchone() if isinstance(name, str) else None
    if row is None:
        raise RequestError(MISSING)
    found: Fields = json.loads(row[0])
    return found


def free_name(ledger: Ledger, owner: str | None, name: str) -> str:
    """A name, with a number where the owner has a preset of that name."""
    taken, free, number = presets(ledger, owner), name, 1
    while free in taken:
        number += 1
        end = f" ({number})"
        free = name[: MAX_NAME - len(end)] + end
    return free


def to_file(name: Any, fields: Fields) -> str:
    """A preset as the text of a file.

    Raises:
        RequestError: the name cannot be used.
    """
    return json.dumps({"format": FORMAT, "name": _name(name), "fields": fields}, ensure_ascii=False, indent=2) + "\n"


def from_file(data: bytes) -> tuple[str, Fields]:
    """(name, fields) of a file.

    Raises:
        RequestError: it is no preset.
    """
    try:
        if len(data) > 2 * MAX_BYTES:
            raise ValueError
        content = json.loads(data)
        if content["format"] != FORMAT:
            raise ValueError
        fields = content["fields"]
        text = _text(fields)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RequestError(
            Text("This file is no preset of USO. Choose a .json file that was exported here.")
        ) from error
    return _name(content.get("name")), json.loads(text)


def _name(name: Any) -> str:
    name = " ".join(name.split()) if isinstance(name, str) else ""
    if not name:
        raise RequestError(Text("Give the preset a name."))
    if len(name) > MAX_NAME or not name.isprintable():
        raise RequestError(Text("A preset's name has at most {} printable characters.", MAX_NAME))
    return name


def _text(fields: Any) -> str:
    """The fields as JSON.

    Raises:
        RequestError: they are no plain values, or too much.
    """
    plain = (str, int, float, bool, type(None))
    if not isinstance(fields, dict) or not all(
        isinstance(name, str) and isinstance(value, plain) for name, value in fields.items()
    ):
        raise RequestError(Text("A preset holds texts, numbers and switches only."))
    text = json.dumps(fields, ensure_ascii=False)
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise RequestError(Text("The preset holds half of a character (a lone surrogate). Type it again.")) from error
    if size > MAX_BYTES:
        raise RequestError(Text("The preset takes more than {} kB. Shorten the prompt.", MAX_BYTES // 1000))
    return text
