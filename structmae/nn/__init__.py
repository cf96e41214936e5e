"""Encoders and decoders. `structmae.nn.build` makes those that a recipe names."""
