"""Images as tokens: patches of each of their maps, or pixels as colours of a palette."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from structmae.data.images import Images
from structmae.errors import StructmaeError, UsageError
from structmae.masking.kernels import ranks_at
from structmae.masking.rng import Purpose, stream
from structmae.recipe import Recipe
from structmae.tokens.sets import RowSource, TokenSet

PIXELS = 200_000  # of the training images, at most, that a palette is made of
_BLOCK = 1 << 24  # values that are worked on together
_SHIFT = 255  # in place of a token set, of which there are never so many: nothing else draws there


class ImageTokenizer(nn.Module):
    """Images (B, C, H, W) to tokens. An image is an item: the patches of its first map row by row, then those of the
    next one.

    `size` is (H, W), `grid` (rows, columns) the patches of one map, `kinds` the names of the maps, `width` the values
    of a token. `mean` and `deviation` (C,) are those of the training images. With a `palette` (k, C) tokens are pixels
    and have no values but ids, of the nearest of its colours, which are normalised too; `vocabulary` is k, else 0.
    """

    mean: Tensor
    deviation: Tensor
    palette: Tensor

    def __init__(
        self, *, maps: tuple[tuple[str, int], ...], size: tuple[int, int], patch: int, vocabulary: int, scaling: str
    ):
        super().__init__()
        self.maps, self.size, self.patch, self.vocabulary, self.scaling = maps, size, patch, vocabulary, scaling
        self.kinds = tuple(name for name, _ in maps)
        self.channels = sum(channels for _, channels in maps)
        self.grid = (size[0] // patch, size[1] // patch)
        self.most = max(channels for _, channels in maps)
        self.width = 0 if vocabulary else self.most * patch * patch
        self.register_buffer("mean", torch.zeros(self.channels))
        self.register_buffer("deviation", torch.ones(self.channels))
        if vocabulary:
            self.register_buffer("palette", torch.zeros(vocabulary, self.channels))

    @classmethod
    def fit(cls, images: Images, recipe: Recipe) -> "ImageTokenizer":
        """The scale of the training images, and their palette where the recipe has one.

        Raises UsageError for a palette of several maps, StructmaeError for a patch that does not divide the images."""
        options = recipe.tokens
        height, width = images.x.shape[2:]
        patch = 1 if options.palette else options.patch
        if options.normalize == "row":
            raise UsageError("tokens.normalize=row is for features of graphs: set tokens.normalize=standard or none")
        if options.palette and len(images.maps) > 1:
            raise UsageError(
                f"tokens.palette={options.palette} is for images of one map, and {images.name} has "
                f"{len(images.maps)}: set tokens.palette=0"
            )
        if len(images.maps) == 1 and (recipe.mask.strategy == "dirichlet" or recipe.mask.exact == "kind"):
            asked = "strategy=dirichlet" if recipe.mask.strategy == "dirichlet" else "exact=kind"
            raise UsageError(f"mask.{asked} is for several maps, and {images.name} has one: leave it out")
        if height % patch or width % patch:
            divisors = [side for side in range(1, min(height, width) + 1) if height % side == width % side == 0]
            closest = min(divisors, key=lambda side: abs(side - patch))
            raise StructmaeError(
                f"tokens.patch={patch} does not divide the {height} x {width} pixels of {images.name}: set "
                f"tokens.patch={closest}"
            )
        scaling = "standard" if options.normalize == "auto" else options.normalize
        mean, deviation = _scale(images) if scaling == "standard" else (torch.tensor(0.0), torch.tensor(1.0))
        colours = _palette(images, options.palette, mean, deviation) if options.palette else None
        made = cls(
            maps=images.maps,
            size=(height, width),
            patch=patch,
            vocabulary=0 if colours is None else len(colours),
            scaling=scaling,
        )
        made.mean.copy_(mean)
        made.deviation.copy_(deviation)
        if colours is not None:
            made.palette.copy_(colours)
        return made

    def config(self) -> dict[str, Any]:
        """What `from_config` needs to build it again, JSON-able; scale and palette are in the weights file."""
        names = ("patch", "vocabulary", "scaling")
        about = {"maps": [list(entry) for entry in self.maps], "size": list(self.size)}
        return {**about, **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ImageTokenizer":
        """The tokenizer whose `config()` this is."""
        maps = tuple((name, channels) for name, channels in config["maps"])
        height, width = config["size"]
        return cls(**{**config, "maps": maps, "size": (height, width)})

    def normalize(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Raw values by the mean and deviation of the training images."""
        mean, deviation = (part.to(x.device)[:, None, None] for part in (self.mean, self.deviation))
        return (x - mean) / deviation

    def unnormalize(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Back to raw values."""
        mean, deviation = (part.to(x.device)[:, None, None] for part in (self.mean, self.deviation))
        return x * deviation + mean

    def tokens(
        self, x: Float[Tensor, "B C H W"], observed: Bool[Tensor, "B C H W"] | None, ids: Int[Tensor, "B"]
    ) -> dict[str, TokenSet]:
        """Normalised images, of which values that are not observed are not read (None: all are), as one set "patch";
        `ids` are their names. Raises StructmaeError for images of another size."""
        if tuple(x.shape[1:]) != (self.channels, *self.size):
            needed = f"{self.channels} x {self.size[0]} x {self.size[1]}"
            raise StructmaeError(f"images of {' x '.join(map(str, x.shape[1:]))}: this encoder reads {needed}")
        if observed is not None and bool(observed.all()):
            observed = None
        if observed is not None:
            x = x.where(observed, 0.0)
        rows, columns = self.grid
        places, count = rows * columns, rows * columns * len(self.maps)
        seen: Tensor | None = None
        colour: Tensor | None = None
        if self.vocabulary:
            pixels = x.permute(0, 2, 3, 1).reshape(-1, self.channels)
            values, colour = pixels[:, :0], _nearest(pixels, self.palette.to(x.device))
            valid = None if observed is None else observed.all(1).reshape(-1)
        else:
            values = self._cut(x)
            # Where a map has fewer channels than another, a token has values that are nowhere in the image.
            if observed is not None or len({channels for _, channels in self.maps}) > 1:
                seen = self._cut(torch.ones_like(x, dtype=torch.bool) if observed is None else observed)
            valid = None if seen is None else seen.any(1)
        if valid is not None and bool(valid.all()):
            valid = None
        kind = torch.arange(len(self.maps), device=x.device).repeat_interleave(places)
        part = TokenSet(
            values,
            torch.arange(0, (len(x) + 1) * count, count, device=x.device),
            ids.to(x.device),
            {},
            valid=valid,
            observed=seen,
            grid=self.grid if len(self.maps) == 1 else (len(self.maps), rows, columns),
            position=torch.arange(places, device=x.device).repeat(len(x) * len(self.maps)),
            ids=colour,
            kind=kind.repeat(len(x)) if len(self.maps) > 1 else None,
        )
        return {"patch": part}

    def join(self, values: Float[Tensor, "tokens width"]) -> Float[Tensor, "B C H W"]:
        """Values of all tokens of some images (of pixels: their colours) back to these images, normalised."""
        rows, columns = self.grid
        parts = values.reshape(-1, len(self.maps), rows, columns, self.most, self.patch, self.patch)
        whole = parts.permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, len(self.maps), self.most, *self.size)
        return torch.cat([whole[:, place, :channels] for place, (_, channels) in enumerate(self.maps)], 1)

    def decode(self, ids: Int[Tensor, "tokens"]) -> Float[Tensor, "tokens C"]:
        """The colours of ids, normalised: `join` makes images of them."""
        return self.palette[ids]

    def _cut(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to patches (M, P), each by channel, row and column; 0 where a map has fewer channels."""
        rows, columns = self.grid
        parts = []
        for part in torch.split(x, [channels for _, channels in self.maps], 1):
            filled = nn.functional.pad(part, (0, 0, 0, 0, 0, self.most - part.shape[1]))
            parts.append(filled.reshape(len(x), self.most, rows, self.patch, columns, self.patch))
        return torch.stack(parts, 1).permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, self.most * self.patch * self.patch)


