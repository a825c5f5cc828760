"""Why a package cannot be imported, as a sentence: it is missing, or does not fit the PyTorch that is installed."""

import re
from importlib import metadata

from uso.config import ROOT

REQUIREMENTS = tuple(f"requirements{part}.txt" for part in ("", "-train", "-evaluate", "-ray", "-dev"))
_IMPORT_NAMES = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "skimage": "scikit-image",
    "grpc": "grpcio",
}
"""Modules that are not called as the package that brings them."""

_COMPILED = ("torchvision", "torchaudio", "torchao", "bitsandbytes", "xformers", "flash_attn", "triton")
"""Packages built for one version of PyTorch, which transformers and diffusers import wherever they find them."""
_OPERATOR = re.compile(r"operator (\w+)::|Couldn't load custom C\+\+ ops|undefined symbol|partially initialized module")


def import_problem(error: BaseException) -> str | None:
    """What a failed import means and what to do; None if `error` is something else."""
    chain = _chain(error)
    if not any(isinstance(each, ImportError) or _OPERATOR.search(str(each)) for each in chain):
        return None
    text = "\n".join(f"{each} {_places(each)}" for each in chain)
    for each in reversed(chain):
        name = (each.name or "").partition(".")[0] if isinstance(each, ModuleNotFoundError) else ""
        if name and name not in ("uso", "tools") and not _installed(name):
            return _missing(name)
    misfit = next((name for name in _COMPILED if re.search(rf"\b{name}(::|[./\\ ]|\b)", text)), None)
    if misfit is not None:
        return (
            f"The package {misfit}{_version(misfit)} does not fit the PyTorch that is installed{_version('torch')}, "
            f"and cannot be imported. This program does not need it: pip uninstall {misfit}. Or install the release "
            "that belongs to that PyTorch."
        )
    if isinstance(error, ImportError):
        name = (error.name or "").partition(".")[0]
        return f"{name or 'A package'} cannot be imported. Run {_install(name)}."
    return None


def _chain(error: BaseException) -> list[BaseException]:
    """An error and those beneath it, the first cause last."""
    found: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None and seen not in found:
        found.append(seen)
        seen = seen.__cause__ or seen.__context__
    return found


def _places(error: BaseException) -> str:
    """The files that an error passed through."""
    frame, names = error.__traceback__, []
    while frame is not None:
        names.append(frame.tb_frame.f_code.co_filename.rpartition("site-packages")[2])
        frame = frame.tb_next
    return " ".join(names)


def _missing(name: str) -> str:
    package = _IMPORT_NAMES.get(name, name)
    return f"The package {package} is not installed. Run {_install(name)}."


def _install(name: str) -> str:
    package = _IMPORT_NAMES.get(name, name)
    for file in REQUIREMENTS:
        path = ROOT / file
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        if any(_normal(re.split(r"[=<>;\[ ]", line)[0]) == _normal(package) for line in lines):
            return f"pip install -r {file}"
    return f"pip install {package}" if package else f"pip install -r {REQUIREMENTS[0]}"


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def _installed(name: str) -> bool:
    import importlib.util

    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return True


def _version(name: str) -> str:
    try:
        return f" {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return ""
