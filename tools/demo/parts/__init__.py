"""The parts of the demo model, trained from nothing.

tokenizers.py autoencoder.py image_encoder.py base.py guidance.py descriptor.py    one part each
alignment.py    what the base learns from the descriptor
captions.py     captioned pictures by the number of a step
words.py        captions as token ids
pictures.py     drawn samples as pixels
model.py        the model's folder
"""
