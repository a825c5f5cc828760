"""LoRA files of other programs, as changes of a component's weights.

Known are USO's and XLabs' layout, kohya's, diffusers' and peft's, ai-toolkit's, OneTrainer's, and LoKr (LyCORIS). Every
tensor of a file is used, or the file is refused.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from uso.errors import CheckpointError
from uso.weights.formats.kinds import identify
from uso.weights.formats.layouts import lora_target
from uso.weights.formats.patches import (
    Change,
    FluxPatches,
    Kronecker,
    LowRank,
    NamedPatches,
    Patches,
    Shapes,
    flux_shapes,
)
from uso.weights.formats.tensor_files import TensorFiles

_LISTED = 3

_DOTTED = re.compile(
    r"(?P<module>.+?)\.(?P<leaf>lora_A|lora_B|lora_down|lora_up|(?:lora_linear_layer|lora)\.(?:down|up)|down|up)"
    r"(?:\.default)?(?:\.weight)?"
)
_LOKR = re.compile(r"(?P<module>.+)\.(?P<leaf>lokr_w[12](?:_[ab])?)")
_DOWN = ("lora_A", "lora_down", "lora.down", "lora_linear_layer.down", "down")
_PREFIXES = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "unet.",
    "lora_unet_",
    "lora_unet.",
    "lora_transformer_",
    "lora_transformer.",
    "lycoris_",
    "",
)
"""Before a transformer's module, longest first."""

_TEXT_PREFIXES: tuple[tuple[str, str], ...] = (
    *(
        (f"lora_{short}{mark}", component)
        for mark in "_."
        for short, component in (
            ("te1", "text_encoder"),
            ("te2", "text_encoder_2"),  # OneTrainer's T5
            ("te3", "text_encoder_2"),  # kohya's
            ("te", "text_encoder"),
        )
    ),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder.", "text_encoder"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.t5xxl.transformer.", "text_encoder_2"),
    ("clip_l.transformer.", "text_encoder"),
    ("t5xxl.transformer.", "text_encoder_2"),
)

_REFUSED: tuple[tuple[str, str], ...] = (
    (r"\.dora_scale$|\.lora_magnitude_vector", "a DoRA"),
    (r"\.hada_w[12]", "a LoHa"),
    (r"\.(oft_blocks|oft_diag|boft)", "an OFT"),
    (r"\.lokr_t2$|\.lora_mid", "a LoRA of convolutions"),
    (r"\.lora_B\.bias$", "a control LoRA (FLUX.1 Depth or Canny), or another with biases"),
    (r"\.(diff|diff_b|set_weight)$", "a file of whole differences"),
)


@dataclass(frozen=True)
class AddedLora:
    """One file's changes, by component."""

    transformer: FluxPatches | None
    text_encoder: NamedPatches | None
    text_encoder_2: NamedPatches | None

    def of(self, component: str) -> Patches | None:
        return {
            "transformer": self.transformer,
            "text_encoder": self.text_encoder,
            "text_encoder_2": self.text_encoder_2,
        }[component]


class Targets:
    """Where modules of LoRA files lead: names of weights, dotted or with underscores."""

    def __init__(self, transformer: Shapes, text_encoder: Shapes, text_encoder_2: Shapes) -> None:
        self.transformer = transformer
        self.sources = flux_shapes(transformer)
        self.texts = {"text_encoder": text_encoder, "text_encoder_2": text_encoder_2}
        self._sources = _modules(self.sources)
        self._names = _modules(transformer)
        self._texts = {component: _modules(shapes) for component, shapes in self.texts.items()}

    def find(self, module: str) -> tuple[str, str] | None:
        """(`source`, `name` or a text encoder, the weight's name) that a module changes; None for one that nothing
        here has."""
        for prefix, component in _TEXT_PREFIXES:
            if module.startswith(prefix):
                rest = module.removeprefix(prefix)
                for lead in ("text_model.", "text_model_", ""):
                    if rest.startswith(lead) and (name := self._texts[component].get(rest.removeprefix(lead))):
                        return component, name
        if xlabs := re.search(r"(?:^|\.)((?:double_blocks|single_blocks)\.\d+\.processor\.\w+)$", module):
            try:
                target = lora_target(xlabs[1])
            except KeyError:
                return None
            return ("source", target) if target in self.sources else None
        for prefix in _PREFIXES:
            if not module.startswith(prefix):
                continue
            rest = module.removeprefix(prefix)
            if prefix == "base_model.model." and rest != module:
                return self.find(rest)
            if rest in self._sources:
                return "source", self._sources[rest]
            if rest in self._names:
                return "name", self._names[rest]
        return None

    def shape(self, kind: str, name: str) -> tuple[int, ...]:
        return {"source": self.sources, "name": self.transformer}.get(kind, self.texts.get(kind, {}))[name]


