"""Related models with the same names or shapes (Fill, Depth, Canny, Kontext, schnell, UNO's LoRA, long CLIP, other
autoencoders) are recognised by specific differences. `describe` names a component, `other` a file that holds none.
"""

import re
from collections.abc import Mapping

from uso.config import ComponentName
from uso.weights.formats.headers import Entry, Header

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


def describe(component: ComponentName, layout: str, tensors: Mapping[str, Entry], header: Header) -> tuple[str, str]:
    """(what it is, why it cannot be used)."""
    file = _told(header)
    base = foreign(header)
    if base is not None and component in ("vae", "text_encoder"):
        title = f"{TITLES[component]} out of {base[0]}" if component == "text_encoder" else _VAES.get(base[0], "")
        if title:
            return title, f"Its numbers may be others. Use FLUX.1's ({_USUAL[component]})."
    if component == "transformer":
        return _transformer(tensors, file)
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


_GENERIC = re.compile(r"(diffusion_pytorch_model|model|pytorch_model|adapter_model)\b", re.IGNORECASE)
_NAMING = ("modelspec.title", "modelspec.architecture", "general.name", "general.basename", "general.finetune")


def _told(header: Header) -> str:
    """What names say of a file: its own, its repository's where its own is of no model, and those in its head."""
    path = header.paths[0]
    names = [path.name, *(header.metadata.get(key, "") for key in _NAMING)]
    if _GENERIC.match(path.name):
        names += [part for part in path.absolute().parts[-6:-1] if part not in ("snapshots", "blobs")]
    return " ".join(names).lower()


def _shape(tensors: Mapping[str, Entry], *names: str) -> tuple[int, ...]:
    return next((tensors[name].shape for name in names if name in tensors), ())


def _transformer(tensors: Mapping[str, Entry], file: str) -> tuple[str, str]:
    names = tensors.keys()
    for mark, network in _LOOKALIKES:
        if any(mark in name for name in names):
            return network, f"It is another network, which USO's LoRA does not fit. {_GET_DEV}"
    if any(name.startswith("distilled_guidance_layer") for name in names):
        return "Chroma", f"Chroma is another network, which USO's LoRA does not fit. {_GET_DEV}"
    if any("stream_modulation" in name for name in names):
        return "FLUX.2", f"FLUX.2 is another network, which USO's LoRA does not fit. {_GET_DEV}"
    wide, out = _input_channels(tensors), _shape(tensors, "final_layer.linear.bias", "proj_out.bias")
    if wide and out and wide != out[0]:
        relatives = {384: "FLUX.1 Fill", 128: "FLUX.1 Depth or Canny"}
        title = relatives.get(wide, "a FLUX.1 model with an image as its condition")
        return title, f"{title} takes {wide} input channels where FLUX.1-dev takes {out[0]}. {_GET_DEV}"
    if "kontext" in file:
        return "FLUX.1 Kontext", f"FLUX.1 Kontext is trained for editing, and USO's LoRA is not made for it. {_GET_DEV}"
    doubles = 1 + max((int(m[1]) for name in names if (m := _DOUBLE.match(name))), default=-1)
    singles = 1 + max((int(m[1]) for name in names if (m := _SINGLE.match(name))), default=-1)
    if (doubles, singles) == _LITE_BLOCKS:
        return "FLUX.1-lite (8B)", f"FLUX.1-lite has 8 + 38 blocks where FLUX.1-dev has 19 + 38. {_GET_DEV}"
    guided = any(name.startswith(("guidance_in.", "time_text_embed.guidance_embedder.")) for name in names)
    return ("FLUX.1-dev's transformer, or a fine-tune" if guided else "FLUX.1-schnell's transformer"), ""


_DOUBLE = re.compile(r"(?:double_blocks|transformer_blocks)\.(\d+)\.")
_SINGLE = re.compile(r"(?:single_blocks|single_transformer_blocks)\.(\d+)\.")


_LOOKALIKES: tuple[tuple[str, str], ...] = (
    ("controlnet_", "a ControlNet"),
    ("input_hint_block.", "a ControlNet"),
    ("individual_token_refiner", "HunyuanVideo"),
    ("transformer_blocks.0.img_mod.", "Qwen-Image"),
    ("pos_embed.proj.weight", "Stable Diffusion 3"),
)
"""Networks with blocks of the same names."""


def _input_channels(tensors: Mapping[str, Entry]) -> int | None:
    """How wide a transformer's input is; None where the file does not say."""
    for module in ("img_in", "x_embedder"):
        weight, bias = tensors.get(f"{module}.weight"), tensors.get(f"{module}.bias")
        if weight is not None and weight.dtype == "U8" and bias is not None:  # nf4: two numbers to a byte
            return 2 * (weight.end - weight.begin) // bias.shape[0]
        if weight is not None and len(weight.shape) == 2:
            return weight.shape[1]
    return None


def _vae(tensors: Mapping[str, Entry], file: str) -> tuple[str, str]:
    channels = _shape(tensors, "encoder.conv_out.weight")
    if channels and channels[0] == 64:
        return "FLUX.2's autoencoder", "FLUX.2's autoencoder has other latents. Use FLUX.1's (ae.safetensors)."
    if any(name.startswith("quant_conv.") for name in tensors) or (channels and channels[0] == 8):
        title = "SDXL's or Stable Diffusion's autoencoder"
        return title, f"{title} has other latents. Use FLUX.1's (ae.safetensors)."
    if re.search(r"sd[-_. ]?3|stable[-_. ]?diffusion[-_. ]?v?3", file):
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
    biased = {m[1] for name in tensors if (m := _T5_BIAS.search(name))}
    if (vocabulary and vocabulary[0] > 200_000) or len(biased) > 1:
        return "umT5", "umT5 has another vocabulary. Use T5 v1.1 XXL (t5xxl_fp16.safetensors)."
    if len(vocabulary) == 2 and vocabulary[1] in (512, 768, 1024, 2048):
        return "a smaller T5", "FLUX.1 reads T5 v1.1 XXL, 4096 wide. Use t5xxl_fp16.safetensors."
    return TITLES["text_encoder_2"], ""


