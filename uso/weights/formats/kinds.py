"""What a weights file is, told by the names and shapes of its tensors: `identify`, and `refusal` for what does not fit.

A file may hold several components (an all-in-one checkpoint), each behind a prefix. Relatives that have the same
names or shapes (Fill, Depth, Canny, Kontext, UNO's LoRA, long CLIP ...) are known by what tells them apart. Plain data.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from uso.config import ComponentName
from uso.errors import CheckpointError
from uso.weights.formats.headers import Entry, Header, read_header


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

TITLES: dict[ComponentName, str] = {
    "transformer": "FLUX.1's transformer",
    "vae": "FLUX.1's autoencoder",
    "image_encoder": "SigLIP's vision model",
    "text_encoder": "CLIP-L's text model",
    "text_encoder_2": "T5-XXL's encoder",
    "projector": "USO's projector",
    "lora": "USO's LoRA",
    "tokenizer": "CLIP's tokenizer",
    "tokenizer_2": "T5's tokenizer",
}

_GET_DEV = "Use FLUX.1-dev, FLUX.1-Krea-dev or a fine-tune of them."
_LITE_BLOCKS = (8, 38)
"""Double and single blocks of FLUX.1-lite, at FLUX.1's own width."""

_UNO_RANK = 512
"""USO's has 128."""

_STORAGE = {"BF16": "bf16", "F16": "fp16", "F32": "fp32", "F64": "fp64", "F8_E4M3": "fp8 e4m3", "F8_E5M2": "fp8 e5m2"}
QUANTISED_MARKS = ("scale_weight", "weight_scale", "comfy_quant", "weight.absmax")


def identify(header: Header) -> list[Content]:
    """Every component that a file holds, usable or not; empty where it holds none."""
    found: list[Content] = []
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
            found.append(_content(anchor, prefix, header))
    return found


def _belongs_elsewhere(anchor: _Anchor, prefix: str, header: Header) -> bool:
    """Whether a tensor of this name is a part of something else."""
    if anchor.layout == "bare":  # a tower without its own prefix
        return prefix.endswith(("text_model.", "vision_model."))
    if anchor.component == "text_encoder" and anchor.layout == "transformers":
        vision = f"{prefix}vision_model.embeddings."  # SigLIP's own text model lies beside its vision model
        return f"{vision}patch_embedding.weight" in header.tensors and f"{vision}class_embedding" not in header.tensors
    return False


def _content(anchor: _Anchor, prefix: str, header: Header) -> Content:
    tensors = {name[len(prefix) :]: entry for name, entry in header.tensors.items() if name.startswith(prefix)}
    component = anchor.component
    storage = storage_of(tensors, header)
    title, refused = _told(component, anchor.layout, tensors, header)
    if not refused:
        refused = _unreadable(tensors, header)
    return Content(component, prefix, anchor.layout, storage, title, refused)


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


def _unreadable(tensors: Mapping[str, Entry], header: Header) -> str:
    """Why the way in which a file stores its numbers is not read; empty where it is."""
    names = tensors.keys()
    if any(name.endswith((".wscales", ".smooth_factor", ".smooth_orig", ".smooth")) for name in names):
        return "It is quantised by svdquant (Nunchaku), which is not read. Use the bf16, fp8 or GGUF file."
    if any(name.endswith((".qweight", ".qzeros")) for name in names):
        return "It is quantised by AWQ or GPTQ, which is not read. Use the bf16, fp8 or GGUF file."
    if any(name.endswith((".SCB", ".weight_format")) for name in names):
        return "It is quantised to int8 by bitsandbytes, which is not read. Use the bf16, fp8 or GGUF file."
    if any(".quant_state.bitsandbytes__fp4" in name for name in names):
        return "It is quantised to fp4 by bitsandbytes, which is not read. Use the bf16, fp8 or GGUF file."
    if any(name.endswith((".weight_scale_2", ".weight_global_scale")) for name in names):
        return "It is stored as nvfp4, which is not read. Use the bf16, fp8 or GGUF file."
    for text in header.metadata.values():
        if "nvfp4" in text or "mxfp8" in text or "svdquant" in text:
            kind = next(kind for kind in ("nvfp4", "mxfp8", "svdquant") if kind in text)
            return f"It is stored as {kind}, which is not read. Use the bf16, fp8 or GGUF file."
    if any(entry.dtype in ("I8", "F4", "F8_E8M0") for entry in tensors.values()):
        kind = next(entry.dtype for entry in tensors.values() if entry.dtype in ("I8", "F4", "F8_E8M0"))
        return f"It is quantised to {kind.lower()}, which is not read. Use the bf16, fp8 or GGUF file."
    return ""