class ImageSource(RowSource):
    """Images in memory or in a mapped file. An epoch goes through the training images; a row of `rows` is one."""

    def __init__(self, images: Images, tokenizer: ImageTokenizer, device: torch.device | None = None):
        self.images, self.tokenizer, self.device = images, tokenizer, device or torch.device("cpu")
        self.rows = images.split["train"]

    def at(self, rows: Int[Tensor, "B"]) -> dict[str, TokenSet]:
        """These of all images; an image's name is its row."""
        return self._tokens(self.images.x[rows], rows)

    def augmented(
        self, items: Int[Tensor, "chosen"], how: str = "shift", amount: int = 1, *, seed: int, visit: int, view: int
    ) -> dict[str, TokenSet]:
        """The images of a batch, each moved by -amount to amount pixels along each axis; what comes in repeats the
        edge. A function of seed, view, visit (the epoch) and the image's row alone. Raises UsageError for another
        `how`."""
        if how != "shift":
            raise UsageError(f"augmentation {how!r} does not exist: there is shift")
        rows = self.rows[items]
        down, across = (torch.from_numpy(part) for part in _offsets(rows.numpy(), amount, seed, visit, view))
        x = self.images.x[rows]
        height, width = x.shape[2:]
        y = (torch.arange(height) - down[:, None]).clamp(0, height - 1)
        z = (torch.arange(width) - across[:, None]).clamp(0, width - 1)
        image, channel = torch.arange(len(x)), torch.arange(x.shape[1])
        moved = x[image[:, None, None, None], channel[:, None, None], y[:, None, :, None], z[:, None, None, :]]
        return self._tokens(moved, rows)

    def sweep(self, at_once: int = 256) -> Iterator[dict[str, TokenSet]]:
        """All images in order."""
        for rows in torch.split(torch.arange(self.images.num_items), at_once):
            yield self.at(rows)

    def _tokens(self, x: Tensor, rows: Tensor) -> dict[str, TokenSet]:
        x = x.to(self.device)
        return self.tokenizer.tokens(self.tokenizer.normalize(x), ~x.isnan(), rows)


