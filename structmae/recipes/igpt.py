"""iGPT: an image as a row of colours, each told from those before it, or a few hidden ones from all others.

Paper    M. Chen, A. Radford, R. Child, J. Wu, H. Jun, D. Luan, I. Sutskever. Generative pretraining from pixels. ICML
         2020. Sections 2 and 3.
Keeps    colours of a palette by k-means; `igpt`: causal attention over the image shifted by one place, cross-entropy
         everywhere; `igpt_masked` (the paper's BERT objective): 15% of the pixels are zeros and scored; features are
         means over places, of the layer that validation chooses.
Differs  learned positions start at sines. 512 colours of 32 x 32 images are the paper's smallest model.
Tiny     8 grey levels, 4 layers of 64.
Command  structmae pretrain --data digits-images --recipe igpt
Score    `python benchmarks/run.py systems --only igpt`; see benchmarks/README.md
"""

from dataclasses import replace

from structmae.recipe import EncoderOptions, HeadOptions, MaskOptions, Recipe, TokenOptions, TrainOptions
from structmae.recipes.vision import TINY

RECIPE = Recipe(
    name="igpt",
    summary="pixels as colours of a palette, each predicted from those before it",
    paper="Chen et al., Generative pretraining from pixels, ICML 2020",
    modality="image",
    default_data="digits-images",
    tokens=TokenOptions(palette=512),
    mask=MaskOptions(ratio=1.0, keep=1.0),
    encoder=EncoderOptions(
        layers=24,
        hidden=512,
        heads=8,
        feed_forward=2048,
        attention="causal",
        shift=True,
        prenorm=True,
        dropout=0.0,
        attention_dropout=0.0,
        activation="gelu",
        norm="layernorm",
        pool="mean",
    ),
    heads={"colours": HeadOptions(of="patch", target="ids", layers=0, remask="none", loss="ce")},
    train=TrainOptions(epochs=100, batch_size=128, lr=3e-3, warmup=5),
    sizes={
        "tiny": {
            **{key: value for key, value in TINY.items() if key != "tokens.patch"},
            "tokens.palette": 8,
            "encoder.layers": 4,
            "train.epochs": 40,
        }
    },
)

MASKED = replace(
    RECIPE,
    name="igpt_masked",
    summary="pixels as colours of a palette, 15% of them zeros, predicted from all others",
    mask=MaskOptions(ratio=0.15, act="zero"),
    encoder=replace(RECIPE.encoder, attention="full", shift=False),
)
