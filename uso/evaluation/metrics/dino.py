"""DINO ViT-S/16 (Caron et al., 2021), the first version: the vector of what a picture shows."""

from collections.abc import Sequence

import torch
from PIL import Image
from transformers import ViTModel

from uso.evaluation.metrics import Vectors
from uso.evaluation.metrics.encoders import Files, Published, load_whole, unit
from uso.evaluation.metrics.pixels import prepare_picture

PUBLISHED = Published("facebook/dino-vits16")
"""No commit of this repository is known here for certain, so the one that is found is recorded."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, per channel of pixels in [0, 1]."""
RESIZED, CROPPED = 256, 224
"""Short side of the resized picture, and side of its crop, as DINO's own evaluation has them."""
EPSILON = 1e-6
"""Of the layer norms in the released code. The converted repository's config says 1e-12."""


class DinoEncoder:
    """Pictures to unit vectors: the class token after the last norm, without a pooler."""

    def __init__(self, files: Files, device: str = "cpu") -> None:
        self.model = load_whole(ViTModel, files, add_pooling_layer=False, layer_norm_eps=EPSILON).to(device)
        self.device = device

    @torch.inference_mode()
    def vectors(self, pictures: Sequence[Image.Image]) -> Vectors:
        """[N, hidden]: resized to 256 (bicubic), centre cropped to 224."""
        side = self.model.config.image_size
        short = side * RESIZED // CROPPED
        planes = torch.stack([prepare_picture(picture, side, short, MEAN, STD) for picture in pictures])
        return unit(self.model(planes.to(self.device)).last_hidden_state[:, 0])
