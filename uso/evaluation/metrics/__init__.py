"""Scores of single pictures.

encoders.py    the encoders' files, fetched and read whole
pixels.py      pictures as encoders want them
clip.py        CLIP: pictures and prompts
dino.py        DINO: subjects
csd.py         CSD: styles
"""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Rows, or one."""

CSD_HOME = "huggingface.co/tomg-group-umd/CSD-ViT-L"
"""Where CSD's weights are published, as `pytorch_model.bin`."""
