"""What a weights file is, by the names and shapes of its tensors: `identify`, and `find` for one component.

A file may hold several components (an all-in-one checkpoint), each behind a prefix. Plain data.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from uso.config import ComponentName
from uso.errors import CheckpointError
from uso.weights.formats.headers import Entry, Header, parts_of, read_headers
from uso.weights.formats.relatives import TITLES, describe, foreign, other


@dataclass(frozen=True)
class Content:
    """One component inside a file."""

    component: ComponentName
    prefix: str
    """Of its tensors' names."""
    layout: str
    """Whose names follow the prefix: `flux`, `diffusers`, `transformers`, `gguf`, `uso`."""
    storage: str
    """How its weights are stored, in words: `bf16`, `fp8 scaled`, `Q8_0` ..."""
    title: str
    """What it is, in words."""
    refused: str = ""
    """Why it cannot be used, and what to do; empty where it can."""
    others: tuple[str, ...] = ()
    """Beginnings of names that belong to other components of the file."""

    def tensors(self, header: Header) -> dict[str, Entry]:
        """Its tensors, by their names without the prefix."""
        return _inside(self.prefix, self.others, header)


@dataclass(frozen=True)
class _Anchor:
    component: ComponentName
    layout: str
    name: str
    """A tensor that the component always has."""


_ANCHORS = (
    _Anchor("transformer", "flux", "double_blocks.0.img_attn.norm.query_norm.scale"),
    _Anchor("transformer", "diffusers", "transformer_blocks.0.attn.norm_added_q.weight"),
    _Anchor("vae", "flux", "encoder.down.0.block.0.conv1.weight"),
    _Anchor("vae", "diffusers", "encoder.down_blocks.0.resnets.0.conv1.weight"),
    _Anchor("image_encoder", "transformers", "vision_model.embeddings.patch_embedding.weight"),
    _Anchor("image_encoder", "bare", "embeddings.patch_embedding.weight"),
    _Anchor("text_encoder", "transformers", "text_model.embeddings.token_embedding.weight"),
    _Anchor("text_encoder", "bare", "embeddings.token_embedding.weight"),
    _Anchor("text_encoder_2", "transformers", "encoder.block.0.layer.0.SelfAttention.q.weight"),
    _Anchor("text_encoder_2", "gguf", "enc.blk.0.attn_q.weight"),
    _Anchor("projector", "uso", "feature_embedder.high_embedding_linear.0.weight"),
    _Anchor("lora", "uso", "double_blocks.0.processor.qkv_lora1.down.weight"),
)

_STORAGE = {"BF16": "bf16", "F16": "fp16", "F32": "fp32", "F64": "fp64", "F8_E4M3": "fp8 e4m3", "F8_E5M2": "fp8 e5m2"}


def identify(header: Header) -> list[Content]:
    """Every component that a file holds, usable or not; empty where it holds none."""
    found: list[tuple[_Anchor, str]] = []
    seen: set[tuple[str, str]] = set()
    for anchor in _ANCHORS:
        for name in header.tensors:
            if name != anchor.name and not name.endswith(f".{anchor.name}"):
                continue
            prefix = name.removesuffix(anchor.name)
            outer = re.sub(r"(text|vision)_model\.$", "", prefix) if anchor.layout == "bare" else prefix
            if (anchor.component, outer) in seen or _belongs_elsewhere(anchor, prefix, header):
                continue
            seen.add((anchor.component, outer))
            found.append((anchor, prefix))
    prefixes = [prefix for _, prefix in found]
    return [_content(anchor, prefix, _others(prefix, prefixes), header) for anchor, prefix in found]


def _others(prefix: str, prefixes: list[str]) -> tuple[str, ...]:
    """Where a component's names have no prefix of their own: the first words of the other components' prefixes."""
    if prefix.removesuffix("text_model.").removesuffix("vision_model."):
        return ()
    return tuple({f"{each.split('.')[0]}." for each in prefixes if each} - {"text_model.", "vision_model."})


def _inside(prefix: str, others: tuple[str, ...], header: Header) -> dict[str, Entry]:
    return {
        name[len(prefix) :]: entry
        for name, entry in header.tensors.items()
        if name.startswith(prefix) and not name.startswith(others)
    }


def _belongs_elsewhere(anchor: _Anchor, prefix: str, header: Header) -> bool:
    """Whether a tensor of this name is a part of something else."""
    if anchor.layout == "bare":  # a tower without its own prefix
        return prefix.endswith(("text_model.", "vision_model."))
    if anchor.component == "text_encoder" and anchor.layout == "transformers":
        vision = f"{prefix}vision_model.embeddings."  # SigLIP's own text model lies beside its vision model
        return f"{vision}patch_embedding.weight" in header.tensors and f"{vision}class_embedding" not in header.tensors
    return False


def _content(anchor: _Anchor, prefix: str, others: tuple[str, ...], header: Header) -> Content:
    tensors = _inside(prefix, others, header)
    component = anchor.component
    storage = storage_of(tensors, header)
    title, refused = describe(component, anchor.layout, tensors, header)
    if not refused:
        refused = _unreadable(tensors, prefix, header)
    return Content(component, prefix, anchor.layout, storage, title, refused, others)


