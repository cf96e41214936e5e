"""Classification of images from few labels: a linear probe on frozen vectors, for several draws of the labels."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from structmae.data.images import Images
from structmae.errors import StructmaeError, UsageError
from structmae.evaluate.frozen import frozen
from structmae.evaluate.probe import accuracy, fit_probes
from structmae.evaluate.vectors import effective_rank, item_vectors, layer_vectors, spread, standardised
from structmae.nn.base import Encoder
from structmae.nn.sequence import SequenceEncoder
from structmae.recipe import Recipe


def check(data: Any, recipe: Recipe) -> None:
    """Raises UsageError where the data are no images, StructmaeError where they have too few labels."""
    if data.level != "image":
        raise UsageError(f"image_classification: {data.name} is no set of images; leave --task out")
    if data.y is None:
        raise StructmaeError(f"{data.name} has no labels, so there is nothing to evaluate on")
    if len(data.classes) < 2 or not len(_labelled(data, "test")):
        raise StructmaeError(
            f"image_classification needs two classes and labelled test images; {data.name} has {len(data.classes)} and "
            f"{len(_labelled(data, 'test'))}"
        )
    counts = torch.bincount(data.y[_labelled(data, "train")], minlength=len(data.classes))
    fewest, labels = int(counts.argmin()), recipe.probe.labels
    if counts[fewest] < labels:
        there = int(counts[fewest])
        raise StructmaeError(
            f"probe.labels={labels}, but class {data.classes[fewest]} of {data.name} has {there} labelled training "
            f"images: {f'set probe.labels={there}' if there else 'give labelled images of it, or leave it out'}"
        )


def evaluate(
    encoder: Encoder,
    initial: Encoder,
    source: Any,
    data: Images,
    recipe: Recipe,
    *,
    progress: Callable[[str], None] | None = None,
    at_once: int = 256,
) -> dict[str, Any]:
    """The evaluation of `encoder` beside `initial`, the same before training, and pixels.

    Where the encoder is causal or reads ids, its last layers say what comes next rather than what is shown (Chen et
    al., iGPT, ICML 2020, section 4.1), so the probe reads the layer that validation chooses; of others the output.
    progress: takes a line as each arm is done. at_once: images that an encoder reads at once.

    Raises UsageError and StructmaeError as `check` does.
    """
    check(data, recipe)
    arms: dict[str, list[Tensor]] = {}
    layered = recipe.encoder.attention == "causal" or recipe.tokens.palette > 0
    with frozen(encoder, initial):
        for arm, part in (("pretrained", encoder), ("random_init", initial)):
            if layered and isinstance(part, SequenceEncoder):
                arms[arm] = layer_vectors(part, source, at_once=at_once)
            else:
                arms[arm] = [item_vectors(part, source, at_once=at_once)]
    arms["raw_features"] = [pixels(data, source.tokenizer)]
    return score(arms, data, recipe, progress)


def pixels(data: Images, tokenizer: Any) -> Float[Tensor, "images values"]:
    """All values of each image, scaled by the training images, 0 where one was not observed."""
    normalized: Tensor = tokenizer.normalize(data.x.to(tokenizer.mean.device)).cpu()
    return normalized.nan_to_num(0.0).flatten(1)


def score(
    arms: Mapping[str, Sequence[Tensor]],
    data: Images,
    recipe: Recipe,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Accuracy on the test images for each arm: of each an (N, width) for every layer that validation may choose.

    Vectors are standardised by the training images. `value` and `std` are over draws of the labels, the same for every
    arm; effective rank and spread are of the test images' vectors, as the encoder gives them, `spread_centred` of these
    less the mean of the training images', which all means over tokens have in common.
    """
    assert data.y is not None
    train, test = data.split["train"], _labelled(data, "test")
    validation = _labelled(data, "validation")
    subsets = torch.stack(draws(data, recipe))
    rows: list[dict[str, Any]] = []
    for arm, layers in arms.items():
        probes = []
        for layer in layers:
            x = standardised(layer, layer[train])
            probes.append((x, fit_probes(x, data.y, subsets, validation, len(data.classes), recipe.probe)))
        chosen = len(layers) - 1
        if len(validation):  # of equals the later layer
            means = [fmean(probe.validation or 0.0 for probe in fitted) for _, fitted in probes]
            chosen = max(range(len(means)), key=lambda layer: (means[layer], layer))
        x, fitted = probes[chosen]
        scores = [accuracy(probe.predict(x[test]), data.y[test]) for probe in fitted]
        vectors = layers[chosen][data.split["test"]]
        rows.append(
            {
                "features": arm,
                "value": fmean(scores),
                "validation": means[chosen] if len(validation) else None,
                "std": stdev(scores) if len(scores) > 1 else None,
                "n": len(test),
                "labels": recipe.probe.labels,
                "subsets": len(scores),
                "layer": chosen + 1 if len(layers) > 1 else None,
                "effective_rank": effective_rank(vectors),
                "spread": spread(vectors),
                "spread_centred": spread(vectors - layers[chosen][train].mean(0)),
            }
        )
        if progress is not None:
            progress(f"{arm}: accuracy {rows[-1]['value']:.4f}")
    return {
        "task": "image_classification",
        "metric": "accuracy",
        "better": "higher",
        "split": "test",
        "split_source": data.split_source,
        **{row["features"]: row["value"] for row in rows},
        "rows": rows,
    }


def draws(data: Images, recipe: Recipe) -> list[Int[Tensor, "chosen"]]:
    """`probe.subsets` times `probe.labels` training images of each class: by `train.seed` and the draw's number."""
    assert data.y is not None
    rows = _labelled(data, "train")
    members = [rows[data.y[rows] == label].numpy() for label in range(len(data.classes))]
    found = []
    for number in range(recipe.probe.subsets):
        rng = np.random.default_rng([recipe.train.seed, number])
        some = [rng.permutation(each)[: recipe.probe.labels] for each in members]
        found.append(torch.from_numpy(np.sort(np.concatenate(some))))
    return found


def _labelled(data: Images, part: str) -> Int[Tensor, "rows"]:
    assert data.y is not None
    rows = data.split[part]
    return rows[data.y[rows] >= 0]
