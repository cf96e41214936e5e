"""Losses beside those of the heads, for any recipe: they compare the vectors of items with each other.

Each is called on what the encoder made of the batch and of its other views, and gives its loss, or None where there is
nothing to compare. Vectors are compared in float32, where a step is computed in bfloat16 as well.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from structmae.errors import StructmaeError
from structmae.nn.base import Encoded, Encoder
from structmae.nn.build import build_decoder
from structmae.recipe import HeadOptions, Recipe
from structmae.tokens import Source
from structmae.views import Shadow

MOST = 1024  # vectors that are compared at once: the work grows with the square


class Term(nn.Module):
    """A loss on vectors of items."""

    weight: float

    def begin(self, epoch: int, encoder: Encoder, source: Source) -> None:
        """Called before each epoch, counted from 0."""

    def stepped(self) -> None:
        """Called after each step of the optimizer."""

    def facts(self) -> dict[str, float]:
        """What the log should say of it beside the loss."""
        return {}


class Infonce(Term):
    """InfoNCE (van den Oord et al., 2018): of all items of the batch, which is it that the other view shows?

    Both views' vectors go through a projection, the encoder's own through a prediction as well (Chen et al., MoCo v3,
    ICCV 2021); where the other view's encoder is a moving average, its projection is one too. With `layers`, the
    encoder's latents first go through a decoder over all places (Huang et al., CMAE, TPAMI 2023, section 3.2).
    """

    def __init__(self, recipe: Recipe, encoder: Encoder):
        super().__init__()
        options, name = recipe.terms.infonce, encoder.name
        self.weight, self.view, self.temperature = options.weight, options.view, options.temperature
        view = recipe.views[options.view]
        self.decoder = None
        if options.layers:
            head = HeadOptions(of=name, layers=options.layers, layer=recipe.encoder.layer, remask="none")
            self.decoder = build_decoder(head, recipe, encoder, encoder.width)
        self.project = perceptron(encoder.width, options.hidden)
        self.predict = perceptron(options.hidden, options.hidden)
        self.shadow = Shadow(self.project, view.momentum) if view.encoder == "ema" else None

    def forward(self, encoder: Encoder, encoded: Encoded, views: Mapping[str, Encoded]) -> Tensor | None:
        mine, which = self._own(encoder, encoded)
        theirs, others = units(encoder, views[self.view])
        both = which[torch.isin(which, others)]
        if len(both) < 2:
            return None
        both = both[torch.randperm(len(both), device=both.device)[:MOST].sort().values] if len(both) > MOST else both
        online = self.predict(self.project(mine[torch.searchsorted(which, both)]))
        project = self.project if self.shadow is None else self.shadow.module
        other = project(theirs[torch.searchsorted(others, both)])
        logits = cosines(online, other) / self.temperature
        return F.cross_entropy(logits, torch.arange(len(both), device=logits.device))

    def _own(self, encoder: Encoder, encoded: Encoded) -> tuple[Tensor, Tensor]:
        if self.decoder is None:
            return units(encoder, encoded)
        part, name = encoded.tokens[encoder.name], encoder.name
        rows = torch.arange(len(part), device=part.ptr.device) if part.valid is None else part.valid.nonzero()[:, 0]
        whole = Encoded({name: self.decoder(encoded, rows, None)}, encoded.tokens, encoded.seen, {name: rows})
        return units(encoder, whole)

    def stepped(self) -> None:
        if self.shadow is not None:
            self.shadow.follow(self.project)


class Uniformity(Term):
    """The logarithm of the mean Gaussian potential of pairs of normalised vectors (Wang and Isola, ICML 2020, section
    4.1.2): the lower, the more evenly they fill the sphere."""

    def __init__(self, recipe: Recipe, encoder: Encoder):
        super().__init__()
        self.weight, self.scale = recipe.terms.uniformity.weight, recipe.terms.uniformity.scale

    def forward(self, encoder: Encoder, encoded: Encoded, views: Mapping[str, Encoded]) -> Tensor | None:
        vectors = units(encoder, encoded)[0]
        if len(vectors) < 2:
            return None
        if len(vectors) > MOST:
            vectors = vectors[torch.randperm(len(vectors), device=vectors.device)[:MOST]]
        return uniformity(F.normalize(vectors, dim=1), self.scale)


def uniformity(vectors: Float[Tensor, "items width"], scale: float) -> Float[Tensor, ""]:
    """log mean exp(-scale |u - v|^2) over pairs of rows, which are normalised."""
    return torch.pdist(vectors).square().mul(-scale).logsumexp(0) - torch.tensor(
        float(len(vectors) * (len(vectors) - 1) / 2)
    ).log().to(vectors)


class Clustering(Term):
    """Deep embedded clustering (Xie et al., ICML 2016, section 3.1): soft assignments of items, nothing hidden, are
    drawn to sharper ones, weighed so that no cluster takes all.

    Centres start by k-means at the epoch `start`, before which the term is left out. The weight of a cluster is its
    share of the assignments of the last batches, where the paper has that of the whole data.
    """

    centres: Tensor
    share: Tensor
    occupied: Tensor
    running: Tensor

    def __init__(self, recipe: Recipe, encoder: Encoder):
        super().__init__()
        options = recipe.terms.clustering
        self.weight, self.clusters = options.weight, options.clusters
        self.start = int(options.start * recipe.train.epochs)
        self.centres = nn.Parameter(torch.zeros(options.clusters, encoder.width))
        self.register_buffer("share", torch.full((options.clusters,), 1 / options.clusters))
        self.register_buffer("occupied", torch.full((options.clusters,), 1 / options.clusters))
        self.register_buffer("running", torch.tensor(False))

    def begin(self, epoch: int, encoder: Encoder, source: Source) -> None:
        if epoch != self.start:
            return
        from sklearn.cluster import KMeans

        training = encoder.training
        encoder.eval()
        with torch.no_grad():
            batches = torch.split(torch.arange(source.num_items), 256)
            vectors = torch.cat([encoder.units(encoder.read(source.batch(items)))[0] for items in batches]).cpu()
        encoder.train(training)
        if len(vectors) < self.clusters:
            raise StructmaeError(
                f"terms.clustering.clusters={self.clusters}, but there are {len(vectors)} items: lower it"
            )
        found = KMeans(self.clusters, random_state=0, n_init=10).fit(vectors.numpy())
        with torch.no_grad():
            self.centres.copy_(torch.from_numpy(found.cluster_centers_))
            labels = torch.from_numpy(found.labels_).long()
            self.share.copy_(torch.bincount(labels, minlength=self.clusters) / len(vectors))
            self.occupied.copy_(self.share)
            self.running.fill_(True)

    def assign(self, vectors: Float[Tensor, "items width"]) -> Float[Tensor, "items clusters"]:
        """How much each item belongs to each cluster: Student's t with one degree of freedom (equation 1)."""
        near = 1 / (1 + torch.cdist(vectors, self.centres).square())
        return near / near.sum(1, keepdim=True)

    def forward(self, encoder: Encoder, encoded: Encoded, views: Mapping[str, Encoded]) -> Tensor | None:
        if not self.running:
            return None
        soft = self.assign(units(encoder, views["whole"])[0])
        if self.training:
            with torch.no_grad():
                self.share.lerp_(soft.mean(0), 0.1)
                nearest = torch.bincount(soft.argmax(1), minlength=self.clusters) / len(soft)
                self.occupied.lerp_(nearest, 0.1)
        sharp = soft.detach().square() / self.share
        sharp = sharp / sharp.sum(1, keepdim=True)
        return F.kl_div(soft.log(), sharp, reduction="batchmean")

    def facts(self) -> dict[str, float]:
        """The share of the items that are nearest to the smallest cluster, and to the largest, in the last batches."""
        low, high = self.occupied.aminmax()
        return {"smallest_cluster": float(low), "largest_cluster": float(high)} if self.running else {}


