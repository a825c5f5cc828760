"""Tokens, ids and noise: pure functions against their definition, with the nearest mistakes planted."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from uso.errors import USOError
from uso.pipeline.latents import draw_noise, grid_ids, image_to_tensor, pack, picture_ids, tensor_to_image, unpack

NOISE_42 = "13b7996441d34ba6a4afc6f84de6277314b89f1509c39e0c624fa151180c566a"
"""SHA-256 of the float32 noise of seed 42 at 64 x 96 pixels, as first drawn."""


def test_pack_and_unpack_are_inverse_and_channel_major() -> None:
    """Wrong axis orders also round-trip, so single entries are held too."""
    latents = torch.arange(16 * 4 * 6, dtype=torch.float32).view(1, 16, 4, 6)
    tokens = pack(latents)
    assert tokens.shape == (1, 6, 64)
    assert torch.equal(unpack(tokens, 32, 48), latents)
    token = tokens[0, 4].view(16, 2, 2)  # second row of tokens, second column
    assert torch.equal(token, latents[0, :, 2:4, 2:4])
    wrong = latents.view(1, 16, 2, 2, 3, 2).permute(0, 2, 4, 3, 5, 1).reshape(1, 6, 64)
    assert not torch.equal(tokens, wrong)


def test_references_follow_diagonally() -> None:
    """The first begins at (H/16, W/16), the second where the first ended; (H, W) mixed up would show."""
    picture, (first, second) = picture_ids(64, 96, [(32, 48), (16, 80)])
    assert picture.shape == (24, 3) and picture[0].tolist() == [0, 0, 0] and picture[-1].tolist() == [0, 3, 5]
    assert first[0].tolist() == [0, 4, 6] and first[-1].tolist() == [0, 5, 8]
    assert second[0].tolist() == [0, 6, 9] and second[-1].tolist() == [0, 6, 13]
    assert picture_ids(64, 96, [])[1] == []


def test_ids_run_row_by_row() -> None:
    assert grid_ids(2, 3)[:4, 1:].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0]]


def test_a_grid_spreads_every_image_over_the_same_positions() -> None:
    """At the grid's own size nothing changes; others have its centre and, half a token inside, its edges."""
    square, (reference,) = picture_ids(128, 128, [(128, 128)], grid=8)
    assert torch.equal(square, picture_ids(128, 128, [])[0])
    assert torch.equal(reference, grid_ids(8, 8, 8, 8))
    wide, (small, next_to_it) = picture_ids(128, 192, [(64, 128), (128, 128)], grid=8)
    assert wide[0].tolist() == pytest.approx([0, 0, 8 / 24 - 0.5]) and len(wide) == 8 * 12
    assert wide[:, 1:].mean(0).tolist() == pytest.approx([3.5, 3.5])
    assert small[0].tolist() == [0, 8.5, 8] and small[-1].tolist() == [0, 14.5, 15]  # half as many rows, twice apart
    assert next_to_it[0].tolist() == [0, 16, 16]


def test_noise_is_the_same_everywhere() -> None:
    """A change of generator, dtype or shape order would silently give every seed another picture."""
    noise = draw_noise(42, 64, 96)
    assert noise.shape == (1, 16, 8, 12) and noise.dtype == torch.float32
    digest = hashlib.sha256(noise.numpy().astype("<f4").tobytes()).hexdigest()
    assert digest == NOISE_42
    torch.manual_seed(0)
    assert torch.equal(noise, draw_noise(42, 64, 96))
    assert not torch.equal(noise, draw_noise(43, 64, 96))
    single = torch.randn(noise.shape, generator=torch.Generator().manual_seed(42))
    assert not torch.equal(noise, single)
    draw_noise(2**32 - 1, 16, 16)


def test_pixels_round_trip() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    tensor = image_to_tensor(image)
    assert tensor.shape == (1, 3, 32, 48) and tensor.min() >= -1 and tensor.max() <= 1
    assert np.array_equal(np.array(tensor_to_image(tensor)), pixels)
    assert np.array(tensor_to_image(3 * torch.ones(1, 3, 16, 16))).min() == 255  # clamped, not wrapped around


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_that_are_none_are_no_picture(value: str) -> None:
    """Catches a black picture that is delivered as if all were well."""
    pixels = torch.zeros(1, 3, 16, 16)
    pixels[0, 1, 2, 3] = float(value)
    with pytest.raises(USOError, match="The model gave values that are not finite, which make no picture. Choose"):
        tensor_to_image(pixels)
