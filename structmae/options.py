"""Every option of the toolkit, once: its default, its reason, its range, and the modality that it is for."""

from dataclasses import dataclass, field
from typing import Any

from structmae.masking.curriculum import SHAPES
from structmae.masking.strategies import SOURCES, STARTS, STRATEGIES


def option(
    default: Any,
    why: str,
    *,
    choices: tuple[str, ...] | str | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    of: str | tuple[str, ...] = (),
) -> Any:
    """A field with its reason and its range: `low <= value <= high`, `above < value < below`, one of `choices` (a
    tuple, or the kind of registered part that the value names). Recipes of other modalities than `of` don't have it."""
    rule = {"why": why, "choices": choices, "low": low, "high": high, "above": above, "below": below}
    rules = {key: value for key, value in rule.items() if value is not None}
    return field(default=default, metadata={**rules, "of": (of,) if isinstance(of, str) else of})


# Modalities whose tokens are a sequence, or lie on a grid.
SEQUENCES, GRIDS = ("series", "image", "text"), ("series", "image")
TUNED = ("graph", "series")  # modalities that have tasks to fine-tune on


@dataclass(frozen=True)
class DataOptions:
    """How structure is read."""

    undirected: bool = option(True, "every edge also goes back: message passing reaches both ends", of="graph")
    categorical: str = option(
        "auto", "which integer columns of a node table are categories: auto, none or names a,b,c", of="graph"
    )
    edges: str = option(
        "all",
        "of a single graph: all, or train, which holds out 5% and 10% for validation and test of link prediction",
        choices=("all", "train"),
        of="graph",
    )
    time: str = option("auto", "the column of stamps; auto finds it", of="series")
    id: str = option("auto", "of a long table: the column that names a row's series (unique_id)", of="series")
    value: str = option("auto", "of a long table: the column of values (y)", of="series")
    channels: str = option("all", "which series are read: all, or names a,b,c", of="series")
    split: str = option("auto", "train/validation/test in time order: shares 0.7/0.1/0.2, or rows", of="series")


@dataclass(frozen=True)
class TokenOptions:
    """How data becomes tokens."""

    normalize: str = option(
        "auto",
        "by the training data: row (sum 1), standard (z-score of each column), none; auto takes standard for series "
        "and dense features, row for sparse non-negative features",
        choices=("auto", "row", "standard", "none"),
    )
    window_norm: bool = option(
        True, "each series of a window is normalised by its own visible values, and only those", of="series"
    )
    context: int = option(
        512,
        "rows (of text: pieces) of a window; it shrinks where the data has fewer",
        low=4,
        of=("series", "text"),
    )
    segment: int = option(12, "rows of a token (of a spectrogram: frames of one)", low=1, of="series")
    spectrum: int = option(
        0,
        "rows of a spectrogram's frame; they do not overlap, so nothing leaks. 0: raw values",
        low=0,
        of="series",
    )
    bands: int = option(1, "of a spectrogram: frequencies of a token", low=1, of="series")
    patch: int = option(4, "pixels a side of a token", low=1, of="image")
    palette: int = option(
        0, "tokens are pixels, as ids of a palette of so many colours, k-means of the training images; 0: patches",
        low=0, high=4096, of="image",
    )  # fmt: skip
    vocabulary: int = option(2000, "pieces of the byte-pair encoding, at most", low=257, of="text")
    hops: int = option(
        0,
        "of a single graph: items are the neighbourhoods of so many steps around each node; 0: the whole graph",
        low=0,
        high=8,
        of="graph",
    )
    neighbours: int = option(64, "of tokens.hops: nodes of a neighbourhood, at most", low=2, of="graph")


