"""What learns in a pipeline: everything is frozen but the projector, a LoRA, or the transformer, as the run says."""

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from uso.config import ROOT
from uso.pipeline.pipeline import USOPipeline
from uso.training.config import TrainingConfig
from uso.training.losses.seeds import generator
from uso.training.model.adapters import Lora
from uso.training.model.export import released
from uso.transformer.context_embedder import ContextEmbedder

_LEVELS = "levels."


class Learners:
    """The parameters of a pipeline that learn, in float32, by names like `lora/double_blocks.0...`.

    Args:
        pipeline: from here on it is frozen but for these; a LoRA that learns is put into its transformer.
    """

    def __init__(self, pipeline: USOPipeline, config: TrainingConfig) -> None:
        self.pipeline = pipeline
        self.parts: dict[str, dict[str, nn.Parameter]] = {}
        """Learner -> its parameters: the projector's and the transformer's as their classes name them, the LoRA's as
        the released file does."""
        for module in _modules(pipeline):
            module.requires_grad_(False)
        if "projector" in config.learns:
            self.parts["projector"] = self._projector(config)
        if "transformer" in config.learns:
            with pipeline.exchanged.stock() as transformer:
                self.parts["transformer"] = dict(transformer.named_parameters())
        if "lora" in config.learns:
            lora = Lora(pipeline.transformer, config.lora.rank, config.seed)
            if config.start.lora is not None and pipeline.transformer.device.type != "meta":
                lora.load(load_file(ROOT / config.start.lora), config.start.lora)
            self.parts["lora"] = dict(lora.to(pipeline.work_device).named_parameters())
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """All of them: `learner/name`."""
        return {f"{part}/{name}": parameter for part, named in self.parts.items() for name, parameter in named.items()}

    def _projector(self, config: TrainingConfig) -> dict[str, nn.Parameter]:
        levels = self.pipeline.context_embedder.levels.float()
        if config.start.projector is None:
            draw_projector(self.pipeline.context_embedder, config.seed)
        return {f"{_LEVELS}{name}": parameter for name, parameter in levels.named_parameters()}

    def released(
        self, values: Mapping[str, torch.Tensor] | None = None, dtype: torch.dtype = torch.float32
    ) -> dict[str, dict[str, torch.Tensor]]:
        """What was learned, as tensors of the released files, by learner.

        Args:
            values: by the names of `parameters`, in their place (a running mean).
        """
        values = values or self.parameters
        return {
            part: released(part, {name: values[f"{part}/{name}"] for name in named}, dtype)
            for part, named in self.parts.items()
        }


@torch.no_grad()
def draw_projector(embedder: ContextEmbedder, seed: int) -> None:
    """Numbers for a projector that knows nothing: as `nn.Linear` spreads them, from the run's seed."""
    draw = generator(seed, "projector")
    for module in embedder.levels.modules():
        if isinstance(module, nn.Linear):
            reach = module.in_features**-0.5
            for parameter in (module.weight, module.bias):
                parameter.copy_((2 * torch.rand(parameter.shape, generator=draw) - 1) * reach)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def _modules(pipeline: USOPipeline) -> list[Any]:
    modulation = pipeline.exchanged.modulation
    parts = [*pipeline.components.values(), *modulation.layers, modulation.embedding]
    return [part for part in parts if isinstance(part, nn.Module)]
