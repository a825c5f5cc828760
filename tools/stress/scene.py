"""What surrounds a server under attack: files that are nobody's business, and who looks for them in every answer."""

import re
import sys
from collections import Counter
from pathlib import Path
from secrets import token_hex
from urllib.parse import unquote

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.support.running import Program, ask
from tools.stress import wire
from tools.stress.calls import OWN_PATHS, Call, World
from uso.config import ROOT


class Watcher:
    """Looks at every answer; thread-safe, for it only ever adds."""

    def __init__(self, secrets: dict[str, bytes], private: list[str]) -> None:
        """
        Args:
            secrets: what it is, to bytes that must not come back.
            private: places on this machine that an answer may only name if the call did.
        """
        self.secrets = secrets
        self._private = private
        self.statuses: Counter[str] = Counter()
        self.failed_at: Counter[str] = Counter()
        """Routes of Gradio's that answered 5xx."""
        self.faults: list[str] = []

    def look(self, call: Call, answer: wire.Answer) -> None:
        self.statuses[f"{answer.status // 100}xx" if answer.status else "none"] += 1
        said = answer.body + answer.head.encode()
        asked = _all_of(call)
        for what, secret in self.secrets.items():
            if secret in said and secret.decode() not in asked:
                self.faults.append(f"{what} came back from {call!r}")
        for place in self._private:
            if place.encode() in said and place not in asked:
                self.faults.append(f"The place {place} came back from {call!r}")
        path = call.target.split("?")[0]
        if answer.status >= 500:
            if path in OWN_PATHS:
                self.faults.append(f"{answer.status} came from {call!r}")
            self.failed_at[re.sub(r"(call/\w+|file)[/=].*", r"\1", path)[:40]] += 1


def _all_of(call: Call) -> str:
    """Everything that a call says, in each of its spellings."""
    said = call.target + repr(call.headers) + call.body.decode("utf-8", "replace")
    return said + unquote(said) + unquote(unquote(said)) + said.replace("\\\\", "\\") + re.sub(r"/+", "/", said)


class Scene:
    """One server with its folders, things around it that must stay where they are, and somebody's upload."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.canary, self.victim = f"canary-{token_hex(8)}", f"victim-{token_hex(8)}"
        """In files that nobody may read, and in one that somebody else has uploaded: new each time, for hypothesis
        tries whatever constants it finds in the source."""
        self.secret = folder / "secret"
        self.secret.mkdir(parents=True)
        (self.secret / "canary.txt").write_text(self.canary)
        picture = Image.new("RGB", (16, 16), "red")
        picture.save(self.secret / "canary.png", pnginfo=_text(self.canary))
        self.program = Program(folder, *flags, forked=True)
        self.folder = folder

    def ready(self) -> World:
        """Wait for the model; what hostile callers know."""
        self.program.wait_until("ready")
        (uploads,) = self.program.scratch.glob("uso-page-*")
        outputs = self.program.outputs
        targets = [
            *map(str, (self.secret / "canary.txt", self.secret / "canary.png", self.secret)),
            *map(str, (outputs / ".server" / "ledger.sqlite3", outputs / ".login-key", outputs, uploads)),
            *("/etc/passwd", "/proc/self/environ", "/proc/self/cwd/app.py", "/dev/fd/3", "/dev/zero"),
            *map(str, (ROOT / "app.py", ROOT / "configs" / "models" / "demo.yaml")),
        ]
        return World(targets, str(uploads), f"127.0.0.1:{self.program.port}")

    def somebody_uploads(self) -> None:
        """A file of another person's."""
        head = '--b\r\nContent-Disposition: form-data; name="files"; filename="v.txt"\r\n\r\n'
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        body = f"{head}{self.victim}\r\n--b--\r\n".encode()
        assert ask(self.program.port, "/gradio_api/upload", headers, "POST", body).status == 200

    def watcher(self) -> Watcher:
        key = self.program.outputs / ".login-key"
        secrets = {
            "A traceback": b"Traceback (most recent call last)",
            "A file outside": self.canary.encode(),
            "Somebody else's upload": self.victim.encode(),
            "/etc/passwd": b"root:x:0:0:",
            "The ledger": b"SQLite format 3",
            "The environment": b"PYTHONHASHSEED=",
            "The source code": b"def serve(args: argparse.Namespace",
        }
        if key.exists():
            secrets["The key of the logins"] = key.read_bytes()
        return Watcher(secrets, [str(ROOT), sys.prefix, "site-packages", str(self.secret), str(self.program.outputs)])

    def strewn(self) -> list[str]:
        """Files that should not be: copies of what is nobody's business, and anything outside the two folders."""
        allowed = (self.program.outputs, self.program.scratch, self.secret)
        wrong = []
        for path in self.folder.rglob("*"):
            if not path.is_file() or path.is_relative_to(self.secret):
                continue
            if not any(path.is_relative_to(place) for place in allowed) and path.name not in ("log", "people"):
                wrong.append(f"{path.relative_to(self.folder)} was written.")
            if path.name != "log" and self.canary.encode() in path.read_bytes():
                wrong.append(f"{path.relative_to(self.folder)} holds what is nobody's business.")
        return wrong


def _text(words: str) -> PngInfo:
    text = PngInfo()
    text.add_text("words", words)
    return text
