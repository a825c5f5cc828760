"""Scores of single pictures.

encoders.py    the encoders' files, fetched and read whole
pixels.py      pictures as encoders want them
clip.py        CLIP: pictures and prompts
dino.py        DINO: subjects
csd.py         CSD: styles
"""

CSD_HOME = "huggingface.co/tomg-group-umd/CSD-ViT-L"
"""Where CSD's weights are published, as `pytorch_model.bin`."""