@dataclass(frozen=True)
class MaskOptions:
    """What is hidden, and what the encoder gets in its place (the masking layer's own words)."""

    strategy: str = option(
        "uniform",
        "which tokens: any, by weights, blocks, rectangles, spans, random walks, or a random share of each type",
        choices=STRATEGIES,
    )
    of: str = option(
        "token", "what is hidden: nodes' features (token), or edges, which the encoder then lacks",
        choices=("token", "edge"), of="graph",
    )  # fmt: skip
    ratio: float = option(0.5, "share of the tokens of each item; the count is exact", above=0, high=1)
    exact: str = option(
        "item", "what the count is exact in: an item, or each type of its tokens", choices=("item", "kind"), of="image"
    )
    edge_ratio: float = option(
        0.0, "share of the edges that are hidden beside nodes, both ways together", low=0, high=1, of="graph"
    )
    edge_act: str = option(
        "token",
        "of mask.edge_ratio: the edges' attributes are hidden, or the edges themselves, which the encoder then lacks",
        choices=("token", "drop"),
        of="graph",
    )
    edge_strategy: str = option(
        "uniform",
        "of mask.edge_ratio: which edges: any, balls, or those of random walks",
        choices=("uniform", "block", "walk"),
        of="graph",
    )
    group: str = option(
        "token",
        "what is hidden together: a token; a row or a column of the grid (one frequency, one time); 2 x 2 cells",
        choices=("token", "row", "column", "cell"),
        of=GRIDS,
    )
    act: str = option(
        "token",
        "what stands in a hidden place: a learned token, zeros, or nothing (the encoder reads visible tokens only)",
        choices=("token", "zero", "drop"),
    )
    random: float = option(0.0, "share of the hidden that get another token's content instead", low=0, high=1)
    keep: float = option(0.0, "share of the scored that stay as they are", low=0, high=1)
    random_from: str = option(
        "visible", "whose content: of visible tokens, of any, or (ids) any of the vocabulary", choices=SOURCES
    )
    scope: str = option(
        "item",
        "one draw for each item, or one shared by a set of them (a window), or by the batch",
        choices=("item", "set", "batch"),
    )
    weights: str = option("degree", "of strategy weighted: the scores", choices=("degree", "pagerank", "variance"))
    power: float = option(1.0, "of strategy weighted: of the scores; below 0 prefers the low ones", low=-16, high=16)
    length: int = option(3, "of strategies span and walk: mean length of a span, steps of a walk", low=1, high=65536)
    blocks: int = option(1, "of strategy block: connected balls an item", low=1)
    area: int = option(16, "of strategy rectangle: tokens of each, at least", low=1, of=GRIDS)
    aspect: float = option(0.3, "of strategy rectangle: the lowest ratio of its sides", above=0, high=1, of=GRIDS)
    concentration: float = option(
        1.0, "of strategy dirichlet: high shares alike, low all to one type", above=0, high=1e6, of="image"
    )
    start: str = option("node", "of strategy walk: begin at a node, or with an edge", choices=STARTS)
    curriculum: str = option(
        "none", "how ratio and power get from first to last over epochs", choices=("none", *SHAPES)
    )
    ratio_first: float = option(0.5, "of a curriculum: the ratio it begins with", above=0, high=1)
    power_first: float = option(1.0, "of a curriculum: the power it begins with", low=-16, high=16)

    @property
    def takes_edges(self) -> bool:
        """Whether whole edges are hidden, which the encoder then lacks."""
        return self.of == "edge" or (self.edge_ratio > 0 and self.edge_act == "drop")


@dataclass(frozen=True)
class EncoderOptions:
    """The part that is kept."""

    kind: str = option(
        "gnn", "message passing, or a transformer over nodes", choices=("gnn", "graph_transformer"), of="graph"
    )
    layer: str = option("gat", "of a gnn: the message-passing layer", choices="layer", of="graph")
    layers: int = option(2, "how many", low=1)
    hidden: int = option(512, "width of the embedding", low=1)
    heads: int = option(4, "attention heads; they share `hidden`", low=1)
    feed_forward: int = option(256, "of a transformer: width inside a layer's perceptron", low=1)
    attention: str = option(
        "full",
        "of a transformer, which tokens of an item a token sees: all, itself and those before, those within `window` "
        "places on every axis, or (nodes) its neighbours",
        choices=("full", "causal", "window", "adjacency"),
    )
    window: int = option(8, "of attention window: how far a token sees", low=1)
    shift: bool = option(False, "each place reads the token before it: a causal model predicts the next", of=SEQUENCES)
    prenorm: bool = option(False, "of a transformer: branches read normalised inputs (GPT-2, ViT), not outputs (BERT)")
    positions: str = option(
        "learned",
        "of a transformer's places: learned from sines on, or fixed sines and cosines of each axis",
        choices=("learned", "sines"),
        of=SEQUENCES,
    )
    walks: int = option(
        8, "of a graph transformer: steps of random walks whose return rates say where a node is", low=0, of="graph"
    )
    laplacian: int = option(
        0, "of a graph transformer: eigenvectors of the Laplacian, read up to their sign", low=0, of="graph"
    )
    degrees: bool = option(True, "of a graph transformer: a vector for each degree", of="graph")
    channels: str = option(
        "independent",
        "each series on its own with shared weights, or the channels of a step read together",
        choices=("independent", "mixed"),
        of="series",
    )
    dropout: float = option(0.2, "of each layer's input (of a transformer: of each branch)", low=0, below=1)
    attention_dropout: float = option(0.1, "of attention weights", low=0, below=1)
    activation: str = option("prelu", "after each layer", choices=("prelu", "relu", "elu", "gelu"))
    norm: str = option(
        "none",
        "of a gnn before the activation; of a transformer in each branch (none: layernorm)",
        choices=("none", "batchnorm", "layernorm"),
    )
    residual: bool = option(False, "add each layer's input to its output", of="graph")
    edge_features: bool = option(False, "layers read edge attributes (gat, gin)", of="graph")
    smooth: int = option(
        0, "of a single graph: how often vectors are averaged over neighbours before they are read", low=0, of="graph"
    )
    pool: str = option("none", "of an item's tokens to one vector", choices=("none", "sum", "mean", "max"))
    unit: bool = option(False, "vectors have length 1", of="graph")


