"""MAE: three quarters of an image's patches are dropped, a transformer reads the rest, a small one rebuilds.

Paper    K. He, X. Chen, S. Xie, Y. Li, P. Dollar, R. Girshick. Masked autoencoders are scalable vision learners. CVPR
         2022. Section 3 and appendix A.1.
Keeps    75% of the patches dropped, a ViT over the visible ones, fixed 2-D sines, mask tokens for a decoder over all
         places, squared error on hidden patches, each normalised by its own mean and deviation (size published).
Differs  no class token: vectors are means over patches. Adam, where the paper has AdamW with beta 0.95.
Tiny     images as small as digits: patches of 2 x 2, an encoder of 6 x 64 and a decoder of 1 x 64; pixels are not
         normalised by patch, for four of them have little deviation of their own.
Command  structmae pretrain --data digits-images --recipe mae
Score    `python benchmarks/run.py systems --only mae`; see benchmarks/README.md
"""

from structmae.recipe import EncoderOptions, HeadOptions, MaskOptions, Override, Recipe, TokenOptions, TrainOptions
from structmae.recipes.vision import TINY

RECIPE = Recipe(
    name="mae",
    summary="drop 75% of an image's patches, encode the rest, rebuild the pixels",
    paper="He et al., Masked autoencoders are scalable vision learners, CVPR 2022",
    modality="image",
    default_data="digits-images",
    tokens=TokenOptions(patch=16),
    mask=MaskOptions(ratio=0.75, act="drop"),
    encoder=EncoderOptions(
        layers=12,
        hidden=768,
        heads=12,
        feed_forward=3072,
        prenorm=True,
        positions="sines",
        dropout=0.0,
        attention_dropout=0.0,
        activation="gelu",
        norm="layernorm",
        pool="mean",
    ),
    heads={
        "pixels": HeadOptions(of="patch", layers=8, hidden=512, heads=16, remask="none", loss="mse", normalize=True)
    },
    train=TrainOptions(epochs=800, batch_size=256, lr=1.5e-4, weight_decay=0.0, warmup=40),
    sizes={"tiny": {**TINY, "heads.pixels.layers": 1, "heads.pixels.hidden": 64, "heads.pixels.heads": 4,
                    "heads.pixels.normalize": False}},
    overrides=(Override("digits-images", {"tokens.patch": 2}), Override("digits-maps", {"tokens.patch": 2})),
)  # fmt: skip
