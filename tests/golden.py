"""Hold the program against what the released USO network computes: `python tests/golden.py CASE_DIR`.

A case is a miniature of the released files and the numbers that the reference network computes from them (see
`tests/golden/README.md`). Its files go through the functions that load the real ones, and `USOPipeline`'s own stages
run on the given embeddings and noise. Prints a table of relative errors `||ours - expected|| / ||expected||`; exit
status 1 if a size or id differs, or an error exceeds its bound.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from safetensors.torch import load_file
from transformers import SiglipImageProcessorPil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from uso.config import load_memory_plan
from uso.images.pixels import fit_reference, fitted_size, open_image
from uso.memory.residency import Residency
from uso.pipeline.latents import image_to_tensor, pack, picture_ids, unpack
from uso.pipeline.pipeline import USOPipeline
from uso.pipeline.schedule import set_schedule
from uso.pipeline.stages import Conditioning
from uso.weights import checkpoints
from uso.weights.formats.tensor_files import TensorFiles

BOUND = 1e-5
IMAGE_BOUND = 1e-4
EXACT = 0.0

MODES: dict[str, tuple[bool, tuple[str, ...]]] = {
    "text": (False, ()),
    "subject": (True, ()),
    "style": (False, ("style1",)),
    "multi_style": (False, ("style1", "style2")),
    "style_subject": (True, ("style1",)),
    "multi_style_subject": (True, ("style1", "style2")),
}
"""Mode -> (with the content image, with which style images)."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    error: float
    bound: float

    @property
    def passed(self) -> bool:
        return self.error <= self.bound


def relative_error(ours: torch.Tensor, expected: torch.Tensor) -> float:
    """||ours - expected|| / ||expected||; infinite where the shapes differ or a number is not finite."""
    if ours.shape != expected.shape or not bool(torch.isfinite(ours).all()):
        return float("inf")
    difference = (ours.double().cpu() - expected.double()).norm()
    return float(difference / expected.double().norm().clamp_min(1e-30))


def _differs(ours: Any, expected: Any) -> float:
    return 0.0 if ours == expected else float("inf")


class Case:
    """A golden case on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.values: dict[str, Any] = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        self.expected = load_file(folder / "expected.safetensors")
        self.height, self.width = self.values["height"], self.values["width"]

    def transformer_config(self) -> dict[str, Any]:
        values = self.values
        return {
            "in_channels": values["in_channels"],
            "num_layers": values["depth"],
            "num_single_layers": values["depth_single_blocks"],
            "num_attention_heads": values["num_heads"],
            "attention_head_dim": values["hidden_size"] // values["num_heads"],
            "joint_attention_dim": values["context_in_dim"],
            "pooled_projection_dim": values["vec_in_dim"],
            "guidance_embeds": self._has_guidance(),
            "axes_dims_rope": values["axes_dim"],
        }

    def _has_guidance(self) -> bool:
        with TensorFiles([self.folder / "flux1.safetensors"]) as files:
            return any(name.endswith("guidance_in.in_layer.weight") for name in files.shapes)

    def autoencoder_config(self) -> dict[str, Any]:
        values = self.values["ae"]
        levels = len(values["ch_mult"])
        return {
            "in_channels": values["in_channels"],
            "out_channels": values["out_ch"],
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
            "block_out_channels": [values["ch"] * factor for factor in values["ch_mult"]],
            "layers_per_block": values["num_res_blocks"],
            "latent_channels": values["z_channels"],
            "sample_size": values["resolution"],
            "scaling_factor": values["scale_factor"],
            "shift_factor": values["shift_factor"],
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        }

    def load(self, *, residency: Residency | None = None, device: str = "cpu", lora_scale: float = 1.0) -> USOPipeline:
        """The case's files as a pipeline without text encoders, float32."""
        placing: dict[str, Any] = {"dtype": torch.float32}
        size = self.values["siglip_image_size"]
        pipeline = USOPipeline(
            transformer=checkpoints.load_transformer(
                self.transformer_config(),
                [self.folder / "flux1.safetensors"],
                lora=[self.folder / "dit_lora.safetensors"],
                lora_scale=lora_scale,
                **placing,
            ),
            vae=checkpoints.load_autoencoder(self.autoencoder_config(), [self.folder / "ae.safetensors"], **placing),
            text_encoder=None,
            tokenizer=None,
            text_encoder_2=None,
            tokenizer_2=None,
            image_encoder=checkpoints.load_image_encoder(
                json.loads((self.folder / "siglip" / "config.json").read_text(encoding="utf-8")),
                [self.folder / "siglip" / "model.safetensors"],
                **placing,
            ),
            image_processor=SiglipImageProcessorPil(size={"height": size, "width": size}),
            context_embedder=checkpoints.load_context_embedder([self.folder / "projector.safetensors"], **placing),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        )
        return pipeline.place(residency or Residency(load_memory_plan("full"), device))

    def image(self, name: str) -> Image.Image:
        path = self.folder / name
        return open_image(path.read_bytes(), path.name)

    def condition(self, pipeline: USOPipeline, mode: str) -> Conditioning:
        """Condition a mode on the given embeddings, through the pipeline's own encoders."""
        with_content, styles = MODES[mode]
        content = fit_reference(self.image("content.png"), self.values["content_long_side"])
        return pipeline.make_conditioning(
            self.expected["prompt_embeds"],
            self.expected["pooled_prompt_embeds"],
            style_tokens=[pipeline.encode_style(self.image(f"{style}.png")) for style in styles],
            reference_latents=[pipeline.encode_reference(content)] if with_content else [],
            height=self.height,
            width=self.width,
            guidance_scale=self.values["guidance"],
        )


