"""What the small sizes of image recipes share: a transformer that a laptop trains in a minute."""

from collections.abc import Mapping
from typing import Any

TINY: Mapping[str, Any] = {
    "tokens.patch": 4,
    "encoder.layers": 6,
    "encoder.hidden": 64,
    "encoder.heads": 4,
    "encoder.feed_forward": 256,
    "train.epochs": 250,
    "train.batch_size": 128,
    "train.lr": 2e-3,
    "train.warmup": 5,
}
