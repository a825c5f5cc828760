"""How the server was asked to behave: plain values, read from flags once and never changed. No libraries here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Orphans = Literal["cancel", "finish"]
ORPHANS: tuple[Orphans, ...] = ("cancel", "finish")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What `app.py`'s flags say about the server; sizes and times in the units of the names."""

    output: Path
    """Folder of finished pictures, and of what is remembered about them."""
    host: str = "127.0.0.1"
    port: int = 7860
    root_path: str = ""
    """Where a proxy shows the page, such as `/uso`; empty at the root."""
    bind_when_ready: bool = False
    """Refuse connections until the model is loaded (or has failed to)."""
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    """Addresses and networks whose word on a caller's address and name is taken; `*` is everybody."""

    allowed_hosts: tuple[str, ...] = ()
    """Names, beside localhost, under which the server may be asked for; empty: only localhost where it listens on this
    machine alone and no proxy stands before it, else any."""

    accounts: Path | None = None
    """File of names and hashed passwords; whoever is not in it is not let in."""
    user_header: str | None = None
    """Header in which a trusted proxy names the person that it has logged in."""
    safety: str | None = None
    """`module:function` that is asked about every prompt and every picture."""
    mcp: bool = False
    """Offer the endpoints as MCP tools."""

    max_upload_mb: int = 64
    """Of one image file, 10^6 bytes."""
    max_megapixels: float = 89.0
    """Of one image, 10^6 pixels."""
    rate: int = 60
    """Requests that one person may make in a minute; 0: any number."""
    max_waiting: int = 100
    """Requests that wait at the same time."""
    max_waiting_per_person: int = 8
    """Of these, of one person."""

    orphans: Orphans = "cancel"
    """What happens to a job whose page was closed."""
    orphan_grace: float = 15.0
    """Seconds for which it may come back (a reload) before that."""
    grace: float = 45.0
    """Seconds that a running job may take to finish after SIGTERM."""

    prune_days: float | None = None
    """Age at which finished pictures are removed; None: never."""
    prune_gb: float | None = None
    """Size of the output folder from which the oldest pictures are removed, 10^9 bytes; None: never."""
    min_free_gb: float = 0.5
    """Free disk space, 10^9 bytes, below which no new request is taken."""

    log_prompts: bool = False
    """Write prompts into the log, one line per job; without it none is."""
