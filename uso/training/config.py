"""The settings of a training run: `TrainingConfig`, read from `configs/training/`, with command line overrides.

Plain data without torch. Wrong values are refused here. Files and devices are checked in `prepare.py`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from uso.config import CONFIGS, ROOT, Schedule, Strict, from_home
from uso.errors import ConfigError
from uso.training.config_files import config_names, load_config

FOLDER = CONFIGS / "training"

Learner = Literal["projector", "lora", "transformer"]
Condition = Literal["style", "content"]
Precision = Literal["auto", "bfloat16", "float32"]
FeatureKind = Literal["prompt", "latents", "style"]


RELEASED = "released"
"""In the place of a file of `start`: the one that the model's config names, fetched if need be."""


class StartConfig(Strict):
    """Files of an earlier stage to begin from, or `released`; relative paths start at the program's root."""

    projector: str | None = None
    """`projector.safetensors`; without one a new projector is drawn."""
    lora: str | None = None
    """`dit_lora.safetensors`; learned on if the LoRA learns, else folded into the transformer."""


class DataConfig(Strict):
    rows: str = "data/rows.jsonl"
    """JSON lines: {"prompt", "content", "styles": [...], "target"}, paths relative to the file; UNO's JSON (`.json`);
    or a folder of pictures, `a.txt` beside `a.png` its caption."""
    siblings: Literal["style", "content"] | None = None
    """What another picture of the folder is to each; null for none."""
    repeats: int = Field(default=1, ge=1)
    """How often an epoch holds every row; with `siblings`, each time beside another picture."""
    source: str | None = None
    """`module:function` that opens other data than such rows (`uso.training.data.source`)."""
    cache: str = "outputs/training/cache"
    """Where encoded pictures and prompts are kept."""
    cached: tuple[FeatureKind, ...] = ("prompt", "latents", "style")
    """Which of them; the others are encoded anew at every step, and their encoders stay on the device."""
    resolution: int = Field(ge=16)
    """Side of a square target in pixels; other shapes have about as many pixels."""
    smaller: tuple[int, ...] = ()
    """Further resolutions. A target is read at the largest that it fills, or at the smallest."""
    enlarge: bool = True
    """Whether targets that fill no resolution are enlarged; else they are left out."""
    content_size: int = Field(ge=16)
    """Long side of content references, in pixels."""
    aspects: tuple[str, ...] = ("1:1", "4:3", "3:4", "3:2", "2:3", "16:9", "9:16")
    """Shapes, width to height; a picture is cropped to the nearest one."""
    max_styles: int = Field(default=1, ge=1)
    """How many of a row's style pictures are read."""
    memory_gib: float = Field(default=4.0, ge=0)
    """Host memory for features that were read from the cache."""

    @property
    def resolutions(self) -> tuple[int, ...]:
        """All of them, largest first."""
        return tuple(sorted({self.resolution, *self.smaller}, reverse=True))

    @field_validator("smaller")
    @classmethod
    def _positive(cls, sides: tuple[int, ...]) -> tuple[int, ...]:
        if any(side < 16 for side in sides):
            raise ValueError("every side must be at least 16 pixels")
        return sides

    @model_validator(mode="after")
    def _smaller_than_the_largest(self) -> "DataConfig":
        if any(side >= self.resolution for side in self.smaller):
            raise ValueError(f"smaller must name sides under resolution ({self.resolution})")
        return self


class DropoutConfig(Strict):
    """Chances, per sample, that a condition is left out. One draw decides between style and content, so a sample never
    loses both: their chances add up."""

    text: float = Field(default=0.0, ge=0, le=1)
    """... and the empty prompt takes its place; not beside the content of a row whose layout moves, since an empty
    prompt means that the layout is kept."""
    style: float = Field(default=0.0, ge=0, le=1)
    content: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _one_draw(self) -> "DropoutConfig":
        if self.style + self.content > 1:
            raise ValueError("style and content must add up to at most 1: a sample loses one of them or none")
        return self


class FlowConfig(Strict):
    """Which noise levels the flow loss draws. The paper is silent; FLUX's own habits are the default.

    `uno` draws as the published training code of UNO does, on which USO builds: uniform, then `shift: flux`. Both have
    their median at 0.76 for 1024 x 1024 pixels, but of UNO's levels 14 % lie above 0.95 and 9.5 % below 0.25, of the
    default's 4 % and 1 %.
    """

    sampling: Literal["logit_normal", "uniform", "uno"] = "logit_normal"
    mean: float = 0.0
    """Of the normal distribution under `logit_normal`."""
    deviation: float = Field(default=1.0, gt=0)
    shift: Schedule | None = "flux"
    """Bends levels towards noise: `flux` by the true number of tokens, `uso` as inference does, a number, or none."""

    @model_validator(mode="after")
    def _one_preset(self) -> "FlowConfig":
        if self.sampling == "uno" and self.shift != "flux":
            raise ValueError("shift must be flux where sampling is uno; with another shift, choose sampling=uniform")
        return self


