"""Files out of Python wheels and Debian packages: of the installed package, of one in a folder, or fetched into it.

Fetching is left to `pip download` and `apt-get download`, which verify what they bring. Nothing is installed.
"""

import importlib.util
import io
import lzma
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from uso.errors import ConfigError
from uso.evaluation.bench.config import Package

_AR_MAGIC, _AR_HEAD = b"!<arch>\n", 60


class Opened:
    """A package whose files can be read.

    Args:
        folder: where downloaded packages lie, or are fetched to.
        fetch: whether one that is not there may be fetched.
        say: prints what is fetched.
    """

    def __init__(self, name: str, package: Package, folder: Path, fetch: bool, say: Callable[[str], object]) -> None:
        self.name, self.package, self.folder, self.fetch, self.say = name, package, folder, fetch, say
        self._archive: zipfile.ZipFile | tarfile.TarFile | None = None

    def installed(self, path: str) -> Path:
        """Where a file would be if the package is installed."""
        if self.package.kind == "deb":
            return Path("/", path)
        found = importlib.util.find_spec(path.split("/")[0])
        return Path(found.origin).parents[1] / path if found and found.origin else Path("/nowhere", path)

    def packed(self, path: str) -> bytes:
        """A file of the package that lies in the folder, which is fetched first if necessary.

        Raises:
            ConfigError: it is not there and cannot be fetched, or holds no such file.
        """
        if self._archive is None:
            self._archive = self._open(self._file())
        try:
            if isinstance(self._archive, zipfile.ZipFile):
                return self._archive.read(path)
            member = self._archive.extractfile(f"./{path}")
            assert member is not None
            return member.read()
        except KeyError as error:
            raise ConfigError(f"{self.name} {self.package.version} holds no {path}.") from error

    def _file(self) -> Path:
        version = self.package.version
        found = self._here()
        if not found and self.fetch:
            self._fetch()
            found = self._here()
        if not found:
            raise ConfigError(
                f"{self.name} {version} is neither installed nor in {self.folder}. Put its "
                f"{'wheel (PyPI)' if self.package.kind == 'wheel' else '.deb (Debian)'} there, "
                "or give pictures of your own: --references FOLDER."
            )
        return found[0]

    def _here(self) -> list[Path]:
        """The package's file in the folder; a .deb may be of another release, as each of its pictures is verified."""
        if self.package.kind == "wheel":
            return sorted(self.folder.glob(f"{self.name.replace('-', '_')}-{self.package.version}-*.whl"))
        found = sorted(self.folder.glob(f"{self.name}_*.deb"))
        return sorted(found, key=lambda path: not path.name.startswith(f"{self.name}_{self.package.version}_"))

    def _fetch(self) -> None:
        deb = self.package.kind == "deb"
        if deb and shutil.which("apt-get") is None:
            return
        pin = f"{self.name}{'=' if deb else '=='}{self.package.version}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        self.say(f"Fetching {pin} ...")
        self.folder.mkdir(parents=True, exist_ok=True)
        for wanted in (pin, self.name) if deb else (pin,):  # a Debian has one release of each package
            command = ["apt-get", "download", "--quiet", wanted] if deb else [*pip, wanted]
            done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                break
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ConfigError(
                f"{pin} could not be fetched ({said}). Run it again{', after apt-get update' if deb else ''}, or put "
                f"the package into {self.folder}."
            )

    def _open(self, path: Path) -> zipfile.ZipFile | tarfile.TarFile:
        try:
            if self.package.kind == "wheel":
                return zipfile.ZipFile(path)
            return tarfile.open(fileobj=io.BytesIO(_data_of(path)))
        except (OSError, ValueError, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise ConfigError(f"{path} cannot be opened as a package ({error}). Remove it, and run again.") from error


def _data_of(path: Path) -> bytes:
    """The archive of files in a Debian package, which is an `ar` archive of three members."""
    data, place = path.read_bytes(), len(_AR_MAGIC)
    if not data.startswith(_AR_MAGIC):
        raise ValueError("it is no Debian package")
    while place < len(data):
        head = data[place : place + _AR_HEAD]
        name, size = head[:16].decode("ascii").strip().rstrip("/"), int(head[48:58])
        place += _AR_HEAD
        if name.startswith("data.tar"):
            if not name.endswith(".xz"):
                raise ValueError(f"{name} is compressed in a way that is not read here")
            return lzma.decompress(data[place : place + size])  # whole: files are read in any order
        place += size + size % 2
    raise ValueError("it holds no files")
