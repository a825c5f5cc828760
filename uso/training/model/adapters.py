"""What learns in a pipeline: projector, LoRA or transformer; everything else is frozen.

The LoRA's layout and names are the released file's: one `down` for query, key and value together, and an `up` of three
times the rows. `uso.weights.checkpoints` folds a LoRA for inference.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from uso.errors import CheckpointError
from uso.pipeline.pipeline import USOPipeline
from uso.training.config import TrainingConfig
from uso.training.losses.seeds import generator
from uso.training.model.export import released
from uso.training.model.load import start_lora
from uso.transformer.context_embedder import ContextEmbedder
from uso.weights.formats.layouts import flux_part, lora_modules, lora_target

_QUERY_KEY_VALUE = 3
_LEVELS = "levels."


class LoraPair(nn.Module):
    """`up @ down` is what is added to a weight; float32, and 0 at first because `up` is.

    `down` is drawn with deviation 1 / rank, as in the released code, to which the paper's learning rate belongs.

    Args:
        draw: of the numbers of `down`; without one there are only shapes.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, draw: torch.Generator | None) -> None:
        super().__init__()
        device = "meta" if draw is None else "cpu"
        down = torch.empty(rank, in_features, device=device)
        self.down = nn.Parameter(down if draw is None else down.normal_(0, 1 / rank, generator=draw))
        self.up = nn.Parameter(torch.zeros(out_features, rank, device=device))


class AdaptedLinear(nn.Module):
    """A frozen linear layer and its rows [start, stop) of a pair.

    The pair is not registered: it belongs to `Lora`, and what moves or casts the transformer leaves it alone.
    """

    def __init__(self, base: nn.Module, pair: LoraPair, start: int, stop: int) -> None:
        super().__init__()
        self.base = base
        self.start, self.stop = start, stop
        self._pair = (pair,)

    @property
    def pair(self) -> LoraPair:
        return self._pair[0]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out], in the dtype of the frozen layer's output."""
        pair = self.pair
        output: torch.Tensor = self.base(inputs)
        down, up = pair.down.to(inputs.dtype), pair.up[self.start : self.stop].to(inputs.dtype)
        change = nn.functional.linear(nn.functional.linear(inputs, down), up)
        return output + change.to(output.dtype)


class Lora:
    """All pairs of one transformer, put into it.

    Args:
        transformer: diffusers' `FluxTransformer2DModel`, its modulation layers in or out. From here on it is adapted.
        rank: of every pair.
        seed: of the `down` matrices.
    """

    def __init__(self, transformer: Any, rank: int, seed: int) -> None:
        self.transformer = transformer
        self.pairs: dict[str, LoraPair] = {}
        targets = _layers_by_source(transformer)
        doubles, singles = len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)
        for number, module in enumerate(lora_modules(doubles, singles)):
            layers = targets[lora_target(module)]
            widths = [layer.out_features for _, _, layer in layers]
            draw = None if transformer.device.type == "meta" else generator(seed, "lora", number)
            pair = self.pairs[module] = LoraPair(layers[0][2].in_features, sum(widths), rank, draw)
            start = 0
            for (owner, leaf, layer), width in zip(layers, widths, strict=True):
                owner.register_module(leaf, AdaptedLinear(layer, pair, start, start + width))
                start += width

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names as the released file has them, with `.weight` at the end."""
        for module, pair in self.pairs.items():
            yield f"{module}.down.weight", pair.down
            yield f"{module}.up.weight", pair.up

    def to(self, device: torch.device) -> "Lora":
        for pair in self.pairs.values():
            pair.to(device)
        return self

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor], where: str) -> None:
        """Take over the numbers of a file in the released layout.

        Raises:
            CheckpointError: a tensor is missing, surplus or misshapen.
        """
        own = dict(self.named_parameters())
        wrong = sorted(own.keys() ^ tensors.keys())
        wrong += sorted(name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape)
        if wrong:
            found = list(tensors[wrong[0]].shape) if wrong[0] in tensors else "nothing"
            expected = list(own[wrong[0]].shape) if wrong[0] in own else "nothing"
            raise CheckpointError(
                f"{where} does not fit this model: {wrong[0]} should be {expected} and is {found}. Is lora.rank the "
                "file's rank?"
            )
        for name, parameter in own.items():
            parameter.copy_(tensors[name])


def _layers_by_source(transformer: Any) -> dict[str, list[tuple[nn.Module, str, Any]]]:
    """FLUX's weights -> the layers of a transformer that hold them, in order: (owner, name in it, layer).

    Of a fused weight only query, key and value are given.
    """
    found: dict[str, dict[int, tuple[nn.Module, str, Any]]] = {}
    for path, owner in transformer.named_modules():
        for leaf, layer in owner.named_children():
            name = f"{path}.{leaf}.weight"
            if not name.startswith(("transformer_blocks.", "single_transformer_blocks.")):
                continue
            if not hasattr(layer, "in_features"):
                continue
            try:
                part = flux_part(name)
            except KeyError:
                continue
            if part.index < _QUERY_KEY_VALUE:
                found.setdefault(part.source, {})[part.index] = (owner, leaf, layer)
    return {source: [layers[index] for index in sorted(layers)] for source, layers in found.items()}


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
            file = None if pipeline.transformer.device.type == "meta" else start_lora(config, offline=True)
            if file is not None:
                lora.load(load_file(file), str(file))
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
