"""What the library is compared with: GraphMAE as its paper's code does it, and PatchTST of transformers.

Plain GraphMAE is written from the paper (Hou et al., KDD 2022, section 3): dense features, PyTorch Geometric's layers,
the encoder and the decoder at all nodes, the loss at the hidden ones. Its settings are those of our recipe, so that
both sides always agree.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import count, pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GATConv, GCNConv, GINConv

from structmae.errors import StructmaeError
from structmae.recipe import HeadOptions, Recipe

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda width: nn.Identity(), "batchnorm": nn.BatchNorm1d, "layernorm": nn.LayerNorm,
}  # fmt: skip
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"prelu": nn.PReLU, "relu": nn.ReLU, "elu": nn.ELU, "gelu": nn.GELU}


class Draw(NamedTuple):
    """Which nodes are hidden, which of them by the token, and which by the features of `source`."""

    hidden: Tensor
    token: Tensor
    swapped: Tensor
    source: Tensor


def draw(nodes: int, ratio: float, random: float) -> Draw:
    """Of a batch as one, whichever graphs the nodes belong to."""
    hidden = torch.randperm(nodes)[: int(ratio * nodes)]
    swaps = int(random * len(hidden))
    order = hidden[torch.randperm(len(hidden))]
    return Draw(hidden, order[swaps:], order[:swaps], torch.randperm(nodes)[:swaps])


class Layers(nn.Module):
    """Dropout, layer, norm, activation; of a decoder the last layer is the output."""

    def __init__(self, recipe: Recipe, layer: str, widths: list[int], heads: int, open_end: bool):
        super().__init__()
        options, pairs = recipe.encoder, list(pairwise(widths))
        self.dropout = options.dropout
        self.layers = nn.ModuleList(_layer(layer, a, b, heads, recipe) for a, b in pairs)
        ends = [nn.Sequential(NORMS[options.norm](b), ACTIVATIONS[options.activation]()) for _, b in pairs]
        self.ends = nn.ModuleList([*ends[:-1], nn.Identity()] if open_end else ends)

    def forward(self, h: Tensor, edge_index: Tensor) -> Tensor:
        for layer, end in zip(self.layers, self.ends, strict=True):
            h = end(layer(F.dropout(h, self.dropout, self.training), edge_index))
        return h


def _layer(kind: str, a: int, b: int, heads: int, recipe: Recipe) -> nn.Module:
    """With the self-loops that the edges have."""
    options = recipe.encoder
    if kind == "gat":
        made = GATConv(a, b // heads, heads, dropout=options.attention_dropout, add_self_loops=False)
        for weight in (made.lin.weight, made.att_src, made.att_dst):
            nn.init.xavier_normal_(weight, nn.init.calculate_gain("relu"))
        return made
    if kind == "gcn":
        return GCNConv(a, b, add_self_loops=False)
    hidden = options.hidden
    norm, activation = NORMS[options.norm](hidden), ACTIVATIONS[options.activation]()
    return GINConv(nn.Sequential(nn.Linear(a, hidden), norm, activation, nn.Linear(hidden, b)))


class PlainGraphMAE(nn.Module):
    """`model(x, edge_index, draw)` is the loss; x (N, width), edge_index (2, E) with both directions and self-loops."""

    def __init__(self, recipe: Recipe, width: int):
        super().__init__()
        encoder, self.head = recipe.encoder, features(recipe)
        self.encoder = Layers(recipe, encoder.layer, [width, *[encoder.hidden] * encoder.layers], encoder.heads, False)
        self.token = nn.Parameter(torch.zeros(1, width))
        self.bridge = nn.Linear(encoder.hidden, encoder.hidden, bias=False)
        inner = [encoder.hidden] * self.head.layers
        self.decoder = Layers(recipe, self.head.layer, [*inner, width], 1, True)

    def forward(self, x: Tensor, edge_index: Tensor, drawn: Draw) -> Tensor:
        seen = x.clone()
        seen[drawn.token] = 0.0
        seen[drawn.token] += self.token
        seen[drawn.swapped] = x[drawn.source]
        z = self.bridge(self.encoder(seen, edge_index))
        z[drawn.hidden] = 0.0
        rebuilt = self.decoder(z, edge_index)
        a, b = F.normalize(rebuilt[drawn.hidden], dim=-1), F.normalize(x[drawn.hidden], dim=-1)
        return (1 - (a * b).sum(-1)).pow(self.head.gamma).mean()


def features(recipe: Recipe) -> HeadOptions:
    """The head that plain has too. Raises StructmaeError for a recipe that is another system."""
    head = recipe.heads["features"]
    hides = recipe.mask.of == "token" and recipe.mask.act == "token" and not recipe.mask.keep
    known = recipe.encoder.kind == "gnn" and head.loss == "sce" and head.remask == "hidden" and not head.hidden
    if not (hides and known) or recipe.encoder.residual or recipe.reads_edges or recipe.reads():
        raise StructmaeError(f"{recipe.name}: its settings are not those of a GraphMAE as published")
    return head


def train(
    recipe: Recipe,
    source: Any,
    *,
    after_step: Callable[[], None] | None = None,
    after_epoch: Callable[[], None] | None = None,
    cast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> PlainGraphMAE:
    """For `train.epochs`, on what our `source` reads: features as normalised there, both directions, self-loops.
    `cast` is what each forward pass is in."""
    node = source.all["node"]
    edge_index, options = node.relations["edges"].edge_index, recipe.train
    model = PlainGraphMAE(recipe, node.values.shape[1]).train()
    batches: Iterable[Any] = [Data(x=node.values, edge_index=edge_index)]
    if source.num_items > 1:
        graphs = list(_graphs(node.values, edge_index, node.ptr.tolist()))
        batches = DataLoader(graphs, batch_size=options.batch_size, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    falling = options.schedule == "cosine"
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / options.epochs)) if falling else 1.0
    )
    for _ in range(options.epochs):
        for batch in batches:
            drawn = draw(len(batch.x), recipe.mask.ratio, recipe.mask.random)
            with cast():
                loss = model(batch.x, batch.edge_index, drawn)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # for the log
            if after_step is not None:
                after_step()
        schedule.step()
        if after_epoch is not None:
            after_epoch()
    return model


def _graphs(x: Tensor, edge_index: Tensor, ptr: list[int]) -> Iterator[Data]:
    """A graph each, as PyTorch Geometric's data sets have them."""
    for first, stop in pairwise(ptr):
        inside = (edge_index[1] >= first) & (edge_index[1] < stop)
        yield Data(x=x[first:stop], edge_index=edge_index[:, inside] - first)


