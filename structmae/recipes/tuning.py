"""How recipes of series are fine-tuned: what all of them share."""

from structmae.recipe import Override

# A forecasting head starts at a closed form, which large steps and dropout only spoil; a class head starts at random,
# and sets of recordings are small, so it takes more epochs.
SERIES = (
    Override("level:panel", {"finetune.head_epochs": 0, "finetune.dropout": 0.0, "finetune.lr": 1e-4}),
    Override(
        "level:sample",
        {
            "finetune.head_epochs": 30,
            "finetune.epochs": 70,
            "finetune.batch_size": 32,
            "finetune.lr": 0.01,
            "finetune.encoder_lr": 1e-3,
        },
    ),
)
