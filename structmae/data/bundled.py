"""Small sets that come with the dependencies: the graphs `digits` and `karate`, images of the digits, and a text."""

import numpy as np
import torch

from structmae.data.graphs import Schema
from structmae.data.images import Images, split_images
from structmae.data.splits import per_class, stratified
from structmae.data.validate import Draft
from structmae.errors import StructmaeError


def digits(neighbours: int = 5) -> Draft:
    """scikit-learn's 1,797 handwritten digits, x (1797, 64) in 0..1, joined to their nearest neighbours.

    An edge joins two digits where one is among the other's `neighbours` nearest by Euclidean distance. 20 a class
    train, 500 validate, 1,000 test.
    """
    from sklearn.datasets import load_digits
    from sklearn.neighbors import NearestNeighbors

    images, target = load_digits(return_X_y=True)
    x = (images / 16).astype(np.float32)
    # A tree, since equal distances fall in another order with each thread count where they come from a product.
    nearest = NearestNeighbors(n_neighbors=neighbours, algorithm="kd_tree").fit(x).kneighbors_graph()
    pairs = nearest.maximum(nearest.T).tocoo()
    y = torch.from_numpy(target.astype(np.int64))
    return Draft(
        name="digits",
        edge_index=torch.from_numpy(np.stack([pairs.row, pairs.col]).astype(np.int64)),
        num_nodes=x.shape[0],
        x=torch.from_numpy(x),
        y=y,
        split=per_class(y, 20, 500, 1000, np.random.default_rng(0)),
        split_source="made: 20 a class, the rest at random, seed 0",
        classes=tuple(str(digit) for digit in range(10)),
        schema=Schema(width=64),
    )


def karate() -> Draft:
    """Zachary's karate club: 34 members in 4 communities, x the identity (34, 34)."""
    from torch_geometric.datasets import KarateClub

    data = KarateClub()[0]
    return Draft(
        name="karate",
        edge_index=data.edge_index,
        num_nodes=34,
        x=data.x,
        y=data.y,
        split=stratified(data.y, train=1 / 3, validation=1 / 3),
        split_source="made: stratified thirds, seed 0",
        classes=("0", "1", "2", "3"),
        schema=Schema(width=34),
    )


def digits_images(*, maps: bool = False) -> Images:
    """scikit-learn's 1,797 handwritten digits as images, 8 x 8 pixels in 0..1; 1,097 train, 200 validate, 500 test.

    With `maps` three aligned ones of each: the image, the size of its gradient by central differences, and where it is
    at least half as dark as it can be.
    """
    from sklearn.datasets import load_digits

    values, target = load_digits(return_X_y=True)
    image = values.reshape(-1, 8, 8) / 16
    down, across = np.gradient(image, axis=(1, 2))
    layers = [image, np.hypot(down, across), image >= 0.5] if maps else [image]
    names = ("image", "gradient", "threshold") if maps else ("image",)
    y = torch.from_numpy(target.astype(np.int64))
    name = "digits-maps" if maps else "digits-images"
    return Images(
        name=name,
        x=torch.from_numpy(np.stack(layers, 1).astype(np.float32)),
        maps=tuple((part, 1) for part in names),
        y=y,
        split=split_images(y, len(y), (1097, 200, 500)),
        split_source="made: stratified by digit, seed 0",
        classes=tuple(str(digit) for digit in range(10)),
        spec={"data": name},
        card=name,
    )


def pydoc_topics() -> dict[str, str]:
    """The help topics of the running Python by name, in alphabetical order: a document each.

    Raises:
        StructmaeError: this Python was installed without them.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise StructmaeError(
            "this Python has no pydoc_data.topics, which is the set pydoc-topics: install the whole standard library, "
            "or give a folder of .txt files."
        ) from None
    return {name: text for name, text in sorted(topics.items()) if text.strip()}
