"""Requests by plain HTTP, each in a thread of its own, and what came of them as far as their sender heard."""

import http.client
import json
import threading
from typing import Any

from uso.web.identity import BROWSER_COOKIE

BROWSER = "b" * 43
"""The key of the browser whose history the pictures join."""

LONG = 180.0
"""Seconds until a sender gives up."""


class Sent:
    """One request to `/generate`.

    `job` is its id as soon as that was told; `end` is "done", "error" (`said` has the sentence), "lost" (the connection
    broke) or "refused" (nothing was taken); empty while it goes on.
    """

    def __init__(self, port: int, **values: Any) -> None:
        self.job: str | None = None
        self.end = ""
        self.said = ""
        self._port = port
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
            event = self._post()
            taken = event is not None
            if event is not None:
                self._listen(event)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.end, self.said = "lost" if taken else "refused", type(error).__name__
        else:
            self.end = self.end or ("lost" if taken else "refused")

    def _post(self) -> str | None:
        data = [
            self._values.get("prompt", "a fox"), None, None, None, self._values.get("width", 128),
            self._values.get("height", 128), False, self._values.get("steps", 4), 4.0, 128, self._values.get("seed", 1),
        ]  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LONG)
        try:
            body = json.dumps({"data": data})
            headers = {"Content-Type": "application/json", "Cookie": f"{BROWSER_COOKIE}={BROWSER}"}
            connection.request("POST", "/gradio_api/call/generate", body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status != 200:
            self.said = text
            return None
        return str(json.loads(text)["event_id"])

    def _listen(self, event: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LONG)
        try:
            connection.request("GET", f"/gradio_api/call/generate/{event}")
            name = ""
            for line in connection.getresponse():
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    self._hear(name, json.loads(value))
        finally:
            connection.close()

    def _hear(self, event: str, data: Any) -> None:
        if event in ("generating", "complete") and data:
            self.job = data[1]["job"]
            if data[1]["state"] == "done":
                self.end = "done"
        elif event == "error":
            self.end, self.said = "error", str((data or {}).get("error"))