def check_sizes(case: Case) -> Iterator[Row]:
    """Fitted sizes of other images, and the case's own content image."""
    wrong = []
    for name, expected in case.values["preprocessed_sizes"].items():
        size, long_side = name.split("@")
        width, height = map(int, size.split("x"))
        fitted = (16, 16) if (width, height) == (16, 16) else fitted_size(width, height, int(long_side))[1]
        if list(fitted) != expected:
            wrong.append(name)
    yield Row(f"fitted sizes ({len(case.values['preprocessed_sizes'])} cases)", _differs(wrong, []), EXACT)
    fitted_image = fit_reference(case.image("content.png"), case.values["content_long_side"])
    expected_image = case.image("content_preprocessed.png")
    yield Row("fitted content image, size", _differs(fitted_image.size, expected_image.size), EXACT)
    if fitted_image.size == expected_image.size:
        error = relative_error(image_to_tensor(fitted_image), image_to_tensor(expected_image))
        yield Row("fitted content image, pixels", error, BOUND)


def check_schedules(case: Case) -> Iterator[Row]:
    schedules = dict(case.values["schedules"])
    schedules[f"{case.width}x{case.height}@{case.values['steps']}"] = case.values["timesteps"]
    for name, expected in schedules.items():
        size, steps = name.split("@")
        width, height = map(int, size.split("x"))
        scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)
        sigmas = set_schedule(scheduler, "uso", int(steps), height, width)
        yield Row(f"schedule {name}", relative_error(sigmas, torch.tensor(expected)), BOUND)


def check_encoders(case: Case, pipeline: USOPipeline) -> Iterator[Row]:
    for style in sorted({style for _, styles in MODES.values() for style in styles}):
        image = case.image(f"{style}.png")
        pixels = pipeline.preprocess_style(image)
        yield Row(f"{style} pixels", relative_error(pixels, case.expected[f"{style}_pixel_values"]), BOUND)
        tokens = pipeline.encode_style(image)
        yield Row(f"{style} tokens", relative_error(tokens, case.expected[f"{style}_tokens"]), BOUND)
    content = fit_reference(case.image("content.png"), case.values["content_long_side"])
    reference = pipeline.encode_reference(content)
    yield Row("reference latents", relative_error(reference, case.expected["reference_latents"]), BOUND)
    ids, (reference_ids,) = picture_ids(case.height, case.width, [(content.height, content.width)])
    yield Row("picture ids", _differs(ids.tolist(), case.expected["image_ids"].tolist()), EXACT)
    yield Row("reference ids", _differs(reference_ids.tolist(), case.expected["reference_ids"].tolist()), EXACT)


def check_mode(case: Case, pipeline: USOPipeline, mode: str) -> Iterator[Row]:
    """One velocity, the latents after all steps, and the decoded picture of a mode."""
    conditioning = case.condition(pipeline, mode)
    # Attention is blind to the order of context tokens (their ids are all zero), so no velocity can tell it.
    styles = [case.expected[f"{style}_tokens"] for style in MODES[mode][1]]
    if styles:
        expected = torch.cat(styles, dim=1)
        error = relative_error(conditioning.context[:, : expected.shape[1]], expected)
        yield Row(f"{mode}: style leads the context", error, BOUND)
    noise = case.expected["noise"].to(pipeline.work_device)
    sigma = torch.tensor([case.values["velocity_timestep"]], device=pipeline.work_device)
    with torch.inference_mode():
        (row,) = pipeline.modulation_table(conditioning, sigma)
        velocity = pipeline.velocity(conditioning, pack(noise), row)
    yield Row(f"{mode}: velocity", relative_error(velocity, case.expected[f"{mode}.velocity"]), BOUND)
    steps = list(pipeline.denoise(conditioning, noise, num_inference_steps=case.values["steps"], schedule="uso"))
    latents = unpack(steps[-1].latents, case.height, case.width)
    yield Row(f"{mode}: latents", relative_error(latents, case.expected[f"{mode}.latents"]), BOUND)
    image = pipeline.decode(latents)
    yield Row(f"{mode}: image", relative_error(image, case.expected[f"{mode}.image"]), IMAGE_BOUND)


def check(case: Case, pipeline: USOPipeline) -> Iterator[Row]:
    """Every row of the table."""
    yield from check_sizes(case)
    yield from check_schedules(case)
    yield from check_encoders(case, pipeline)
    for mode in case.values["modes"]:
        yield from check_mode(case, pipeline, mode)


def print_table(rows: Iterator[Row], out: Callable[[str], None] = print) -> bool:
    """Print rows as they come; True if all passed."""
    passed = True
    for row in rows:
        passed &= row.passed
        allowed = "exact" if row.bound == EXACT else f"<= {row.bound:.0e}"
        out(f"{row.what:32} {row.error:10.2e}  {allowed:8}  {'ok' if row.passed else 'FAILED'}")
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("case", type=Path, help="folder of a golden case")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    case = Case(args.case)
    return 0 if print_table(check(case, case.load(device=args.device))) else 1


if __name__ == "__main__":
    sys.exit(main())
