"""A request's inputs as tensors: prompts through CLIP and T5, style pictures through SigLIP, content through the VAE.

`Encoders` is a part of `USOPipeline`, which holds the modules. Nothing is cached here.
"""

import copy
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from PIL import Image

from uso.config import ModelConfig
from uso.memory.residency import Residency
from uso.pipeline.latents import image_to_tensor, pack
from uso.pipeline.prompts import prompt_ids, prompt_length, reading_notes
from uso.request.checks import check_tokens
from uso.transformer.context_embedder import STYLE_LAYERS, ContextEmbedder
from uso.transformer.exchange import ExchangedTransformer

CLIP_LENGTH = 77
"""Tokens that CLIP reads. FLUX uses only its pooled vector, so longer prompts are cut for CLIP."""


class Encoders:
    """The encoding part of `USOPipeline`."""

    text_encoder: Any
    text_encoder_2: Any
    tokenizer: Any
    tokenizer_2: Any
    image_encoder: Any
    image_processor: Any
    vae: Any
    transformer: Any
    context_embedder: ContextEmbedder
    exchanged: ExchangedTransformer
    residency: Residency
    model_config: ModelConfig

    @property
    def work_device(self) -> torch.device:
        return self.residency.device

    def encode_prompt(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        """T5 features [1, L, text_dim] and CLIP's pooled vector [1, pooled_dim]; see `encode_prompts`."""
        return self.encode_prompts([prompt])

    @torch.inference_mode()
    def encode_prompts(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """T5 features [B, L, text_dim] and CLIP's pooled vectors [B, pooled_dim].

        T5 is padded to the model's length without a mask, so the network reads the padding too.

        Raises:
            RequestError: a prompt is longer than the model reads.
        """
        for prompt in prompts:
            self.check_prompt(prompt)
        padded = {"padding": "max_length", "max_length": self.model_config.max_sequence_length}
        ids_2 = torch.cat([prompt_ids(self.tokenizer_2, prompt, **padded) for prompt in prompts])
        padded = {"padding": "max_length", "max_length": CLIP_LENGTH, "truncation": True}
        ids = torch.cat([prompt_ids(self.tokenizer, prompt, **padded) for prompt in prompts])
        self.residency.enter("text")
        with self.residency.visit(self.text_encoder):
            pooled = self.text_encoder(ids.to(self.work_device)).pooler_output
        with self.residency.visit(self.text_encoder_2):
            features = self.text_encoder_2(ids_2.to(self.work_device)).last_hidden_state
        return features, pooled

    def check_prompt(self, prompt: str) -> None:
        """Refuse a prompt that is longer than the model reads.

        Raises:
            RequestError: gives both lengths, in tokens.
        """
        check_tokens(prompt_length(self.tokenizer_2, prompt), self.model_config.max_sequence_length)

    def prompt_counter(self) -> Callable[[str], int] | None:
        """A function that counts a prompt's tokens, in any thread: it has a tokenizer of its own, for two threads must
        not use one at once. None where prompts are encoded elsewhere."""
        if self.tokenizer_2 is None:
            return None
        tokenizer, lock = copy.deepcopy(self.tokenizer_2), threading.Lock()

        def count(prompt: str) -> int:
            with lock:
                return prompt_length(tokenizer, prompt)

        return count

    def reading_notes(self, prompt: str) -> tuple[str, ...]:
        """What people should know about how their prompt is read; see `prompts.reading_notes`.

        Raises:
            RequestError: hardly anything of it is read.
        """
        if self.tokenizer_2 is None:  # the prompt was encoded elsewhere
            return ()
        return reading_notes(self.tokenizer_2, prompt, self.model_config.title)

    def preprocess_style(self, image: Image.Image) -> torch.Tensor:
        """A style picture as the image encoder reads it: [1, 3, S, S], squashed to a square, in [-1, 1]."""
        pixels: torch.Tensor = self.image_processor(image, return_tensors="pt").pixel_values
        return pixels

    @torch.inference_mode()
    def encode_style(self, image: Image.Image) -> torch.Tensor:
        """The style tokens of a picture, levels in the order high, mid, low: [1, 3 * style_tokens, hidden]."""
        return self.context_embedder.style_tokens(self.style_features(image))

    @torch.inference_mode()
    def style_features(self, image: Image.Image) -> list[torch.Tensor | None]:
        """What the style projector reads: the image encoder's hidden states in `STYLE_LAYERS`."""
        self.residency.enter("style")
        pixels = self.preprocess_style(image).to(self.work_device, self.image_encoder.dtype)
        with self.residency.visit(self.image_encoder), exact_convolutions():
            return image_features(self.image_encoder, pixels, STYLE_LAYERS.values())

    @torch.inference_mode()
    def encode_reference(self, image: Image.Image) -> torch.Tensor:
        """A fitted content reference -> latents [1, 16, H/8, W/8], float32: mean of the posterior, not a sample."""
        self.residency.enter("reference")
        pixels = image_to_tensor(image).to(self.work_device, self.vae.dtype)
        self.vae.use_tiling = False
        with self.residency.visit(self.vae), exact_convolutions():
            mean = self.vae.encode(pixels).latent_dist.mean.float()
        return self.vae.config.scaling_factor * (mean - self.vae.config.shift_factor)

    def embed_reference(self, latents: torch.Tensor) -> torch.Tensor:
        """References' latents [B, 16, h, w] -> their tokens in transformer width: [B, tokens, hidden]."""
        tokens = pack(latents).to(self.work_device, self.transformer.dtype)
        embedded: torch.Tensor = self.exchanged.picture_embedder.projection(tokens)
        return embedded


def image_features(image_encoder: Any, pixels: torch.Tensor, layers: Iterable[int]) -> list[torch.Tensor | None]:
    """The hidden states named by `layers` (negative indices), at their places in a list; all others are None.

    Runs only as many of the encoder's layers as are read: neither the last one nor the head.
    """
    count = len(image_encoder.encoder.layers) + 1
    wanted = {count + layer for layer in layers}
    hidden = image_encoder.embeddings(pixels)
    states: list[torch.Tensor | None] = [None] * count
    for index in range(max(wanted) + 1):
        if index in wanted:
            states[index] = hidden
        if index < max(wanted):
            hidden = image_encoder.encoder.layers[index](hidden, attention_mask=None)
    return states


class Shared:
    """A process-wide setting that several threads need at once: made by the first, undone after the last.

    If two threads each saved and restored such a setting, the first to leave would undo it for the other, and the
    second would restore the wrong value.

    Args:
        setting: returns a context manager that makes the setting and restores the previous one.
    """

    def __init__(self, setting: Callable[[], AbstractContextManager[Any]]) -> None:
        self._setting = setting
        self._lock = threading.Lock()
        self._inside = 0
        self._held: AbstractContextManager[Any] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """While inside, the setting is in force."""
        with self._lock:
            if self._inside == 0:
                held = self._setting()
                held.__enter__()
                self._held = held
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0 and self._held is not None:
                    self._held.__exit__(None, None, None)


exact_convolutions = Shared(
    lambda: torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
)
"""cuDNN without choosing kernels by speed, for the same picture every time. Every convolution runs inside it, so none
depends on what other threads are doing."""

tf32_convolutions = Shared(
    lambda: torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=True)
)
"""The same, but with inputs rounded to TF32 (10 bits of mantissa) on the tensor cores. The flag is the whole process's:
only where no other pipeline runs."""

_TF32_CAPABILITY = (8, 0)


def has_tf32(device: torch.device) -> bool:
    """Whether a device's tensor cores multiply TF32."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= _TF32_CAPABILITY
