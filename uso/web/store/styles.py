"""Saved styles on the server: a shelf for each owner, and one that the server's owner fills for everybody.

Owners are those of `Asker.owner`, as for the history. A shelf is a folder beside the ledger, called by a hash of its
owner, so what a browser sends never becomes a path: it is compared with what lies on the shelf.
"""

import shutil
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from uso.errors import RequestError
from uso.language import Text
from uso.request.references import SavedStyle
from uso.request.styles import StyleEntry, StyleFolder
from uso.web.settings import ServerSettings
from uso.web.store.ledger import FOLDER
from uso.web.store.uploads import size_of

STYLES = "styles"

MAX_SHELF_BYTES = 200 * 2**20
"""Of one owner."""
MAX_BYTES = 10 * 2**30
"""Of all owners together: whoever deletes cookies is a new owner each time."""

OWN, SHARED = "own", "shared"

NO_OWNER = Text("This browser keeps no cookies, so no styles can be kept for you.")


@dataclass(frozen=True)
class OnShelf:
    """A style that an asker may use."""

    key: str
    """`own:` or `shared:`, and the id in its folder."""
    entry: StyleEntry

    @property
    def own(self) -> bool:
        return self.key.startswith(OWN)


class Shelves:
    """For any thread.

    Args:
        settings: the output folder, beside whose ledger the shelves are, and the shared folder.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._folder = settings.output / FOLDER / STYLES
        self._shared = StyleFolder(settings.styles) if settings.styles else None

    def styles(self, owner: str | None) -> list[OnShelf]:
        """Everything that an owner may use, their own first."""
        shelves = [(OWN, None if owner is None else self._shelf(owner)), (SHARED, self._shared)]
        return [OnShelf(f"{kind}:{entry.id}", entry) for kind, shelf in shelves if shelf for entry in shelf.entries()]

    def get(self, owner: str | None, key: Any) -> SavedStyle:
        """A style that an owner may use.

        Raises:
            RequestError: there is none, or it is another's.
        """
        kind, _, name = key.partition(":") if isinstance(key, str) else ("", "", "")
        shelf = self._shared if kind == SHARED else self._own(owner) if kind == OWN else None
        if shelf is None or not any(entry.id == name for entry in shelf.entries()):
            raise RequestError(Text("That style is no longer there."))
        return shelf.get(name)

    def add(self, owner: str | None, style: SavedStyle) -> OnShelf:
        """Keep a style on an owner's shelf.

        Raises:
            RequestError: its name is taken, there is no room, or it cannot be written.
            ImageError: its file cannot be used.
        """
        shelf = self._own(owner)
        if size_of(shelf.path) + len(style.data) > MAX_SHELF_BYTES:
            raise RequestError(Text("Your styles take {} MB already. Delete some first.", MAX_SHELF_BYTES >> 20))
        if self._full(len(style.data)):
            raise RequestError(Text("The server has no room for more styles. Tell the one who runs it."))
        entry = shelf.add(style)
        return OnShelf(f"{OWN}:{entry.id}", entry)

    def check_new(self, owner: str | None, title: str) -> None:
        """Refuse a name that `add` would refuse, before anything is made.

        Raises:
            RequestError: it is taken, or the owner has no shelf.
        """
        self._own(owner).check_new(title)

    def rename(self, owner: str | None, key: Any, new: Any) -> None:
        """
        Raises:
            RequestError: it is not the owner's, or the new name is taken or no name.
        """
        self._own(owner).rename(self._id(owner, key), new)

    def delete(self, owner: str | None, key: Any) -> None:
        """
        Raises:
            RequestError: it is not the owner's.
        """
        self._own(owner).delete(self._id(owner, key))

    def _id(self, owner: str | None, key: Any) -> str:
        found = next((one for one in self.styles(owner) if one.key == key), None)
        if found is None:
            raise RequestError(Text("That style is no longer there."))
        if not found.own:
            raise RequestError(Text("This style is on the shared shelf, which only the server's owner changes."))
        return found.entry.id

    def _own(self, owner: str | None) -> StyleFolder:
        if owner is None:
            raise RequestError(NO_OWNER)
        return self._shelf(owner)

    def _shelf(self, owner: str) -> StyleFolder:
        return StyleFolder(self._folder / sha256(owner.encode()).hexdigest())

    def _full(self, more: int) -> bool:
        try:
            free = shutil.disk_usage(self._settings.output).free
        except OSError:
            return False  # writing tells what is wrong
        return free - more < self._settings.min_free_gb * 10**9 or size_of(self._folder) + more > MAX_BYTES
