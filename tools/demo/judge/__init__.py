"""How good a model is on drawn pictures that it has not seen: right style, right subject, layout kept."""
