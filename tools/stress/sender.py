"""Requests by plain HTTP, each in a thread of its own, and what came of them as far as their sender heard."""

import http.client
import json
import threading
from collections.abc import Callable
from typing import Any

from uso.web.access.identity import BROWSER_COOKIE

BROWSER = "b" * 43
"""The key of the browser whose history the pictures join."""

LONG = 180.0
"""Seconds until a sender gives up."""


class Sent:
    """One request to `/generate`.

    `job` is its id as soon as that was told; `end` is "done", "error" (`said` has the sentence), "lost" (the connection
    broke) or "refused" (nothing was taken); empty while it goes on.

    Args:
        address: the sender's own.
        values: of the request.
    """

    def __init__(self, port: int, *, address: str | None = None, **values: Any) -> None:
        self.job: str | None = None
        self.end = ""
        self.said = ""
        self._port = port
        self._address = address
        self._values = values
        self._thread = threading.Thread(target=self._go, daemon=True)
        self._thread.start()

    def note(self) -> dict[str, Any]:
        """In the form of `verify.agree`."""
        self._thread.join(LONG)
        return {"job": self.job, "end": self.end or "gone", "said": self.said}

    def _go(self) -> None:
        taken = False
        try:
            event = call(self._port, "generate", self._data(), self._address)
            taken = event is not None
            if event is not None:
                hear(self._port, "generate", event, self._hear)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.end, self.said = "lost" if taken else "refused", type(error).__name__
        else:
            self.end = self.end or ("lost" if taken else "refused")

    def _data(self) -> list[Any]:
        values = {"prompt": "a fox", "width": 128, "height": 128, "steps": 4, "seed": 1, "num_images": 1}
        values |= self._values
        size = [values["width"], values["height"]]
        return [
            values["prompt"],
            None,
            None,
            None,
            *size,
            False,
            values["steps"],
            4.0,
            128,
            values["seed"],
            values["num_images"],
        ]

    def _hear(self, event: str, data: Any) -> None:
        if event in ("generating", "complete") and data:
            self.job = data[1]["job"]
            if data[1]["state"] == "done":
                self.end = "done"
        elif event == "error":
            self.end, self.said = "error", str((data or {}).get("error"))


def call(port: int, verb: str, values: list[Any], address: str | None = None) -> str | None:
    """Call an endpoint, from an address of one's own; the id under which its news can be heard, or None if it was not
    taken."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
    try:
        headers = {"Content-Type": "application/json", "Cookie": f"{BROWSER_COOKIE}={BROWSER}"}
        if address is not None:
            headers["X-Forwarded-For"] = address
        connection.request("POST", f"/gradio_api/call/{verb}", json.dumps({"data": values}), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    return str(json.loads(text)["event_id"]) if answer.status == 200 else None


def hear(port: int, verb: str, event: str, on_news: Callable[[str, Any], None]) -> None:
    """Everything that is told of a call, until it is over; (name of the event, data)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
    try:
        connection.request("GET", f"/gradio_api/call/{verb}/{event}")
        name = ""
        for line in connection.getresponse():
            key, _, value = line.decode().rstrip("\n").partition(": ")
            if key == "event":
                name = value
            elif key == "data":
                on_news(name, json.loads(value))
    finally:
        connection.close()