def units(encoder: Encoder, encoded: Encoded) -> tuple[Tensor, Tensor]:
    """The vectors of items (n, width), of float32's precision or more, and which items they are (n,)."""
    vectors, which = encoder.units(encoded)
    return exact(vectors), which


def exact(x: Tensor) -> Tensor:
    """x in float32 where it is in less."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def cosines(one: Float[Tensor, "items width"], other: Float[Tensor, "items width"]) -> Float[Tensor, "items items"]:
    """Of each row of one to each of the other. A temperature makes much of small differences, so autocast ends here."""
    with torch.autocast(one.device.type, enabled=False):
        return F.normalize(exact(one), dim=1) @ F.normalize(exact(other), dim=1).T


def perceptron(inward: int, outward: int) -> nn.Sequential:
    """Two dense layers."""
    return nn.Sequential(nn.Linear(inward, outward), nn.LayerNorm(outward), nn.GELU(), nn.Linear(outward, outward))


def build_terms(recipe: Recipe, encoder: Encoder) -> dict[str, Term]:
    """The terms that have a weight, by name."""
    kinds = {"infonce": Infonce, "uniformity": Uniformity, "clustering": Clustering}
    return {name: kind(recipe, encoder) for name, kind in kinds.items() if getattr(recipe.terms, name).weight > 0}