@dataclass(frozen=True)
class HeadOptions:
    """One thing that is rebuilt: a decoder, a target, a loss."""

    of: str = option(
        "node",
        "what is rebuilt: nodes, the edges of mask.edge_ratio, segments of series, patches of images, pieces of text, "
        "or whether pairs of nodes are edges (the hidden ones, and as many that are none)",
        choices=("node", "edge", "pair", "segment", "patch", "piece"),
    )
    at: str = option("scored", "which tokens: those that the plan scores, or all", choices=("scored", "all"))
    kind: str = option("all", "of several types of tokens: the one that is rebuilt, by name", of="image")
    target: str = option(
        "values",
        "what of them: values, ids, the id of the nearest of `codes` centres (k-means of training values), latents of "
        "a view, or a node's degree",
        choices=("values", "ids", "code", "latent", "degree"),
    )
    view: str = option("teacher", "of target latent: the view")
    codes: int = option(512, "of target code: how many centres", low=2)
    normalize: bool = option(False, "of target values: each token's by their own mean and deviation (MAE)", of=GRIDS)
    layer: str = option("gat", "the decoder's layer; mlp reads each node alone", choices="layer", of="graph")
    layers: int = option(1, "how many; 0 (not of graphs) is one linear map", low=0)
    hidden: int = option(0, "width of the decoder; 0: as the encoder", low=0)
    heads: int = option(0, "of layers, attention heads; 0: as the encoder", low=0, of=SEQUENCES)
    decoder: str = option(
        "self",
        "of layers: latents and mask tokens read each other, or queries of one type first read all latents (MultiMAE)",
        choices=("self", "cross"),
        of="image",
    )
    attention: str = option(
        "full", "of layers: which tokens see which, as encoder.attention", choices=("full", "window"), of=SEQUENCES
    )
    tied: bool = option(
        False, "of target ids: a dense layer, then the product with the embedding (BERT)", of=("image", "text")
    )
    remask: str = option(
        "hidden",
        "tokens zeroed before the decoder: hidden (GraphMAE section 3.2), random (GraphMAE2 section 3.2) or none",
        choices=("hidden", "random", "none"),
    )
    remask_ratio: float = option(0.5, "of remask random: share of the tokens of each item", above=0, high=1)
    remask_draws: int = option(1, "of remask random: draws a step; the loss is their mean", low=1, high=1024)
    loss: str = option("sce", "objective", choices="loss")
    gamma: float = option(2.0, "exponent of the scaled cosine error; other losses do not read it", low=1)
    weight: float = option(1.0, "in the sum of losses", above=0)


@dataclass(frozen=True)
class ViewOptions:
    """Another look at the same items, for heads and terms that compare: made only where one of them reads it."""

    encoder: str = option(
        "online", "the one that learns, or its exponential moving average, without gradient", choices=("online", "ema")
    )
    plan: str = option("redraw", "hidden anew, or nothing hidden", choices=("redraw", "whole"))
    augment: str = option(
        "none", "pixels moved at random, each image its own way", choices=("none", "shift"), of="image"
    )
    amount: int = option(1, "of augment shift: pixels along each axis, at most", low=1, of="image")
    momentum: float = option(0.996, "of encoder ema: what a step leaves of it", low=0, below=1)


@dataclass(frozen=True)
class InfonceOptions:
    """InfoNCE (van den Oord et al., 2018): an item's two views are alike, those of different items are not."""

    weight: float = option(0.0, "in the sum of losses; 0: left out", low=0)
    view: str = option("second", "the view that the encoder's own is compared with")
    temperature: float = option(0.1, "of the similarities", above=0)
    hidden: int = option(128, "width of the projection", low=2)
    layers: int = option(0, "of a decoder over all places that the encoder's own view goes through first", low=0)


