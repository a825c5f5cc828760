"""LoRA files as changes of a component's weights: USO's own, and those that people add.

Known are USO's and XLabs' layout, kohya's, diffusers' and peft's, ai-toolkit's, OneTrainer's, and LoKr (LyCORIS). Every
tensor of a file is used, or the file is refused. Sums are made in float32; nothing is rounded here.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from uso.errors import CheckpointError
from uso.weights.formats.kinds import identify
from uso.weights.formats.layouts import flux_part, lora_modules, lora_target, source_shapes
from uso.weights.formats.tensor_files import TensorFiles, check_shapes

Shapes = Mapping[str, tuple[int, ...]]

_LISTED = 3


class Change(Protocol):
    """What is added to a matrix."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Rows [start, stop) of it, float32."""
        ...


class Patches(Protocol):
    """Gives the change of a component's parameters."""

    def change(self, name: str) -> torch.Tensor | None:
        """What is added to a parameter: float32 in the parameter's own order, None where nothing is."""
        ...


@dataclass(frozen=True)
class LowRank:
    """`scale * up @ down`."""

    files: TensorFiles
    up: str
    down: str
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        return _rows(self.files.shapes[self.up]), _columns(self.files.shapes[self.down])

    def rows(self, start: int, stop: int) -> torch.Tensor:
        up = self.files.rows(self.up, start, stop).float().flatten(1)
        return self.scale * (up @ self.files.whole(self.down).float().flatten(1))


@dataclass(frozen=True)
class Kronecker:
    """`scale * kron(w1, w2)`, each a matrix or a product of two."""

    files: TensorFiles
    first: tuple[str, ...]
    second: tuple[str, ...]
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        one, other = self._shape(self.first), self._shape(self.second)
        return one[0] * other[0], one[1] * other[1]

    def rows(self, start: int, stop: int) -> torch.Tensor:
        return self.scale * torch.kron(self._matrix(self.first), self._matrix(self.second))[start:stop]

    def _shape(self, names: tuple[str, ...]) -> tuple[int, int]:
        return _rows(self.files.shapes[names[0]]), _columns(self.files.shapes[names[-1]])

    def _matrix(self, names: tuple[str, ...]) -> torch.Tensor:
        parts = [self.files.whole(name).float().flatten(1) for name in names]
        return parts[0] if len(parts) == 1 else parts[0] @ parts[1]


def _rows(shape: tuple[int, ...]) -> int:
    return shape[0]


def _columns(shape: tuple[int, ...]) -> int:
    columns = 1
    for side in shape[1:]:
        columns *= side
    return columns


class FluxPatches:
    """Changes of FLUX's transformer, by the released files' names and by diffusers'."""

    def __init__(self, shapes: Shapes, by_source: Mapping[str, Change], by_name: Mapping[str, Change]) -> None:
        self._shapes = shapes
        self._by_source = by_source
        self._by_name = by_name

    def change(self, name: str) -> torch.Tensor | None:
        part = flux_part(name)
        rows = self._shapes[name][0]
        start = sum(self._shapes[other][0] for other in part.fused[: part.index])
        found: torch.Tensor | None = None
        fused = self._by_source.get(part.source)
        if fused is not None and start < fused.shape[0]:
            found = fused.rows(start, start + rows)
            if part.swap_halves:
                found = torch.cat(found.chunk(2)[::-1])
        if (own := self._by_name.get(name)) is not None:
            found = own.rows(0, rows) if found is None else found + own.rows(0, rows)
        return found


@dataclass(frozen=True)
class NamedPatches:
    """Changes of a module, by the names of its parameters."""

    by_name: Mapping[str, Change]

    def change(self, name: str) -> torch.Tensor | None:
        found = self.by_name.get(name)
        return None if found is None else found.rows(*(0, found.shape[0]))


def total_change(patches: Iterable[Patches], name: str) -> torch.Tensor | None:
    """The sum of what several files add to a parameter; None where none of them adds anything."""
    total: torch.Tensor | None = None
    for each in patches:
        found = each.change(name)
        if found is not None:
            total = found if total is None else total.add_(found)
    return total


