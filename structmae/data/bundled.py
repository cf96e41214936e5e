"""Two small graphs that come with the dependencies: `digits` and `karate`."""

import numpy as np
import torch

from structmae.data.graphs import Schema
from structmae.data.splits import per_class, stratified
from structmae.data.validate import Draft


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
