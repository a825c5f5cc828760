"""Images that people send: their bytes, and their pixels as the model takes them. No tensors.

pixels      open, turn upright, fit as the released code does, keep input size
formats/    files as bytes: which format, what carries pixels, what decoding costs
"""