def _modules(shapes: Shapes) -> dict[str, str]:
    """Modules with a weight matrix, dotted and with underscores, to the weight's name."""
    found = {}
    for name, shape in shapes.items():
        if name.endswith(".weight") and len(shape) == 2:
            module = name.removesuffix(".weight")
            found[module] = found[module.replace(".", "_")] = name
    return found


def added_lora(files: TensorFiles, targets: Targets, strength: float) -> AddedLora:
    """Read which weights a LoRA file changes, and how.

    Args:
        strength: what the changes are multiplied by.

    Raises:
        CheckpointError: it is of a kind that cannot be added, fits another model, or holds a tensor of no known use.
    """
    where = files.where("")
    own = next((each for each in identify(files.header) if each.component == "lora" and each.refused), None)
    if own is not None and own.title != "an XLabs LoRA":
        raise CheckpointError(f"{where} is {own.title}, which cannot be added. {own.refused}")
    for pattern, title in _REFUSED:
        if any(re.search(pattern, name) for name in files.shapes):
            raise CheckpointError(f"{where} is {title}, which cannot be added. Only plain LoRAs and LoKr can.")
    changes: dict[str, dict[str, Change]] = {"source": {}, "name": {}, "text_encoder": {}, "text_encoder_2": {}}
    used: set[str] = set()
    strangers: list[str] = []
    for module, parts in _grouped(files.shapes).items():
        target = targets.find(module)
        if target is None:
            strangers.append(module)
            continue
        change = _change(files, module, parts, strength)
        kind, name = target
        _check_fits(where, module, change, kind, name, targets.shape(kind, name))
        if name in changes[kind]:
            raise CheckpointError(f"{where} changes {name} twice.")
        changes[kind][name] = change
        used |= {*parts.values(), f"{module}.alpha"}
    unused = sorted(name for name in files.shapes if name not in used)
    if unused or not used:
        raise CheckpointError(_unused(where, unused, len(files.shapes), strangers))
    flux = FluxPatches(targets.transformer, changes["source"], changes["name"])
    return AddedLora(
        flux if changes["source"] or changes["name"] else None,
        NamedPatches(changes["text_encoder"]) if changes["text_encoder"] else None,
        NamedPatches(changes["text_encoder_2"]) if changes["text_encoder_2"] else None,
    )


def _unused(where: str, unused: list[str], count: int, strangers: list[str]) -> str:
    listed = ", ".join(unused[:_LISTED]) + (" ..." if len(unused) > _LISTED else "")
    why = "it changes modules that this model has not" if strangers else "they belong to no known LoRA format"
    return (
        f"{where} cannot be added: {len(unused)} of its {count} tensors have no use here ({listed}); {why}. Nothing of "
        "a LoRA is left out in silence."
    )


def _grouped(shapes: Shapes) -> dict[str, dict[str, str]]:
    """Module to leaf to tensor: {"double_blocks.0.img_attn.qkv": {"lora_A": ..., "lora_B": ...}}."""
    groups: dict[str, dict[str, str]] = {}
    for name in shapes:
        match = _LOKR.fullmatch(name) or _DOTTED.fullmatch(name)
        if match is not None:
            groups.setdefault(match["module"], {})[match["leaf"]] = name
    return groups