class RewardConfig(Strict):
    """Style reward learning: a roll-out, one step with gradients, and how near the picture is to its style."""

    descriptor: str | None = None
    """`module:function` that is given the path of its weights, or None, and returns a module from pixels [B, 3, H, W]
    in [-1, 1] to unit vectors [B, D]; null for no reward."""
    descriptor_weights: str | None = None
    held_out: str | None = None
    """A second descriptor that is never learned from, in the same form: scores validation pictures."""
    held_out_weights: str | None = None
    start_step: int = Field(default=0, ge=0)
    """Step S: before it the weight is 0, and nothing of the reward runs."""
    weight: float = Field(default=1.0, ge=0)
    every: int = Field(default=1, ge=1)
    """Steps from one reward loss to the next."""
    steps: int = Field(default=25, ge=1)
    """Of the inference schedule that is rolled out. The paper is silent; the authors' UMO has 25."""
    last: int = Field(default=10, ge=1)
    """The step with gradients is drawn from this many last ones."""
    schedule: Schedule = "uso"
    guidance: float | None = None
    """Guidance scale of the roll-out; the model's default if null."""
    samples: int | None = Field(default=None, ge=1)
    """Of a batch, how many are rolled out; all if null."""
    decode_size: int | None = Field(default=None, ge=32)
    """Long side, in pixels, at which the clean estimate is decoded; the picture's own if null."""

    def weight_at(self, step: int) -> float:
        """The lambda of a step (counted from 0): 0 before `start_step` and in steps between `every`."""
        due = step >= self.start_step and (step - self.start_step) % self.every == 0
        return self.weight if due else 0.0

    @model_validator(mode="after")
    def _in_order(self) -> "RewardConfig":
        if self.last > self.steps:
            raise ValueError(f"last must be at most steps ({self.steps})")
        return self


class OptimizerConfig(Strict):
    kind: str = "adamw"
    """`adamw`; `adamw8bit`, which keeps its moments in 8 bits and needs bitsandbytes and a GPU; or a `module:function`
    that is given the list of parameters and this config, and returns an optimizer."""
    lr: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float | None = Field(default=1.0, gt=0)
    """Largest norm of all gradients together; null for no clipping."""
    warm_up: int = Field(default=0, ge=0)
    """Steps over which the learning rate grows from 0."""
    decay: Literal["constant", "cosine"] = "constant"
    """After warm-up; `cosine` falls to 0 at the last step."""

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in ("adamw", "adamw8bit") and ":" not in kind:
            raise ValueError(f"it must be adamw, adamw8bit or a module:function, not '{kind}'")
        return kind


class LoraConfig(Strict):
    rank: int = Field(default=128, ge=1)


class KeepConfig(Strict):
    """Checkpoints, from which a run resumes."""

    every: int = Field(default=500, ge=1)
    last: int = Field(default=2, ge=1)
    """How many are kept."""


class ValidationConfig(Strict):
    """Pictures of fixed seeds, made by the pipeline itself."""

    every: int | None = Field(default=None, ge=1)
    """Steps between two rounds; null for none."""
    rows: str | None = None
    """A file of rows that are not learned from; `data.rows` if null."""
    count: int = Field(default=2, ge=1)
    """Of its first rows, how many are drawn in every mode."""
    steps: int = Field(default=25, ge=1)
    seed: int = Field(default=0, ge=0)


