"""GraphMAE2: GraphMAE whose decoder starts from several random re-masks, and whose encoder predicts its own average.

Paper    Z. Hou, Y. He, Y. Cen, X. Liu, Y. Dong, E. Kharlamov, J. Tang. GraphMAE2: a decoding-enhanced masked
         self-supervised graph learner. WWW 2023. Settings: the authors' configuration files for the three citation
         networks (cora.yaml of their repository; citeseer.yaml and pubmed.yaml of their CogDL).
Keeps    GraphMAE's tokens, random replacement and scaled cosine error; K = 3 decodings, each with another random half
         of the latents zeroed (section 3.2); a perceptron that predicts, at the hidden nodes, the latents that an
         exponential moving average of the encoder has of the whole graph (section 3.3).
Differs  the loss is the mean over decodings, where the authors' code sums. Targets are the average's latents, not a
         projection of them. The authors' files for the citation networks zero the hidden nodes once, as GraphMAE does,
         and keep no average (momentum 0) or a fixed one (1); here they have what the paper describes.
Tiny     128 wide, 80 epochs.
Command  structmae pretrain --data citations --recipe graphmae2
"""

from dataclasses import replace

from structmae.recipe import HeadOptions, Override, ProbeOptions, ViewOptions
from structmae.recipes.graphmae import RECIPE as GRAPHMAE

RECIPE = replace(
    GRAPHMAE,
    name="graphmae2",
    summary="graphmae with several random re-masks, and latents of an averaged encoder as a second target",
    paper="Hou et al., GraphMAE2: a decoding-enhanced masked self-supervised graph learner, WWW 2023",
    heads={
        **GRAPHMAE.heads,
        "features": replace(GRAPHMAE.heads["features"], remask="random", remask_ratio=0.5, remask_draws=3),
        "latent": HeadOptions(target="latent", view="teacher", layer="mlp", layers=2, gamma=1.0, remask="none"),
    },
    views={**GRAPHMAE.views, "teacher": ViewOptions(encoder="ema", plan="whole", momentum=0.996)},
    probe=ProbeOptions(lr=0.025, weight_decay=1e-4, epochs=300),
    sizes={"tiny": {"encoder.hidden": 128, "train.epochs": 80}},
    overrides=(
        *(override for override in GRAPHMAE.overrides if override.size != "published"),
        Override(
            "cora",
            {
                "encoder.hidden": 1024,
                "encoder.heads": 8,
                "mask.random": 0.15,
                "heads.latent.weight": 0.15,
                "train.epochs": 2000,
            },
            "published",
        ),
        Override(
            "citeseer",
            {
                "encoder.hidden": 1024,
                "mask.random": 0.0,
                "heads.features.gamma": 1.0,
                "heads.latent.weight": 0.1,
                "train.epochs": 500,
                "train.lr": 5e-4,
                "train.weight_decay": 1e-4,
                "probe.weight_decay": 0.01,
                "probe.epochs": 500,
            },
            "published",
        ),
        Override(
            "pubmed",
            {
                "encoder.heads": 2,
                "mask.ratio": 0.9,
                "mask.random": 0.0,
                "heads.features.gamma": 4.0,
                "views.teacher.momentum": 0.995,
                "train.epochs": 2000,
                "train.lr": 5e-3,
                "train.weight_decay": 1e-5,
                "probe.weight_decay": 5e-4,
                "probe.epochs": 500,
            },
            "published",
        ),
    ),
)