def _change(files: TensorFiles, module: str, parts: Mapping[str, str], strength: float) -> Change:
    alpha = _number(files, f"{module}.alpha")
    if any(files.header.tensors[name].dtype[0] not in "FB" or 0 in files.shapes[name] for name in parts.values()):
        raise CheckpointError(f"{files.where('')}: {module} is empty, or not stored as floating point.")
    if any(leaf.startswith("lokr") for leaf in parts):
        return _lokr(files, module, parts, alpha, strength)
    down = next((name for leaf, name in parts.items() if leaf in _DOWN), None)
    up = next((name for leaf, name in parts.items() if leaf not in _DOWN), None)
    if down is None or up is None:
        raise CheckpointError(f"{files.where('')}: {module} has one half of its LoRA alone.")
    rank = files.shapes[down][0]
    if len(files.shapes[up]) < 2 or files.shapes[up][1] != rank:
        raise CheckpointError(
            f"{files.where('')}: {module}: {list(files.shapes[up])} and {list(files.shapes[down])} do not multiply."
        )
    if alpha is None:
        alpha = _stated_alpha(files, module, rank)
    return LowRank(files, up, down, strength * alpha / rank)


def _number(files: TensorFiles, name: str) -> float | None:
    if name not in files.shapes:
        return None
    numbers = files.whole(name).float()
    if numbers.numel() != 1 or not numbers.isfinite().all():
        raise CheckpointError(f"{files.where('')}: {name} is not one finite number.")
    return float(numbers)


def _lokr(files: TensorFiles, module: str, parts: Mapping[str, str], alpha: float | None, strength: float) -> Kronecker:
    def factor(leaf: str) -> tuple[str, ...]:
        if leaf in parts:
            return (parts[leaf],)
        if f"{leaf}_a" in parts and f"{leaf}_b" in parts:
            return parts[f"{leaf}_a"], parts[f"{leaf}_b"]
        raise CheckpointError(f"{files.where('')}: {module} has no {leaf}.")

    first, second = factor("lokr_w1"), factor("lokr_w2")
    ranks = [files.shapes[names[1]][0] for names in (second, first) if len(names) == 2]
    scale = alpha / ranks[0] if ranks and alpha is not None else 1.0  # two full matrices carry their own scale
    return Kronecker(files, first, second, strength * scale)


def _stated_alpha(files: TensorFiles, module: str, rank: int) -> float:
    """peft's alpha, from the file's head or from `adapter_config.json` beside it; the rank itself (a scale of 1) where
    neither is there."""
    try:
        own = _peft_config(files, module)
        plain = module.removeprefix("base_model.model.").removeprefix(f"{module.split('.')[0]}.")
        alpha = float(_by_pattern(own.get("alpha_pattern"), plain, own.get("lora_alpha", rank)))
        if own.get("use_dora") or own.get("lora_bias"):
            raise ValueError("use_dora and lora_bias are not read")
        return alpha / rank**0.5 * rank if own.get("use_rslora") else alpha
    except (OSError, ValueError, TypeError, AttributeError, re.error) as error:
        raise CheckpointError(f"{files.where('')}: the LoRA's settings (peft) cannot be read ({error}).") from error


def _peft_config(files: TensorFiles, module: str) -> dict[str, Any]:
    text = files.header.metadata.get("lora_adapter_metadata")
    beside = files.paths[0].parent / "adapter_config.json"
    if text:
        component = module.split(".")[0]
        return {key.removeprefix(f"{component}."): value for key, value in json.loads(text).items()}
    if files.paths[0].name.startswith("adapter_model") and beside.is_file():
        return dict(json.loads(beside.read_text(encoding="utf-8")))
    return {}


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """What peft gives a module: its patterns are the ends of names, or expressions for them."""
    found = (value for key, value in (patterns or {}).items() if re.match(rf"(?:.*\.)?(?:{key})$", module))
    return next(found, default)


def _check_fits(where: str, module: str, change: Change, kind: str, name: str, wanted: tuple[int, ...]) -> None:
    rows, columns = change.shape
    if re.search(r"(img_in|x_embedder)$", module) and columns == 2 * wanted[1]:
        raise CheckpointError(
            f"{where} is a control LoRA (FLUX.1 Depth or Canny), which cannot be added. USO cannot widen its input."
        )
    part = kind == "source" and name.endswith("linear1.weight") and columns == wanted[1] and rows == 3 * columns
    if (rows, columns) != tuple(wanted) and not (part and rows <= wanted[0]):
        raise CheckpointError(
            f"{where} does not fit this model: {module} changes a matrix of shape [{rows}, {columns}], and here it has "
            f"{list(wanted)}."
        )
