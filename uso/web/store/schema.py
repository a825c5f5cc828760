"""The tables of the ledger, and how those of earlier versions become those of this one."""

import sqlite3

from uso.web.jobs.job import digest

_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, owner TEXT, instance TEXT NOT NULL, state TEXT NOT NULL, error TEXT NOT NULL DEFAULT '',
    accepted REAL NOT NULL, ended REAL
);
CREATE TABLE IF NOT EXISTS pictures (
    id TEXT PRIMARY KEY, job TEXT NOT NULL, owner TEXT, file TEXT NOT NULL, made REAL NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, seed INTEGER NOT NULL, steps INTEGER NOT NULL,
    seconds REAL NOT NULL, thumb BLOB, prompt TEXT NOT NULL, refs TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS removals (file TEXT PRIMARY KEY, refs TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS presets (
    owner TEXT NOT NULL, name TEXT NOT NULL, fields TEXT NOT NULL, PRIMARY KEY (owner, name)
);
"""
"""`removals`: files of deleted pictures that may still be on the disk (`deletion.py`)."""

_LATER = (
    ("pictures", "digest", "TEXT"),
    ("pictures", "favourite", "INTEGER NOT NULL DEFAULT 0"),
    ("pictures", "names", "TEXT NOT NULL DEFAULT ''"),
    ("jobs", "deleted", "INTEGER NOT NULL DEFAULT 0"),
    ("jobs", "tab", "TEXT NOT NULL DEFAULT ''"),
    ("jobs", "num_images", "INTEGER NOT NULL DEFAULT 1"),
)
"""Columns that earlier versions did not have: (table, name, type). `jobs.deleted`: its pictures that were deleted."""

_INDICES = """
CREATE INDEX IF NOT EXISTS jobs_open ON jobs (state);
CREATE INDEX IF NOT EXISTS jobs_by_end ON jobs (ended);
CREATE INDEX IF NOT EXISTS jobs_of_tab ON jobs (tab);
CREATE INDEX IF NOT EXISTS pictures_of_owner ON pictures (owner);
CREATE INDEX IF NOT EXISTS pictures_favourite ON pictures (owner) WHERE favourite;
CREATE INDEX IF NOT EXISTS pictures_of_job ON pictures (job);
CREATE INDEX IF NOT EXISTS pictures_by_digest ON pictures (digest);
CREATE INDEX IF NOT EXISTS pictures_to_prune ON pictures (made, id, file, refs);
DROP INDEX IF EXISTS pictures_of;
DROP INDEX IF EXISTS pictures_by_age;
"""
"""The last but two holds all that pruning reads, beside thumbnails that take a hundred times as much."""


def bring_up_to_date(db: sqlite3.Connection) -> None:
    """Make the tables and indices, or bring those of earlier versions up to date, which still can use them."""
    db.executescript(_TABLES)
    with db:
        db.execute("BEGIN IMMEDIATE")  # another server may do the same
        for table, name, kind in _LATER:
            if name not in [column[1] for column in db.execute(f"PRAGMA table_info({table})")]:
                db.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
    db.executescript(_INDICES)
    with db:  # an earlier version enters none
        missing = db.execute("SELECT DISTINCT job FROM pictures WHERE digest IS NULL").fetchall()
        db.executemany("UPDATE pictures SET digest = ? WHERE job = ?", ((digest(job), job) for (job,) in missing))
