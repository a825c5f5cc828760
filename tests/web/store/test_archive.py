"""Pictures as a zip file: whole, with their records, under safe names, piece by piece."""

import io
import json
import zipfile
from pathlib import Path

from tests.support.kept import kept, new_job
from uso.web.store import archive
from uso.web.store.archive import zipped
from uso.web.store.history import recent, set_favourite
from uso.web.store.recovery import open_ledger


def test_pictures_and_their_records_are_in_it(tmp_path: Path) -> None:
    """Catches a file that is cut off, a record of another picture, two under one name, and a name that leaves the
    folder it is unpacked in; and silence about a picture that is gone."""
    ledger = open_ledger(tmp_path)
    made = [kept(ledger, new_job(prompt=f"fox {number}"), tmp_path / folder) for number, folder in enumerate("aab")]
    odd = made[2].path.rename(tmp_path / "b" / made[1].path.name)
    with ledger.transaction() as db:
        db.execute("UPDATE pictures SET file = ? WHERE id = ?", (str(odd), made[2].id))
    slip = made[0].path.rename(made[0].path.with_name("..\\..\\evil: ü.png"))
    with ledger.transaction() as db:
        db.execute("UPDATE pictures SET file = ? WHERE id = ?", (str(slip), made[0].id))
    set_favourite(ledger, "browser:ann", made[1].id, True)
    listed = recent(ledger, "browser:ann")
    lost = kept(ledger, new_job(), tmp_path)
    listed += recent(ledger, "browser:ann", 1)
    lost.path.unlink()
    pieces = list(zipped(listed))
    assert len(pieces) > 3
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as opened:
        assert opened.testzip() is None
        stem = made[1].path.stem
        pictures = [f"{stem}.png", f"{stem}-2.png", "______evil___.png"]
        names = opened.namelist()
        assert sorted(names) == sorted([*pictures, *(f"{name[:-4]}.json" for name in pictures), "missing.txt"])
        assert (
            opened.read(f"{stem}.png") == odd.read_bytes() and opened.read(f"{stem}-2.png") == made[1].path.read_bytes()
        )
        record = json.loads(opened.read(f"{stem}-2.json"))
        assert record["request"]["prompt"] == "fox 1" and record["favourite"] is True
        assert lost.path.name in opened.read("missing.txt").decode()
    ledger.close()


def test_little_is_in_memory_at_a_time(tmp_path: Path) -> None:
    """Catches a file that is made as a whole before the first byte is sent."""
    ledger = open_ledger(tmp_path)
    picture = kept(ledger, new_job(), tmp_path)
    with picture.path.open("ab") as file:
        file.write(bytes(20 * archive.PIECE))
    (found,) = recent(ledger, "browser:ann")
    assert max(map(len, zipped([found]))) < 2 * archive.PIECE
    ledger.close()
