"""A request becomes a picture: condition -> denoise (a generator) -> decode.

pipeline.py        USOPipeline: saving and loading, placing, whole requests
signature.py       the request's values as parameters of its methods
conditioning.py    one request's prompt, styles and references, put together
prompts.py         prompts as token ids; which words are not read
encoders.py        T5, CLIP, SigLIP and the autoencoder's encoder
saved_styles.py    from images to a saved style, and from its file to tokens
denoising.py       Euler steps and decoding
stages.py          the values passed between stages
latents.py         noise, packing, position ids
schedule.py        noise levels
preview.py         a small picture of unfinished latents
pacing.py          how far the host runs ahead of the device
cache.py           results of earlier requests
"""
