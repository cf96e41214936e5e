"""Graphs as the model sees them: features of some nodes as heat maps, or edges between some nodes as matrices."""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from structmae.errors import UsageError
from structmae.evaluate.frozen import frozen
from structmae.masking import VALIDATION
from structmae.planning import Planner
from structmae.report.base import (
    COVERED,
    HIDDEN,
    PANELS,
    TRUE,
    Axes,
    Look,
    Scene,
    array,
    caveat,
    look,
    teller_of_all,
    values,
)

if TYPE_CHECKING:
    from structmae.run import Run

ROWS, BESIDE, COLUMNS = 24, 8, 64  # hidden nodes, visible ones below them, features
NODES = 40  # of a matrix
ITEMS = 64  # graphs that are looked at, at most


def scene(run: "Run", graphs: Any, source: Any, start: int | None, channel: int | str) -> Scene:
    """Nodes from `start` on; of many graphs, of those from number `start` on; without it test nodes, or graphs."""
    pair = next((head for head in run.model.heads.values() if head.options.of == "pair"), None)
    return _edges(run, graphs, source, start, pair) if pair is not None else _features(run, graphs, source, start)


def _features(run: "Run", graphs: Any, source: Any, start: int | None) -> Scene:
    """Heat maps of hidden nodes, and of some visible ones below them."""
    order = _order(graphs, start)
    whole = source.num_items == 1
    tokens = source.batch(torch.zeros(1, dtype=torch.long) if whole else order[:ITEMS])
    seen = look(run, tokens, "node", source.device)
    head = teller_of_all(run, seen.said)
    hidden = torch.zeros(len(seen.part), dtype=torch.bool, device=source.device).index_fill(0, seen.asked, True)
    places = order.to(source.device) if whole else torch.arange(len(seen.part), device=source.device)
    asked, others = places[hidden[places]][:ROWS], places[~hidden[places]][:BESIDE]
    rows = torch.cat([asked, others])
    content, _, covered = seen.content()
    true = seen.part.values[rows]
    said = values(head, seen.said[head.name][rows], true)
    columns = true.var(0, correction=0).argsort(descending=True, stable=True)[:COLUMNS].sort().values
    told = hidden[rows][:, None]
    shown = [true, content[rows].masked_fill(covered[rows][:, None], float("nan")), said.where(told, true)]
    pictures = [array(part[:, columns]) for part in shown]
    share = f"{len(seen.plan.hidden) / len(seen.part):.0%} of the nodes hidden"
    title = f"{graphs.name}: {share}, {_error(head, seen)}"
    some = (
        f"feature, the {len(columns)} of {true.shape[1]} that vary most" if len(columns) < true.shape[1] else "feature"
    )

    def draw(axes: Axes) -> None:
        low = np.quantile(pictures[0], 0.02)
        more = pictures[0][pictures[0] > low]
        high = np.quantile(more, 0.9) if len(more) else low + 1.0  # most features of a node may be 0
        for ax, picture, label in zip(axes, pictures, PANELS, strict=True):
            ax.set_facecolor(COVERED)
            image = ax.imshow(picture, aspect="auto", interpolation="nearest", vmin=low, vmax=high)
            _panel(ax, label)
            if len(asked) < len(rows):
                ax.axhline(len(asked) - 0.5, color="white", linewidth=2.5)
        axes[1].set_xlabel(some, fontsize=9)
        ticks = [(len(asked) - 1) / 2, len(asked) + (len(others) - 1) / 2][: 1 + (len(others) > 0)]
        names = [f"{len(asked)} hidden nodes", f"{len(others)} visible"]
        axes[0].set_yticks(ticks, names[: len(ticks)], rotation=90, va="center", fontsize=9)
        bar = axes[0].figure.colorbar(image, ax=axes.tolist(), shrink=0.8, aspect=30, extend="both")
        bar.ax.tick_params(labelsize=8)
        _title(axes[0], title + caveat(head, "node"))

    return Scene(1, 3, (11.0, 4.6), "graphs have three heat maps", draw)