def parameter_shapes(module: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def flux_shapes(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Of the released files' tensors."""
    return source_shapes({name: flux_part(name) for name in shapes}, shapes)


def uso_patches(files: TensorFiles, transformer: Any, scale: float) -> FluxPatches:
    """USO's LoRA: every module that its layout has, no more.

    Raises:
        CheckpointError: a tensor is missing, surplus or misshapen.
    """
    shapes = parameter_shapes(transformer)
    weights = flux_shapes(shapes)
    expected: dict[str, tuple[int, ...]] = {}
    changes: dict[str, Change] = {}
    for module in lora_modules(len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)):
        target = lora_target(module)
        rows, columns = weights[target]
        if target.endswith("linear1.weight"):
            rows = 3 * columns  # only query, key and value of the fused matrix
        rank = files.shapes.get(f"{module}.down.weight", (0,))[0]
        expected[f"{module}.down.weight"] = (rank, columns)
        expected[f"{module}.up.weight"] = (rows, rank)
        changes[target] = LowRank(files, f"{module}.up.weight", f"{module}.down.weight", scale)
    check_shapes(files, expected)
    return FluxPatches(shapes, changes, {})


# LoRAs that people add.

_DOTTED = re.compile(
    r"(?P<module>.+?)\.(?P<leaf>lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up|down|up)(?:\.default)?(?:\.weight)?"
)
_LOKR = re.compile(r"(?P<module>.+)\.(?P<leaf>lokr_w[12](?:_[ab])?)")
_DOWN = ("lora_A", "lora_down", "lora.down", "down")
_PREFIXES = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "unet.",
    "lora_unet_",
    "lora_transformer_",
    "lycoris_",
    "",
)
"""Before a transformer's module, longest first."""

_TEXT_PREFIXES: tuple[tuple[str, str], ...] = (
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te_", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder.", "text_encoder"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.t5xxl.transformer.", "text_encoder_2"),
)

_REFUSED: tuple[tuple[str, str], ...] = (
    (r"\.dora_scale$|\.lora_magnitude_vector", "a DoRA"),
    (r"\.hada_w[12]", "a LoHa"),
    (r"\.(oft_blocks|oft_diag|boft)", "an OFT"),
    (r"\.lokr_t2$|\.lora_mid", "a LoRA of convolutions"),
    (r"(img_in|x_embedder)\.lora_A|lora_unet_img_in\.", "a control LoRA (FLUX.1 Depth or Canny)"),
    (r"\.lora_B\.bias$", "a LoRA with biases, as control LoRAs have"),
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
        if re.fullmatch(r"(double_blocks|single_blocks)\.\d+\.processor\.\w+", module):
            try:
                target = lora_target(module)
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
        _check_fits(where, module, change, kind, targets.shape(kind, name))
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
    alpha = float(files.whole(f"{module}.alpha").float()) if f"{module}.alpha" in files.shapes else None
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
    """peft's alpha, as diffusers writes it into the file's head; the rank itself (a scale of 1) where there is none."""
    text = files.header.metadata.get("lora_adapter_metadata")
    if not text:
        return float(rank)
    try:
        values = json.loads(text)
        component = module.split(".")[0]
        own = {key.removeprefix(f"{component}."): value for key, value in values.items()}
        plain = module.removeprefix(f"{component}.")
        alpha = dict(own.get("alpha_pattern") or {}).get(plain, own.get("lora_alpha", rank))
        stated = dict(own.get("rank_pattern") or {}).get(plain, own.get("r", rank))
        alpha = float(alpha)
        return alpha / (float(stated) ** 0.5) * rank if own.get("use_rslora") else alpha
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{files.where('')}: the LoRA's metadata cannot be read ({error}).") from error


def _check_fits(where: str, module: str, change: Change, kind: str, wanted: tuple[int, ...]) -> None:
    rows, columns = change.shape
    part = kind == "source" and columns == wanted[1] and rows == 3 * columns  # query, key and value of `linear1`
    if (rows, columns) != tuple(wanted) and not (part and rows <= wanted[0]):
        raise CheckpointError(
            f"{where} does not fit this model: {module} changes a matrix of shape [{rows}, {columns}], and here it has "
            f"{list(wanted)}."
        )
