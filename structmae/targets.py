"""What is rebuilt: content, ids, codes fitted to the training data, latents of another view, degrees, edges.

A target gives, for the tokens (or pairs of tokens) that a head is asked about, what its decoder should have said, and
which of those values were observed (None: all). `width` is that of the decoder's predictions.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from structmae.errors import StructmaeError
from structmae.fast.sparse import SparseRows
from structmae.nn.base import Encoded, Encoder
from structmae.recipe import HeadOptions, Recipe
from structmae.tokens import Source

Found = tuple[Tensor, Tensor | None]
ENOUGH = 50_000  # tokens that centres are fitted on


class Target(nn.Module):
    """`target(encoded, views, rows)`: of the tokens `rows` (K,) of a set, or of pairs (2, K). `views` are what other
    encoders or plans made of the same tokens."""

    def __init__(self, options: HeadOptions, width: int):
        super().__init__()
        self.options, self.width = options, width

    def fit(self, encoder: Encoder, source: Source) -> None:
        """Called once before training; what is learnt of the training data stays in buffers."""

    def lazy(
        self, encoded: Encoded, views: Mapping[str, Encoded], rows: Tensor
    ) -> tuple[Tensor | SparseRows, Tensor | None]:
        """As `forward`, for a loss that reads sparse rows."""
        found: Found = self(encoded, views, rows)
        return found


class Values(Target):
    """Content, normalised as the encoder reads it; with `normalize` each token's by its own mean and deviation (He et
    al., MAE, CVPR 2022, section 3)."""

    def forward(self, encoded: Encoded, views: Mapping[str, Encoded], rows: Tensor) -> Found:
        part = encoded.tokens[self.options.of]
        values = part.values[rows]
        observed = None if part.observed is None else part.observed[rows]
        return (scaled(values, observed) if self.options.normalize else values), observed

    def lazy(
        self, encoded: Encoded, views: Mapping[str, Encoded], rows: Tensor
    ) -> tuple[Tensor | SparseRows, Tensor | None]:
        part = encoded.tokens[self.options.of]
        if self.options.normalize or part.observed is not None or part.sparse is None:
            return super().lazy(encoded, views, rows)
        return SparseRows(part.sparse, rows.numpy()), None


def scaled(values: Tensor, observed: Tensor | None) -> Tensor:
    """Each row by the mean and deviation of its observed values; those that were not stay 0."""
    there = torch.ones_like(values) if observed is None else observed.to(values.dtype)
    count = there.sum(1, keepdim=True).clamp_min(1)
    off = (values - (values * there).sum(1, keepdim=True) / count) * there
    return off / (off.square().sum(1, keepdim=True) / count + 1e-6).sqrt()


class Ids(Target):
    """Ids of a vocabulary."""

    def forward(self, encoded: Encoded, views: Mapping[str, Encoded], rows: Tensor) -> Found:
        ids = encoded.tokens[self.options.of].ids
        assert ids is not None
        return ids[rows], None


class Codes(Target):
    """The nearest of `codes` centres, by k-means of the training tokens' values: a codebook as BEiT's (Bao et al., ICLR
    2022) without a tokenizer of its own. Raises StructmaeError where there are fewer different tokens."""

    centres: Tensor

    def __init__(self, options: HeadOptions, encoder: Encoder):
        super().__init__(options, options.codes)
        self.register_buffer("centres", torch.zeros(options.codes, encoder.token_widths[options.of]))

    def fit(self, encoder: Encoder, source: Source) -> None:
        from sklearn.cluster import MiniBatchKMeans

        found, many = [], 0
        for items in torch.split(torch.arange(source.num_items), 256):
            part = encoder.prepare(source.batch(items), None)[self.options.of]
            found.append(part.values if part.valid is None else part.values[part.valid])
            many += len(found[-1])
            if many >= ENOUGH:
                break
        values = torch.cat(found)[:ENOUGH].cpu()
        different = len(torch.unique(values, dim=0))
        if different < self.options.codes:
            raise StructmaeError(f"heads.*.codes={self.options.codes}: {different} tokens are different; lower it")
        means = MiniBatchKMeans(self.options.codes, random_state=0, n_init=3).fit(values.numpy())
        self.centres.copy_(torch.from_numpy(means.cluster_centers_))

    def forward(self, encoded: Encoded, views: Mapping[str, Encoded], rows: Tensor) -> Found:
        return torch.cdist(encoded.tokens[self.options.of].values[rows], self.centres).argmin(1), None


class Latents(Target):
    """What another view's encoder made of the same tokens, as it is: no gradient goes there (Hou et al., GraphMAE2, WWW
    2023, section 3.3)."""

    def forward(self, encoded: Encoded, views: Mapping[str, Encoded], rows: Tensor) -> Found:
        view = views[self.options.view]
        latent, kept = view.latent[self.options.of].detach(), view.kept[self.options.of]
        if kept is None:
            return latent[rows], None
        place = torch.searchsorted(kept, rows).clamp_max(len(kept) - 1)
        there = kept[place] == rows
        return latent[place].where(there[:, None], 0.0), there[:, None].expand(-1, latent.shape[1])


class Degree(Target):
    """How many edges that the encoder does not get end at a node (Li et al., MaskGAE, KDD 2023, section 4.3); where it
    gets all of them, for nodes are what is hidden, how many there are."""

    def __init__(self, options: HeadOptions, hides_edges: bool):
        super().__init__(options, 1)
        self.hides_edges = hides_edges

    def forward(self, encoded: Encoded, views: Mapping[str, Encoded], rows: Tensor) -> Found:
        every, seen = (part["node"].relations["edges"] for part in (encoded.tokens, encoded.seen))
        degree = every.indptr.diff() - 1  # less the self-loop
        wanted = every.indptr.diff() - seen.indptr.diff() if self.hides_edges else degree
        return wanted[rows, None].float(), None


class Pairs(Target):
    """1 for pairs of nodes (2, K) that are edges, 0 for the others."""

    def forward(self, encoded: Encoded, views: Mapping[str, Encoded], rows: Tensor) -> Found:
        ends, nodes = encoded.tokens["edge"].ends, len(encoded.tokens["node"])
        assert ends is not None
        return torch.isin(rows[0] * nodes + rows[1], ends[0] * nodes + ends[1])[:, None].float(), None


def build_target(options: HeadOptions, recipe: Recipe, encoder: Encoder) -> Target:
    """The target of a head."""
    if options.of == "pair":
        return Pairs(options, 1)
    match options.target:
        case "ids":
            return Ids(options, encoder.vocabulary)
        case "code":
            return Codes(options, encoder)
        case "latent":
            return Latents(options, encoder.width)
        case "degree":
            return Degree(options, recipe.mask.of == "edge")
    return Values(options, encoder.token_widths[options.of])