class RunConfig(Strict):
    """What any run has: a file below `configs/training/`."""

    name: str
    description: str
    output: str = ""
    """Folder of results, checkpoints and logs; `outputs/training/NAME` if empty."""
    seed: int = Field(default=0, ge=0)
    optimizer: OptimizerConfig
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of the running mean of weights, which is what is exported; null for none."""
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    """Samples of one step, over all processes and accumulated micro-batches."""
    device: str = "auto"
    """`cpu`, `mps`, `cuda` or `cuda:N`; `auto` is the first of CUDA, MPS and CPU that is there."""
    precision: Precision = "auto"
    """Of products: `bfloat16` is autocast where the base is float32; `auto` is bfloat16 but on a processor that only
    imitates it, many times slower. What learns is held in float32 in any case."""
    compile: bool = False
    """Compile the network with torch.compile: some minutes at the start, faster steps after. For shapes that stay;
    where there is no compiler, the run goes without."""
    tensorboard: bool = True
    wandb: str | None = None
    """Project of Weights & Biases to log to as well; needs the package wandb."""
    log_every: int = Field(default=10, ge=1)
    stop_after_minutes: float | None = Field(default=None, gt=0)
    """End a run early, with a checkpoint to resume from; null to run to the last step."""
    checkpoint: KeepConfig = KeepConfig()

    @property
    def folder(self) -> Path:
        return ROOT / from_home(self.output or f"outputs/training/{self.name}")


class TrainingConfig(RunConfig):
    """A run of the trainer: projector, LoRA or transformer on rows of data."""

    model: str
    """Of `configs/models/`, or a YAML file: what is learned on."""
    learns: tuple[Learner, ...]
    reads: tuple[Condition, ...]
    """What the network sees beside text and latents."""
    guidance: float | None = 1.0
    """Guidance scale that the network is given in the flow loss; null for a model that takes none."""
    start: StartConfig = StartConfig()
    data: DataConfig
    dropout: DropoutConfig = DropoutConfig()
    flow: FlowConfig = FlowConfig()
    teacher: str | None = None
    """`module:function` that makes targets of the network's own answers (`uso.training.losses.teacher`)."""
    teacher_options: dict[str, Any] = Field(default_factory=dict)
    reward: RewardConfig = RewardConfig()
    lora: LoraConfig = LoraConfig()
    micro_batch: int = Field(default=1, ge=1)
    """Samples that pass the network at once."""
    base: Literal["bfloat16", "float32", "int8", "nf4"] = "bfloat16"
    """How frozen weights are held; `int8` is for 24 GB cards, `nf4` (4 bits) for 16 GB."""
    shard: bool = False
    """Share the frozen blocks out among the processes (FSDP): each holds a part, and steps take longer."""
    gradient_checkpointing: bool = True
    export_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    validation: ValidationConfig = ValidationConfig()

    @property
    def quantized(self) -> bool:
        """Whether frozen weights are held in 8 or 4 bits."""
        return self.base in ("int8", "nf4")

    def accumulation(self, processes: int) -> int:
        """Micro-batches per step of one process.

        Raises:
            ConfigError: the batch cannot be cut up like that.
        """
        at_once = self.micro_batch * processes
        if self.batch % at_once:
            raise ConfigError(
                f"batch {self.batch} is no multiple of micro_batch {self.micro_batch} times {processes} "
                f"process{'es' if processes > 1 else ''}. Change one of them."
            )
        return self.batch // at_once

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainingConfig":
        if not self.learns:
            raise ValueError("learns must name at least one of projector, lora, transformer")
        if "transformer" in self.learns and "lora" in self.learns:
            raise ValueError("learns cannot name both lora and transformer: they are two ways to change one thing")
        if "transformer" in self.learns and self.base != "float32":
            raise ValueError("base must be float32 where the transformer itself learns")
        if "projector" in self.learns and "style" not in self.reads:
            raise ValueError("reads must name style where the projector learns")
        if "style" in self.reads and "projector" not in self.learns and self.start.projector is None:
            raise ValueError("start.projector must name a file where style is read and the projector does not learn")
        if self.learns == ("projector",) and self.dropout.style > 0:
            raise ValueError("dropout.style must be 0 where the projector learns alone: without a style it has no part")
        if self.precision == "float32" and self.base != "float32":
            raise ValueError(f"base must be float32 where precision is (it is {self.base})")
        if self.shard and (self.reward.descriptor is not None or self.teacher is not None):
            raise ValueError(
                "shard must be false where there is a reward or a teacher: not all processes have one at once"
            )
        if self.shard and ("transformer" in self.learns or self.quantized or self.compile):
            raise ValueError("shard must be false where the transformer learns, base is rounded, or compile is true")
        if self.reward.descriptor is not None and "style" not in self.reads:
            raise ValueError("reads must name style where there is a style reward")
        return self


def training_names() -> list[str]:
    """Names of the configs in `configs/training/`."""
    return config_names(FOLDER)


def load_training_config(name: str, overrides: Sequence[str] = ()) -> TrainingConfig:
    """The run called `name`, or the one in a YAML file, with `key.key=value` overrides.

    Raises:
        ConfigError: no such run; an unknown key, with the known ones; a value that is refused.
    """
    return load_config(TrainingConfig, FOLDER, name, overrides)