@dataclass(frozen=True)
class UniformityOptions:
    """Uniformity on the sphere (Wang and Isola, ICML 2020, section 4): items' vectors keep apart."""

    weight: float = option(0.0, "in the sum of losses; 0: left out", low=0)
    scale: float = option(2.0, "of the squared distances", above=0)


@dataclass(frozen=True)
class ClusteringOptions:
    """Clustering (Xie et al., DEC, ICML 2016): items' vectors, nothing hidden, are drawn to centres near by."""

    weight: float = option(0.0, "in the sum of losses; 0: left out", low=0)
    clusters: int = option(10, "how many", low=2)
    start: float = option(0.5, "share of the epochs before it begins, with centres by k-means", low=0, below=1)


@dataclass(frozen=True)
class TermOptions:
    """Losses beside those of the heads, for any recipe. They compare items' vectors (of a single graph, its nodes')."""

    infonce: InfonceOptions = InfonceOptions()
    uniformity: UniformityOptions = UniformityOptions()
    clustering: ClusteringOptions = ClusteringOptions()


@dataclass(frozen=True)
class TrainOptions:
    """The one loop."""

    epochs: int = option(200, "passes over the items", low=1)
    batch_size: int = option(32, "items a step; a single graph is one item, and so is a window", low=1)
    items: int = option(0, "items of an epoch, others in the next; 0: all", low=0)
    lr: float = option(1e-3, "of Adam", above=0)
    weight_decay: float = option(0.0, "L2, as Adam has it", low=0)
    schedule: str = option("cosine", "of the learning rate over epochs, to zero", choices=("cosine", "constant"))
    warmup: int = option(0, "epochs over which the learning rate rises to its full value", low=0)
    clip: float = option(0.0, "largest norm of the gradient; 0: any", low=0)
    seed: int = option(0, "of weights, dropout, order and plans", low=0, high=2**32 - 1)
    precision: str = option(
        "medium",
        "products in float32, by oneDNN where that is as exact and gains (medium), or steps in bfloat16",
        choices=("fp32", "medium", "bf16"),
    )
    save_every: int = option(10, "epochs between resume states", low=1)


@dataclass(frozen=True)
class ProbeOptions:
    """The linear head on frozen features; every arm of a comparison goes through the same one."""

    lr: float = option(0.01, "of Adam", above=0, of=("graph", "image"))
    weight_decay: float = option(1e-4, "L2", low=0, of=("graph", "image"))
    epochs: int = option(300, "full-batch; the epoch that counts is chosen on validation", low=1, of=("graph", "image"))
    search: bool = option(
        False,
        "choose lr and weight decay on validation from one grid instead (the harness does)",
        of=("graph", "image"),
    )
    labels: int = option(10, "labels a class that the probe is fitted on", low=1, of="image")
    subsets: int = option(5, "draws of those labels; the score is their mean", low=1, of="image")
    skip: bool = option(
        True, "a forecasting head is NLinear first, and a ridge of the latents on what it leaves", of="series"
    )


@dataclass(frozen=True)
class FinetuneOptions:
    """Training on a task with labels: the head alone first, then head and encoder. The epoch that counts is chosen on
    validation."""

    head_epochs: int = option(10, "epochs of the head alone, the encoder frozen", low=0, of=TUNED)
    epochs: int = option(20, "epochs of both, after those", low=0, of=TUNED)
    batch_size: int = option(64, "items a step", low=1, of=TUNED)
    items: int = option(0, "items of an epoch, others in the next; 0: all", low=0, of=TUNED)
    lr: float = option(1e-3, "of Adam, of the head", above=0, of=TUNED)
    encoder_lr: float = option(1e-4, "of Adam, of the encoder", above=0, of=TUNED)
    weight_decay: float = option(1e-4, "L2, as Adam has it", low=0, of=TUNED)
    dropout: float = option(0.2, "of what the head reads", low=0, below=1, of=TUNED)
    mask_ratio: float = option(
        0.0, "share of the tokens hidden while fine-tuning (Audio-MAE); 0: none", low=0, below=1, of=TUNED
    )
    horizon: int = option(96, "rows to forecast", low=1, of="series")
    skip: bool = option(True, "a forecasting head is NLinear first, as in probe.skip", of="series")