def storage_of(tensors: Mapping[str, Entry], header: Header) -> str:
    """How most of the numbers are stored."""
    counts: Counter[str] = Counter()
    for name, entry in tensors.items():
        if len(entry.shape) > 1 or name.endswith(".weight"):
            counts[entry.dtype] += entry.end - entry.begin
    if not counts:
        return "unknown"
    dtype = counts.most_common(1)[0][0]
    scaled = any(name.endswith((".scale_weight", ".weight_scale")) for name in tensors)
    if scaled:
        dtype = next((each for each in counts if each.startswith("F8")), dtype)
    if any(name.endswith(".quant_state.bitsandbytes__nf4") for name in tensors):
        return "nf4"
    if header.gguf:
        return {"F16": "fp16", "BF16": "bf16", "F32": "fp32"}.get(dtype, dtype)
    return _STORAGE.get(dtype, dtype) + (" scaled" if scaled and dtype.startswith("F8") else "")


_PACKINGS: tuple[tuple[str, str], ...] = (
    (r"\.(wscales|smooth_factor|smooth_orig|smooth)$", "quantised by svdquant (Nunchaku)"),
    (r"\.(qweight|qzeros)$", "quantised by AWQ or GPTQ"),
    (r"\.(SCB|weight_format)$", "quantised to int8 by bitsandbytes"),
    (r"\.quant_state\.bitsandbytes__fp4", "quantised to fp4 by bitsandbytes"),
    (r"\.(weight_scale_2|weight_global_scale)$", "stored as nvfp4"),
    (r"\.weight\._(data|scale|shift)$", "quantised by quanto"),
)
"""Names of tensors that a way of storing numbers has which is not read."""

_QUANT_METADATA = ("_quantization_metadata", "quantization_config", "quantization")
_BLOCK_KINDS = ("nvfp4", "mxfp8", "mxfp4", "svdquant")


def _unreadable(tensors: Mapping[str, Entry], prefix: str, header: Header) -> str:
    """Why the way in which a file stores its numbers is not read; empty where it is."""
    told = _way_of_storing(tensors, prefix, header)
    return f"It is {told}, which is not read. Use the bf16, fp8 or GGUF file." if told else ""


def _way_of_storing(tensors: Mapping[str, Entry], prefix: str, header: Header) -> str:
    for pattern, told in _PACKINGS:
        if any(re.search(pattern, name) for name in tensors):
            return told
    for text in (header.metadata.get(key, "") for key in _QUANT_METADATA):
        for kind in _BLOCK_KINDS:
            if kind in text:
                return f"stored as {kind}"
    for name, entry in tensors.items():
        if name.endswith(".comfy_quant") and entry.end - entry.begin < _LONGEST_NOTE:
            with header.homes[prefix + name].open("rb") as file:
                file.seek(entry.begin)
                kind = comfy_quant_format(file.read(entry.end - entry.begin).decode(errors="replace"))
            if not kind.startswith("float8"):
                return f"stored as {kind or 'an unknown kind of comfy_quant'}"
        packed = name.endswith(".weight") and f"{name}.quant_state.bitsandbytes__nf4" not in tensors
        if entry.dtype in ("F4", "F8_E8M0", "F6_E2M3", "F6_E3M2") or (packed and entry.dtype in _INTEGERS):
            return f"quantised to {entry.dtype.lower()}"
    return ""


_INTEGERS = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL")
_LONGEST_NOTE = 4096
"""Bytes of a `comfy_quant` tensor: a short JSON text."""


def guidance(content: Content) -> bool | None:
    """Whether a transformer takes a guidance scale; None of anything else."""
    return None if content.component != "transformer" else "schnell" not in content.title


def find(header: Header, component: ComponentName) -> tuple[Content | None, str]:
    """A component in a file; or None and, in a sentence without a full path, what the file is and what to do."""
    contents = identify(header)
    usable = [content for content in contents if content.component == component]
    name = header.paths[0].name
    strange = [content for content in contents if content.refused]
    if usable:
        chosen = next((content for content in usable if not content.refused), usable[0])
        return (chosen, "") if not chosen.refused else (None, f"{name} is {chosen.title}. {chosen.refused}")
    base = foreign(header)
    if contents and not strange and base is None:
        held = ", ".join(dict.fromkeys(content.title for content in contents))
        flag = "" if len(contents) > 1 else f" Its flag is --{contents[0].component.replace('_', '-')}."
        return None, f"{name} holds {held}, not {TITLES[component]}.{flag}"
    title, remedy = base or ((strange[0].title, strange[0].refused) if strange else other(header))
    return None, f"{name} is {title}, not {TITLES[component]}. {remedy}"


def check_file(path: Path, component: ComponentName) -> None:
    """Refuse a file that is not what its flag says, before anything heavy is imported.

    Raises:
        CheckpointError: with what it is, and what to do.
    """
    if component in ("tokenizer", "tokenizer_2"):
        return
    content, reason = find(read_headers(parts_of(path)), component)
    if content is None:
        raise CheckpointError(f"{path.parent / reason}")


def comfy_quant_format(text: str) -> str:
    """The format that a `comfy_quant` tensor names: JSON, as UTF-8."""
    try:
        return str(json.loads(text).get("format", ""))
    except (ValueError, AttributeError):
        return ""
