"""GraphMAE: hide whole nodes, rebuild their features with a GNN decoder and a scaled cosine error.

Paper    Z. Hou, X. Liu, Y. Cen, Y. Dong, H. Yang, C. Wang, J. Tang. GraphMAE: self-supervised masked graph
         autoencoders. KDD 2022. Settings: table 9 and the configuration file of the authors' repository.
Keeps    learned token and random replacement (section 3.2), re-masking before a one-layer GNN decoder, scaled cosine
         error (section 3.3), cosine schedule on single graphs, linear probe and SVM as the paper evaluates.
Adds     with mask.edge_ratio, edge attributes are hidden and rebuilt too, by a head of their own.
Differs  counts are exact for each graph of a batch (the paper's code draws over the batch as one); features of single
         graphs are row-normalised as the data sets of the paper's code are.
Command  structmae pretrain --data cora
"""

from structmae.recipe import EncoderOptions, HeadOptions, MaskOptions, Override, ProbeOptions, Recipe, TrainOptions

_GIN = {
    "encoder.layer": "gin",
    "encoder.norm": "batchnorm",
    "encoder.pool": "mean",
    "heads.features.layer": "gin",
    "heads.edges.layer": "gin",
    "train.lr": 1.5e-4,
    "train.weight_decay": 0.0,
    "train.schedule": "constant",
    "mask.random": 0.0,
    "heads.features.gamma": 1.0,
}

_TUNE = {"finetune.head_epochs": 30, "finetune.epochs": 100, "finetune.lr": 0.01, "finetune.encoder_lr": 1e-3}


def _published(data: str, **settings: object) -> Override:
    """`lr=1e-3` and the like, by the last part of the option's key."""
    keys = {
        "layers": "encoder.layers",
        "hidden": "encoder.hidden",
        "heads": "encoder.heads",
        "pool": "encoder.pool",
        "ratio": "mask.ratio",
        "random": "mask.random",
        "gamma": "heads.features.gamma",
        "probe_weight_decay": "probe.weight_decay",
    }
    return Override(data, {keys.get(key, f"train.{key}"): value for key, value in settings.items()}, "published")


RECIPE = Recipe(
    name="graphmae",
    summary="hide node features, rebuild them with a GNN decoder and a scaled cosine error",
    paper="Hou et al., GraphMAE: self-supervised masked graph autoencoders, KDD 2022",
    mask=MaskOptions(ratio=0.5, random=0.05, random_from="any"),
    encoder=EncoderOptions(layer="gat", layers=2, hidden=512, heads=4, dropout=0.2, attention_dropout=0.1),
    heads={
        "features": HeadOptions(layer="gat", loss="sce", gamma=3.0),
        "edges": HeadOptions(of="edge", layer="gat", loss="sce", gamma=1.0, remask="none"),  # with mask.edge_ratio
    },
    train=TrainOptions(epochs=1500, lr=1e-3, weight_decay=2e-4, schedule="cosine"),
    probe=ProbeOptions(lr=0.01, weight_decay=1e-4, epochs=300),
    sizes={"tiny": {"encoder.hidden": 256, "train.epochs": 150}},
    overrides=(
        Override("level:node", {**_TUNE, "finetune.head_epochs": 100}),  # an epoch is one step
        Override("level:graph", {**_GIN, **_TUNE, "finetune.batch_size": 32}),
        Override("level:graph", {"encoder.hidden": 64, "train.epochs": 20, "train.lr": 1e-3}, "tiny"),
        Override("cora", {"tokens.normalize": "row"}),
        Override("citeseer", {"tokens.normalize": "row"}),
        Override("pubmed", {"tokens.normalize": "row"}),
        _published(
            "cora", epochs=1500, lr=1e-3, weight_decay=2e-4, hidden=512, heads=4, ratio=0.5, random=0.05, gamma=3.0
        ),
        _published("citeseer", epochs=300, weight_decay=2e-5, heads=2, random=0.1, gamma=1.0, probe_weight_decay=0.01),
        _published("pubmed", epochs=1000, weight_decay=1e-5, hidden=1024, ratio=0.75, random=0.0, gamma=3.0),
        _published("mutag", layers=5, hidden=32, lr=5e-4, epochs=20, ratio=0.75, random=0.1,
                   gamma=2.0, pool="sum", batch_size=64),
        _published("imdb-binary", layers=2, hidden=512, epochs=60),
        _published("imdb-multi", layers=3, hidden=512, epochs=50),
        _published("proteins", layers=3, hidden=512, epochs=100, pool="max"),
        _published("nci1", layers=2, hidden=512, lr=1e-3, epochs=300, ratio=0.25, random=0.1,
                   gamma=2.0, batch_size=16, schedule="cosine"),
    ),
)  # fmt: skip