_T5_BIAS = re.compile(r"(?:encoder\.block|enc\.blk)\.(\d+)\..*(?:relative_attention_bias|attn_rel_b)\.")
"""T5 has it in its first block alone, umT5 in every one."""


def _siglip(tensors: Mapping[str, Entry], file: str) -> tuple[str, str]:
    if any("class_embedding" in name for name in tensors):
        return "CLIP's vision model", "CLIP's vision model is not SigLIP. Use SigLIP so400m patch 14, 384 pixels."
    words = _shape(tensors, "text_model.embeddings.token_embedding.weight")
    patches = _shape(tensors, "vision_model.embeddings.patch_embedding.weight", "embeddings.patch_embedding.weight")
    if re.search(r"siglip[-_]?2(?!\d)", file) or len(patches) == 2 or (words and words[0] > 200_000):
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
_PLAIN_LORAS = "Only plain LoRAs and LoKr can be added."
_ADD = "Add it with --add-lora."
_ANOTHER = f"It is another network. {_GET_DEV}"

_FOREIGN: tuple[tuple[str, str, str], ...] = (
    (r"(^|\.)input_blocks\.|^(unet\.)?(down|mid|up)_blocks?\.", "an SDXL or Stable Diffusion model", _ANOTHER),
    (r"(^|\.)joint_blocks\.|^(transformer\.)?pos_embed\.proj\.weight", "a Stable Diffusion 3 model", _ANOTHER),
)
"""Whole models that are not FLUX."""

_VAES = {
    "an SDXL or Stable Diffusion model": "SDXL's or Stable Diffusion's autoencoder",
    "a Stable Diffusion 3 model": "SD3's autoencoder",
}
_USUAL: dict[ComponentName, str] = {"vae": "ae.safetensors", "text_encoder": "clip_l.safetensors"}

_OTHERS: tuple[tuple[str, str, str], ...] = (
    (r"redux_(up|down)\.", "FLUX.1 Redux", "Redux is an adapter for variations, and no part of this program."),
    *_FOREIGN,
    (r"(^|\.)distilled_guidance_layer", "Chroma", _ANOTHER),
    (r"stream_modulation", "FLUX.2", _ANOTHER),
    (r"\.(smooth_factor|smooth_orig|wscales)$", "weights quantised by svdquant (Nunchaku)", _NO_SUCH_NUMBERS),
    (r"\.(qweight|qzeros)$", "weights quantised by AWQ or GPTQ", _NO_SUCH_NUMBERS),
    (r"\.weight\._(data|scale|shift)$", "weights quantised by quanto", _NO_SUCH_NUMBERS),
    (r"\.lora_B\.bias$", "a control LoRA (FLUX.1 Depth or Canny)", "USO cannot widen its input."),
    (r"(img_in|x_embedder)\.lora_A", "a control LoRA (FLUX.1 Depth or Canny)", "USO cannot widen its input."),
    (r"\.(dora_scale|lora_magnitude_vector)", "a DoRA", _PLAIN_LORAS),
    (r"\.hada_w[12]", "a LoHa", _PLAIN_LORAS),
    (r"\.(oft_blocks|oft_diag|oft_R|boft)", "an OFT", _PLAIN_LORAS),
    (r"^lora_(unet|te)", "a LoRA (kohya's format)", "Add it with --add-lora."),
    (r"\.(lora_A|lora_B|lora_up|lora_down|lora\.up|lora\.down|lokr_w[12](_[ab])?)(\.|$)", "a LoRA", _ADD),
    (r"\.lora_linear_layer\.", "a LoRA", _ADD),
    (r"processor\.\w+lora\d?\.(up|down)\.", "a LoRA (XLabs' format)", _ADD),
    (r"ip_adapter", "an IP-Adapter", "IP-Adapters are no part of this program."),
    (r"(^|\.)transformer\.resblocks\.", "an OpenCLIP model", "Use CLIP-L in transformers' names (clip_l.safetensors)."),
    (r"controlnet_|input_hint_block\.", "a ControlNet", "Control networks are no part of this program."),
    (
        r"(^|\.)decoder\.layers?\.\d+\.|^tae|^((en|de)coder\.)?\d+\.conv\.\d+\.",
        "a tiny autoencoder (TAEF1)",
        "Use FLUX.1's (ae.safetensors).",
    ),
    (
        r"(^|\.)(shared|embed_tokens|token_embd)\.weight$",
        "parts of a T5 model",
        "Use T5 v1.1 XXL's encoder (t5xxl_fp16).",
    ),
)
"""(names, what it is, what to do), the first that fits counts."""


def foreign(header: Header) -> tuple[str, str] | None:
    """(what it is, what to do) of a whole model that is not FLUX; None of all else."""
    return _first(_FOREIGN, header)


def other(header: Header) -> tuple[str, str]:
    """(what a file is, what to do) of one that holds no component."""
    return _first(_OTHERS, header) or (
        "no file that this program knows",
        f"Its tensors begin with {', '.join(sorted(header.tensors)[:3]) or 'nothing'}.",
    )


def _first(table: tuple[tuple[str, str, str], ...], header: Header) -> tuple[str, str] | None:
    for pattern, title, remedy in table:
        found = re.compile(pattern)
        if any(found.search(name) for name in header.tensors):
            return title, remedy
    return None
