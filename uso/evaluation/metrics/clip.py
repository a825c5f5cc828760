"""CLIP ViT-B/32 by OpenAI (Radford et al., 2021): vectors of pictures and of prompts.

CLIP-I is the cosine of two pictures, CLIP-T that of a picture and its prompt, both clipped at 0.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from uso.evaluation.metrics import Vectors
from uso.evaluation.metrics.csd import MEAN, STD
from uso.evaluation.metrics.encoders import Files, Published, load_whole, unit
from uso.evaluation.metrics.pixels import prepare_picture

PUBLISHED = Published(
    "openai/clip-vit-base-patch32",
    "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
    ("config.json", "vocab.json", "merges.txt"),
)


class ClipEncoder:
    """Pictures and prompts to unit vectors of one space."""

    def __init__(self, files: Files, device: str = "cpu") -> None:
        self.model = load_whole(CLIPModel, files).to(device)
        self.tokenizer = CLIPTokenizer.from_pretrained(files.folder, local_files_only=True)
        self.device = device

    @torch.inference_mode()
    def vectors(self, pictures: Sequence[Image.Image]) -> Vectors:
        """[N, width]: resized to 224 (bicubic), centre cropped, projected."""
        side = self.model.config.vision_config.image_size
        planes = torch.stack([prepare_picture(picture, side, side, MEAN, STD) for picture in pictures])
        return unit(self.model.get_image_features(planes.to(self.device)).pooler_output)

    @torch.inference_mode()
    def text_vectors(self, prompts: Sequence[str]) -> Vectors:
        """[N, width]; what is longer than CLIP reads is cut off."""
        inputs = self.tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
        inputs = inputs.to(self.device)
        return unit(self.model.get_text_features(**inputs).pooler_output)


def count_cut(files: Files, prompts: Sequence[str]) -> int:
    """How many prompts are longer than CLIP reads (77 tokens)."""
    tokenizer = CLIPTokenizer.from_pretrained(files.folder, local_files_only=True)
    return sum(len(tokenizer(each, verbose=False)["input_ids"]) > tokenizer.model_max_length for each in prompts)
