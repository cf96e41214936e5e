"""CMAE: a masked autoencoder whose hidden image is also told apart from others by a slower copy of the encoder.

Paper    Z. Huang, X. Jin, C. Lu, Q. Hou, M.-M. Cheng, D. Fu, X. Shen, J. Feng. Contrastive masked autoencoders are
         stronger vision learners. IEEE TPAMI 2023. Section 3.
Keeps    an online encoder on visible patches, hidden in groups of 2 x 2; a pixel decoder and a feature decoder; a
         second view, whole and moved by a few pixels, through an encoder that is a moving average and gets no gradient;
         InfoNCE of the two, beside the pixels' squared error.
Differs  65% hidden, as this toolkit's design has it, where the paper hides 75%. Adam for AdamW. Batches of the tiny
         size hold 128 images, so 127 others to be told from, where the paper has thousands.
Tiny     patches of 2 x 2 as in mae, hidden one by one, for groups of 2 x 2 of them would be four in a digit; 3 layers,
         150 epochs, moved by a pixel at most; InfoNCE counts .3 and the average forgets within 100 steps.
Command  structmae pretrain --data digits-images --recipe cmae
Score    `python benchmarks/run.py systems --only cmae`; see benchmarks/README.md
"""

from dataclasses import replace

from structmae.recipe import InfonceOptions, MaskOptions, Recipe, TermOptions, ViewOptions
from structmae.recipes.mae import RECIPE as MAE

RECIPE: Recipe = replace(
    MAE,
    name="cmae",
    summary="as mae, with a second, moved view that a slower encoder reads, and InfoNCE between the two",
    paper="Huang et al., Contrastive masked autoencoders are stronger vision learners, TPAMI 2023",
    mask=MaskOptions(ratio=0.65, act="drop", group="cell"),
    views={**MAE.views, "teacher": ViewOptions(encoder="ema", plan="whole", augment="shift", amount=31)},
    terms=TermOptions(infonce=InfonceOptions(weight=1.0, view="teacher", temperature=0.07, hidden=256, layers=2)),
    sizes={
        "tiny": {
            **MAE.sizes["tiny"],
            "mask.group": "token",
            "encoder.layers": 3,
            "train.epochs": 150,
            "views.teacher.amount": 1,
            "views.teacher.momentum": 0.99,
            "terms.infonce.weight": 0.3,
            "terms.infonce.temperature": 0.2,
            "terms.infonce.hidden": 64,
            "terms.infonce.layers": 1,
        }
    },
)