def _error(head: Any, seen: Look) -> str:
    """How far the features of all hidden nodes are from the truth, as the loss has it."""
    true = seen.part.values[seen.asked]
    said = values(head, seen.said[head.name][seen.asked], true)
    if head.options.loss == "sce":
        return f"mean cosine of the hidden to the truth {float(torch.cosine_similarity(said, true).mean()):.3f}"
    return f"mse of the hidden {float((said - true).square().mean()):.3g} (scaled)"


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Edges between some nodes, by their places in a picture: all (2, E), which of them are hidden, pairs that are no
    edges (2, n), and the probability that the decoder gives to the hidden and then to these."""

    nodes: int
    ends: NDArray[np.int64]
    hidden: NDArray[np.bool_]
    none: NDArray[np.int64]
    probability: NDArray[np.float32]


def _edges(run: "Run", graphs: Any, source: Any, start: int | None, head: Any) -> Scene:
    """Adjacency matrices of nodes near each other."""
    order = _order(graphs, start)
    whole = source.num_items == 1
    tokens = source.batch(torch.zeros(1, dtype=torch.long) if whole else order[:ITEMS])
    plans = Planner.of(run.recipe).draw(tokens, visit=VALIDATION, step=0)
    node, edge = tokens["node"], tokens["edge"]
    begin = order if whole else torch.arange(len(node))
    members = _near(array(node.relations["edges"].indptr), array(node.relations["edges"].source), array(begin))
    shown = _among(members, array(edge.ends), array(plans["edge"].hidden), array(node.batch), len(node))
    ends, hidden, none = shown
    asked = torch.from_numpy(members[np.concatenate([ends[:, hidden], none], 1)]).to(source.device)
    with frozen(run.model):
        encoded = run.model.encode(tokens, plans)
        said = head.decoder(encoded, asked, None).sigmoid()[:, 0]
    pairs = _Pairs(len(members), ends, hidden, none, array(said))
    count, said_of = int(hidden.sum()), pairs.probability
    means = [f"{part.mean():.2f}" if len(part) else "-" for part in (said_of[:count], said_of[count:])]
    title = (
        f"{graphs.name}: {len(plans['edge'].hidden) / max(len(edge), 1):.0%} of the edges hidden; mean probability of "
        f"the {count} hidden ones shown {means[0]}, of {none.shape[1]} pairs that are no edges {means[1]}"
    )

    def draw(axes: Axes) -> None:
        _draw_pairs(axes, pairs)
        _title(axes[0], title)

    return Scene(1, 3, (11.0, 4.4), "edges have three matrices", draw)


def _draw_pairs(axes: Axes, pairs: _Pairs) -> None:
    count = int(pairs.hidden.sum())
    seen, gone = pairs.ends[:, ~pairs.hidden], pairs.ends[:, pairs.hidden]
    size = (190.0 / max(pairs.nodes, 8)) ** 2 * 0.9
    for ax, label in zip(axes, ("input", "what the encoder sees", "rebuilt"), strict=True):
        ax.set_xlim(-0.5, pairs.nodes - 0.5)
        ax.set_ylim(pairs.nodes - 0.5, -0.5)
        ax.set_aspect("equal")
        _panel(ax, label)
        ax.scatter(*_both(seen), s=size, marker="s", color=TRUE if label != "rebuilt" else COVERED, linewidths=0)
    axes[0].scatter(*_both(gone), s=size, marker="s", color=TRUE, linewidths=0)
    look = {"s": size, "cmap": "viridis", "vmin": 0.0, "vmax": 1.0, "linewidths": 0}
    split = pairs.probability[:count], pairs.probability[count:]
    axes[2].scatter(*_both(pairs.none), c=np.tile(split[1], 2), marker="X", **look, label="no edge")
    image = axes[2].scatter(*_both(gone), c=np.tile(split[0], 2), marker="s", **look, label="hidden edge")
    axes[1].set_xlabel(f"{pairs.nodes} nodes near each other", fontsize=9)
    bar = axes[0].figure.colorbar(image, ax=axes.tolist(), shrink=0.8, aspect=30)
    bar.ax.tick_params(labelsize=8)
    bar.set_label("probability of an edge", fontsize=9)
    entries = [
        axes[2].scatter([], [], s=28, marker=mark, color=colour, label=name)
        for name, mark, colour in (
            ("hidden edge", "s", HIDDEN),
            ("no edge", "X", HIDDEN),
            ("visible edge", "s", COVERED),
        )
    ]
    axes[2].legend(
        handles=entries,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        ncols=3,
        frameon=False,
        fontsize=8,
        handletextpad=0.1,
        columnspacing=0.8,
    )


def _both(ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Both ways."""
    return np.concatenate([ends, ends[::-1]], 1)


def _near(indptr: NDArray[np.int64], source: NDArray[np.int64], begin: NDArray[np.int64]) -> NDArray[np.int64]:
    """`NODES` nodes, the neighbours of the first of `begin` step by step, then those of the next."""
    found: dict[int, None] = {}
    for first in begin.tolist():
        queue = deque([first])
        while queue and len(found) < NODES:
            node = queue.popleft()
            if node not in found:
                found[node] = None
                queue.extend(source[indptr[node] : indptr[node + 1]].tolist())
        if len(found) >= NODES:
            break
    return np.array(list(found), np.int64)


def _among(
    members: NDArray[np.int64],
    ends: NDArray[np.int64],
    gone: NDArray[np.int64],
    item: NDArray[np.int64],
    nodes: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """Of the edges with `ends`, of which `gone` are hidden, those between members, which of them are hidden, and as
    many pairs of members of one graph that are no edges: all by place among the members."""
    place = np.full(nodes, -1, np.int64)
    place[members] = np.arange(len(members))
    inside = (place[ends] >= 0).all(0)
    hidden = np.zeros(ends.shape[1], np.bool_)
    hidden[gone] = True
    mine = place[ends[:, inside]]
    free = np.triu(item[members][:, None] == item[members][None], 1)
    free[mine[0], mine[1]] = free[mine[1], mine[0]] = False
    none = np.argwhere(free).T
    some = np.random.default_rng(0).permutation(none.shape[1])[: int(hidden[inside].sum())]
    return mine, hidden[inside], none[:, np.sort(some)]


def _order(graphs: Any, start: int | None) -> Tensor:
    """Which nodes of a single graph (with neighbourhoods: whose), or which graphs, come first."""
    count = graphs.num_items if graphs.level == "graph" else graphs.num_nodes
    if start is not None:
        if not 0 <= start < count:
            what = "graphs" if graphs.level == "graph" else "nodes"
            raise UsageError(f"start={start}: {graphs.name} has {what} 0 to {count - 1}")
        return torch.arange(count).roll(-start)
    test = (graphs.split or {}).get("test", torch.arange(0))
    others = torch.ones(count, dtype=torch.bool).index_fill(0, test, False)
    return torch.cat([test, others.nonzero()[:, 0]])


def _panel(ax: Any, label: str) -> None:
    ax.set_title(label, fontsize=9, color="#666666", pad=3)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.tick_params(length=0)


def _title(ax: Any, text: str) -> None:
    """Above the names of the panels. It is wider than a panel, which the layout should not heed."""
    ax.set_title("\n" * (text.count("\n") + 1) + ax.get_title(), fontsize=9, linespacing=1.45, color="#666666", pad=3)
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom"}
    ax.annotate(text, (0, 1), (0, 15), fontsize=10, parse_math=False, **place).set_in_layout(False)
