"""Scores of single pictures.

csd.py    CSD's style descriptor
"""

CSD_HOME = "huggingface.co/tomg-group-umd/CSD-ViT-L"
"""Where CSD's weights are published, as `pytorch_model.bin`."""
