"""MultiMAE: several aligned maps of a scene, most patches of which are hidden, each rebuilt from what is left of all.

Paper    R. Bachmann, D. Mizrahi, A. Atanov, A. Zamir. MultiMAE: multi-modal multi-task masked autoencoders. ECCV 2022.
         Section 3.
Keeps    one encoder over the visible patches of all maps, each with a projection of its own and a vector for its type;
         a constant number of visible patches (98 of 588, a sixth), shared out among the maps by a Dirichlet draw; a
         decoder for each map that first reads the latents of all; a loss for each.
Differs  the maps are digits, how steep they are, and where they are dark (made from the image, as the paper's depth and
         segments are made by other networks). The last one has two values and a squared error, where the paper's
         segments have a cross-entropy. No global token.
Tiny     patches of 2 x 2, an encoder of 3 x 64, decoders of 1 x 64.
Command  structmae pretrain --data digits-maps --recipe multimae
Score    `python benchmarks/run.py systems --only multimae`; see benchmarks/README.md
"""

from structmae.recipe import EncoderOptions, HeadOptions, MaskOptions, Override, Recipe, TokenOptions, TrainOptions
from structmae.recipes.mae import RECIPE as MAE
from structmae.recipes.vision import TINY

_DECODER = HeadOptions(of="patch", layers=2, hidden=256, heads=8, remask="none", loss="mse", decoder="cross")
_MAPS = {"image": "mse", "gradient": "l1", "threshold": "mse"}

RECIPE = Recipe(
    name="multimae",
    summary="several aligned maps: hide most patches of all, rebuild each map from what is left of any",
    paper="Bachmann et al., MultiMAE: multi-modal multi-task masked autoencoders, ECCV 2022",
    modality="image",
    default_data="digits-maps",
    tokens=TokenOptions(patch=16),
    mask=MaskOptions(strategy="dirichlet", ratio=5 / 6, act="drop"),
    encoder=EncoderOptions(**vars(MAE.encoder)),
    heads={name: HeadOptions(**{**vars(_DECODER), "kind": name, "loss": loss}) for name, loss in _MAPS.items()},
    train=TrainOptions(epochs=1600, batch_size=256, lr=1e-4, warmup=40),
    sizes={
        "tiny": {
            **TINY,
            "encoder.layers": 3,
            "train.epochs": 100,
            **{f"heads.{name}.{key}": value for name in _MAPS
               for key, value in {"layers": 1, "hidden": 64, "heads": 4}.items()},
        }
    },
    overrides=(Override("digits-maps", {"tokens.patch": 2}),),
)  # fmt: skip