# What tells relatives apart.


def _told(component: ComponentName, layout: str, tensors: Mapping[str, Entry], header: Header) -> tuple[str, str]:
    """(what it is, why it cannot be used)."""
    file = header.paths[0].name.lower()
    if component == "transformer":
        return _transformer(layout, tensors, header, file)
    if component == "vae":
        return _vae(tensors, file)
    if component == "text_encoder":
        return _clip(tensors)
    if component == "text_encoder_2":
        return _t5(tensors)
    if component == "image_encoder":
        return _siglip(tensors, file)
    if component == "lora":
        return _uso_lora(tensors, file)
    return TITLES[component], ""


def _shape(tensors: Mapping[str, Entry], *names: str) -> tuple[int, ...]:
    return next((tensors[name].shape for name in names if name in tensors), ())


def _transformer(layout: str, tensors: Mapping[str, Entry], header: Header, file: str) -> tuple[str, str]:
    names = tensors.keys()
    if any(name.startswith("distilled_guidance_layer") for name in names):
        return "Chroma", f"Chroma is another network, which USO's LoRA does not fit. {_GET_DEV}"
    if any("stream_modulation" in name for name in names):
        return "FLUX.2", f"FLUX.2 is another network, which USO's LoRA does not fit. {_GET_DEV}"
    wide = _shape(tensors, "img_in.weight", "x_embedder.weight")
    out = _shape(tensors, "final_layer.linear.weight", "proj_out.weight")
    if len(wide) == 2 and out and wide[1] != out[0] and not _packed(tensors, "img_in.weight", "x_embedder.weight"):
        relatives = {384: "FLUX.1 Fill", 128: "FLUX.1 Depth or Canny"}
        title = relatives.get(wide[1], "a FLUX.1 model with an image as its condition")
        return title, f"{title} takes {wide[1]} input channels where FLUX.1-dev takes {out[0]}. {_GET_DEV}"
    told = " ".join([file, *header.metadata.values()]).lower()
    if "kontext" in told:
        return "FLUX.1 Kontext", f"FLUX.1 Kontext is trained for editing, and USO's LoRA is not made for it. {_GET_DEV}"
    doubles = 1 + max((int(m[1]) for name in names if (m := _DOUBLE.match(name))), default=-1)
    singles = 1 + max((int(m[1]) for name in names if (m := _SINGLE.match(name))), default=-1)
    if (doubles, singles) == _LITE_BLOCKS:
        return "FLUX.1-lite (8B)", f"FLUX.1-lite has 8 + 38 blocks where FLUX.1-dev has 19 + 38. {_GET_DEV}"
    guided = any(name.startswith(("guidance_in.", "time_text_embed.guidance_embedder.")) for name in names)
    return ("FLUX.1-dev's transformer, or a fine-tune" if guided else "FLUX.1-schnell's transformer"), ""


_DOUBLE = re.compile(r"(?:double_blocks|transformer_blocks)\.(\d+)\.")
_SINGLE = re.compile(r"(?:single_blocks|single_transformer_blocks)\.(\d+)\.")


def _packed(tensors: Mapping[str, Entry], *names: str) -> bool:
    """Whether the stored shape is not the weight's own."""
    return any(tensors[name].dtype == "U8" for name in names if name in tensors)


def guidance(content: Content) -> bool | None:
    """Whether a transformer takes a guidance scale; None of anything else."""
    return None if content.component != "transformer" else "schnell" not in content.title


def _vae(tensors: Mapping[str, Entry], file: str) -> tuple[str, str]:
    channels = _shape(tensors, "encoder.conv_out.weight")
    if any(name.startswith("quant_conv.") for name in tensors) or (channels and channels[0] == 8):
        title = "SDXL's or Stable Diffusion's autoencoder"
        return title, f"{title} has other latents. Use FLUX.1's (ae.safetensors)."
    if "sd3" in file:
        return "SD3's autoencoder", "SD3's autoencoder scales its latents otherwise. Use FLUX.1's (ae.safetensors)."
    return TITLES["vae"], ""