def _offsets(rows: NDArray[np.int64], amount: int, seed: int, visit: int, view: int) -> list[NDArray[np.int64]]:
    """How far each image moves down and across."""
    key = stream(view, _SHIFT, Purpose.ORDER)
    words = [np.uint64(part) for part in (visit, seed, key)]
    ranks = [ranks_at(rows, np.full_like(rows, axis), *words) for axis in (0, 1)]
    return [(rank.astype(np.int64) * (2 * amount + 1) >> 32) - amount for rank in ranks]


def _scale(images: Images) -> tuple[Tensor, Tensor]:
    """Mean and deviation (C,) of the observed training values; a channel that is constant has deviation 1."""
    rows = images.split["train"]
    step = max(1, _BLOCK // max(1, images.x[0].numel()))
    count = torch.zeros(images.x.shape[1], dtype=torch.float64)
    total, squares = count.clone(), count.clone()
    for part in torch.split(rows, step):
        x = images.x[part].double()
        count += (~x.isnan()).sum((0, 2, 3))
        total += x.nansum((0, 2, 3))
    mean = total / count.clamp_min(1)
    for part in torch.split(rows, step):
        squares += (images.x[part].double() - mean[:, None, None]).square().nansum((0, 2, 3))
    deviation = (squares / count.clamp_min(1)).sqrt()
    return mean.float(), torch.where(deviation > 1e-12, deviation, 1.0).float()


def _palette(images: Images, colours: int, mean: Tensor, deviation: Tensor) -> Tensor:
    """(k, C) centres of normalised training pixels by k-means, dark ones first; where pixels have no more different
    colours than that, all of them. Raises StructmaeError where no training pixel is observed."""
    rng = np.random.default_rng(0)
    rows, pixels = images.split["train"], images.x[0, 0].numel()
    few = rng.permutation(len(rows))[: -(-PIXELS // pixels)]
    x = images.x[rows[np.sort(few)]].permute(0, 2, 3, 1).reshape(-1, images.x.shape[1])
    x = x[~x.isnan().any(1)]
    if not len(x):
        raise StructmaeError(f"{images.name}: no training pixel is observed, so there is no palette: give other images")
    if len(x) > PIXELS:
        x = x[np.sort(rng.permutation(len(x))[:PIXELS])]
    different, counts = np.unique(((x - mean) / deviation).double().numpy(), axis=0, return_counts=True)
    if len(different) > colours:
        from sklearn.cluster import KMeans, MiniBatchKMeans

        kind = KMeans if len(different) <= 10_000 else MiniBatchKMeans
        different = kind(colours, n_init=3, random_state=0).fit(different, sample_weight=counts).cluster_centers_
    found = torch.from_numpy(different).float()
    bright = (found * deviation + mean).sum(1)
    return found[np.lexsort((*found.T.numpy(), bright.numpy()))]


def _nearest(pixels: Float[Tensor, "pixels C"], palette: Float[Tensor, "colours C"]) -> Int[Tensor, "pixels"]:
    """The nearest colour of each pixel, the first of several."""
    step = max(1, _BLOCK // len(palette))
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(part, palette, compute_mode=exact).argmin(1) for part in torch.split(pixels, step)])
