"""The routes that answer with pictures: one as it is, several as a zip file. The browser shows by its login or cookie
whose they are.

Ids come from the browser. Those that are not the asker's are left out; whoever has none of them gets 404.
"""

import re
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, StreamingResponse

from uso.language import tr
from uso.web.access.identity import asker_of
from uso.web.store import archive, history
from uso.web.store.ledger import Ledger

ROUTE = "pictures.zip"
"""Relative to the page, so that it works under any root path."""

_IDS = re.compile(rf"[0-9a-f]{{32}}(?:,[0-9a-f]{{32}}){{0,{archive.MOST - 1}}}")

_Ids = Annotated[str, Query(json_schema_extra={"pattern": f"^{_IDS.pattern}$"})]
"""The schema says it; the refusal is a sentence of ours."""


def add_downloads(app: FastAPI, ledger: Ledger) -> None:
    @app.get("/pictures/{picture_id}.png", response_class=FileResponse, responses={404: {}})
    def one_picture(request: Request, picture_id: str) -> FileResponse:  # no coroutine, so a thread runs it
        """One of one's own pictures, byte for byte."""
        found = history.own(ledger, asker_of(request).owner, picture_id)
        if found is None:
            raise HTTPException(404, tr("This picture is no longer on the server."))
        return FileResponse(found.picture.path, headers={"Cache-Control": "private, no-cache"})

    @app.get(f"/{ROUTE}", response_class=StreamingResponse, responses={400: {}, 404: {}})
    def pictures(request: Request, ids: _Ids) -> StreamingResponse:  # no coroutine, so a thread runs it
        """One's own pictures, named by ids with commas between, as a zip file."""
        if not _IDS.fullmatch(ids):
            raise HTTPException(400, tr("Name 1 to {} pictures by their ids, with commas between.", archive.MOST))
        owner = asker_of(request).owner
        found = [history.own(ledger, owner, one) for one in dict.fromkeys(ids.split(","))]
        mine = [one for one in found if one is not None]
        if not mine:
            raise HTTPException(404, tr("These pictures are no longer on the server."))
        headers = {"Content-Disposition": 'attachment; filename="uso-pictures.zip"', "Cache-Control": "no-store"}
        return StreamingResponse(archive.zipped(mine), media_type="application/zip", headers=headers)