FLUX_SCALING, FLUX_SHIFT = 0.3611, 0.1159
"""Of FLUX.1's latents; SD3's autoencoder has the same shapes, 1.5305 and 0.0609."""


def other_autoencoder(config: Mapping[str, object]) -> str:
    """Why an autoencoder's `config.json` is not FLUX.1's; empty where it is, or does not say."""
    scaling, shift = config.get("scaling_factor"), config.get("shift_factor")
    if scaling in (None, FLUX_SCALING) and shift in (None, FLUX_SHIFT):
        return ""
    title = "SD3's" if scaling == 1.5305 else "SDXL's" if scaling == 0.13025 else "another model's"
    return (
        f"It is {title} autoencoder: its config.json has scaling_factor {scaling} and shift_factor {shift}, FLUX.1's "
        f"has {FLUX_SCALING} and {FLUX_SHIFT}. Use FLUX.1's (ae.safetensors)."
    )


def _clip(tensors: Mapping[str, Entry]) -> tuple[str, str]:
    positions = _shape(
        tensors,
        "text_model.embeddings.position_embedding.weight",
        "embeddings.position_embedding.weight",
    )
    if positions and positions[0] > 77:
        return (
            "long CLIP",
            f"Long CLIP reads {positions[0]} positions where FLUX.1's CLIP-L reads 77. Use clip_l.safetensors.",
        )
    if len(positions) == 2 and positions[1] in (512, 1024, 1280):
        title = "CLIP-G" if positions[1] == 1280 else "a CLIP of another size"
        return title, "FLUX.1 reads CLIP-L, 768 wide. Use clip_l.safetensors."
    return TITLES["text_encoder"], ""


def _t5(tensors: Mapping[str, Entry]) -> tuple[str, str]:
    vocabulary = _shape(tensors, "shared.weight", "token_embd.weight", "encoder.embed_tokens.weight")
    if vocabulary and vocabulary[0] > 200_000:
        return "umT5", "umT5 has another vocabulary. Use T5 v1.1 XXL (t5xxl_fp16.safetensors)."
    if len(vocabulary) == 2 and vocabulary[1] in (512, 768, 1024, 2048):
        return "a smaller T5", "FLUX.1 reads T5 v1.1 XXL, 4096 wide. Use t5xxl_fp16.safetensors."
    return TITLES["text_encoder_2"], ""


def _siglip(tensors: Mapping[str, Entry], file: str) -> tuple[str, str]:
    if any("class_embedding" in name for name in tensors):
        return "CLIP's vision model", "CLIP's vision model is not SigLIP. Use SigLIP so400m patch 14, 384 pixels."
    if re.search(r"siglip[-_]?2(?!\d)", file):
        return "SigLIP 2", "SigLIP 2 has the same shapes and other numbers. Use SigLIP so400m patch 14, 384 pixels."
    positions = _shape(
        tensors, "vision_model.embeddings.position_embedding.weight", "embeddings.position_embedding.weight"
    )
    if len(positions) == 2 and positions[1] in (768, 1024, 1152) and positions != (729, 1152):
        return "a SigLIP of another size", "USO reads siglip-so400m-patch14-384: 729 positions, 1152 wide."
    return TITLES["image_encoder"], ""


def _uso_lora(tensors: Mapping[str, Entry], file: str) -> tuple[str, str]:
    down = _shape(tensors, "double_blocks.0.processor.qkv_lora1.down.weight")
    singles = any(name.startswith("single_blocks.") for name in tensors)
    if down and (down[0] >= _UNO_RANK or re.search(r"\buno\b", file.replace("_", " ").replace("-", " "))):
        return (
            "UNO's LoRA",
            f"UNO's LoRA (rank {down[0]}) has USO's names and other numbers. Use USO's dit_lora.safetensors.",
        )
    if not singles:
        return "an XLabs LoRA", "An XLabs LoRA changes no single blocks, so it is not USO's. Add it with --add-lora."
    return TITLES["lora"], ""


_NO_SUCH_NUMBERS = "They are not read. Use the bf16, fp8 or GGUF file."
_ANOTHER = f"It is another network. {_GET_DEV}"