def patchtst(recipe: Recipe, source: Any, after_step: Callable[[], None]) -> None:
    """PatchTST as transformers has it, in the shape of our recipe. Raises StructmaeError without transformers."""
    try:
        from transformers import PatchTSTConfig, PatchTSTForPretraining
    except ImportError:
        raise StructmaeError("needs transformers: pip install structmae[bench]") from None
    encoder, options, length = recipe.encoder, recipe.train, source.context
    settings = PatchTSTConfig(
        num_input_channels=len(source.tokenizer.channels), context_length=length, patch_length=source.segment,
        patch_stride=source.segment, num_hidden_layers=encoder.layers, d_model=encoder.hidden,
        num_attention_heads=encoder.heads, ffn_dim=encoder.feed_forward, norm_type=encoder.norm,
        activation_function=encoder.activation, pre_norm=encoder.prenorm, attention_dropout=encoder.attention_dropout,
        positional_dropout=encoder.dropout, path_dropout=encoder.dropout, ff_dropout=encoder.dropout,
        head_dropout=0.0, positional_encoding_type="random", share_embedding=True, scaling="std", mask_type="random",
        random_mask_ratio=recipe.mask.ratio, channel_consistent_masking=False, use_cls_token=False,
    )  # fmt: skip
    model = PatchTSTForPretraining(settings).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    values = (torch.from_numpy(source.series.values) - source.mean) / source.deviation
    rows = torch.arange(length)
    for _ in count():
        for starts in torch.split(source.rows[torch.randperm(len(source.rows))], options.batch_size):
            loss = model(past_values=values[starts[:, None] + rows]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            after_step()