_OTHERS: tuple[tuple[str, str, str], ...] = (
    (r"redux_(up|down)\.", "FLUX.1 Redux", "Redux is an adapter for variations, and no part of this program."),
    (r"(^|\.)input_blocks\.", "an SDXL or Stable Diffusion model", _ANOTHER),
    (r"(^|\.)joint_blocks\.", "a Stable Diffusion 3 model", _ANOTHER),
    (r"(^|\.)distilled_guidance_layer", "Chroma", _ANOTHER),
    (r"stream_modulation", "FLUX.2", _ANOTHER),
    (r"\.(smooth_factor|smooth_orig|wscales)$", "weights quantised by svdquant (Nunchaku)", _NO_SUCH_NUMBERS),
    (r"\.(qweight|qzeros)$", "weights quantised by AWQ or GPTQ", _NO_SUCH_NUMBERS),
    (r"(img_in|x_embedder)\.lora_A", "a control LoRA (FLUX.1 Depth or Canny)", "USO cannot widen its input."),
    (r"\.dora_scale$", "a DoRA", "Only plain LoRAs and LoKr can be added."),
    (r"^lora_(unet|te)", "a LoRA (kohya's format)", "Add it with --add-lora."),
    (r"\.(lora_A|lora_B|lora_up|lora_down|lokr_w1|lokr_w1_a)(\.|$)", "a LoRA", "Add it with --add-lora."),
    (r"processor\.\w+lora\d?\.(up|down)\.", "a LoRA (XLabs' format)", "Add it with --add-lora."),
    (r"(^|\.)transformer\.resblocks\.", "an OpenCLIP model", "Use CLIP-L in transformers' names (clip_l.safetensors)."),
    (r"controlnet_", "a ControlNet", "Control networks are no part of this program."),
    (r"(^|\.)decoder\.layers?\.\d+\.|^taesd", "a tiny autoencoder (TAEF1)", "Use FLUX.1's (ae.safetensors)."),
    (r"(^|\.)(shared|embed_tokens)\.weight$", "parts of a T5 model", "Use T5 v1.1 XXL's encoder (t5xxl_fp16)."),
)
"""(names, what it is, what to do), the first that fits counts."""


def other(header: Header) -> tuple[str, str]:
    """(what a file is, what to do) of one that holds no component."""
    for pattern, title, remedy in _OTHERS:
        found = re.compile(pattern)
        if any(found.search(name) for name in header.tensors):
            return title, remedy
    first = ", ".join(sorted(header.tensors)[:3]) or "nothing"
    return "no file that this program knows", f"Its tensors begin with {first}."


def find(header: Header, component: ComponentName) -> tuple[Content | None, str]:
    """A component in a file; or None and, in a sentence without a full path, what the file is and what to do."""
    contents = identify(header)
    usable = [content for content in contents if content.component == component]
    name = header.paths[0].name
    strange = [content for content in contents if content.refused]
    if usable:
        chosen = next((content for content in usable if not content.refused), usable[0])
        return (chosen, "") if not chosen.refused else (None, f"{name} is {chosen.title}. {chosen.refused}")
    if contents and not strange:
        held = ", ".join(dict.fromkeys(content.title for content in contents))
        flag = "" if len(contents) > 1 else f" Its flag is --{contents[0].component.replace('_', '-')}."
        return None, f"{name} holds {held}, not {TITLES[component]}.{flag}"
    title, remedy = (strange[0].title, strange[0].refused) if strange else other(header)
    return None, f"{name} is {title}, not {TITLES[component]}. {remedy}"


def check_file(path: Path, component: ComponentName) -> None:
    """Refuse a file that is not what its flag says, before anything heavy is imported.

    Raises:
        CheckpointError: with what it is, and what to do.
    """
    if component in ("tokenizer", "tokenizer_2"):
        return
    content, reason = find(read_header(path), component)
    if content is None:
        raise CheckpointError(f"{path.parent / reason}")


def is_lora(header: Header) -> bool:
    """Whether a file holds a LoRA of any format."""
    return "LoRA" in other(header)[0] or any(content.component == "lora" for content in identify(header))


def comfy_quant_format(text: str) -> str:
    """The format that a `comfy_quant` tensor names: JSON, as UTF-8."""
    try:
        return str(json.loads(text).get("format", ""))
    except (ValueError, AttributeError):
        return ""
