"""What masked autoencoders are compared with on graphs: PyTorch Geometric's models, and methods without weights.

Each takes a Task, a seed and its own options by name, and gives either vectors, which the table's own probe then reads
as it reads those of an encoder, or what it says of each node. Choices are made on the validation nodes; no method here
sees a test label. Settings of trained ones are their papers'. Of few labels there are no validation nodes: see `make`.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GAT, GCN, DeepGraphInfomax, GCNConv, WLConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.nn.models import LabelPropagation
from torch_geometric.utils import remove_self_loops

from structmae.data import Graphs
from structmae.errors import StructmaeError
from structmae.evaluate import few, graph_classification, node_classification
from structmae.evaluate.arms import propagate
from structmae.evaluate.folds import packed
from structmae.evaluate.probe import accuracy, fit_probe
from structmae.recipe import ProbeOptions, Recipe
from structmae.tokens.graph import GraphSource

ARM = "pretrained"  # of what is scored


@dataclass(frozen=True)
class Task:
    """A graph with labels, and as tokens."""

    graphs: Graphs
    source: GraphSource
    probe: ProbeOptions

    @property
    def x(self) -> Tensor:
        """(N, F) features, as the recipes of the table normalise them."""
        return self.source.all["node"].values

    @property
    def edge_index(self) -> Tensor:
        """(2, E) without self-loops."""
        found: Tensor = remove_self_loops(self.source.all["node"].relations["edges"].edge_index)[0]
        return found

    @property
    def y(self) -> Tensor:
        assert self.graphs.y is not None
        return self.graphs.y

    def part(self, name: str) -> Tensor:
        assert self.graphs.split is not None
        return self.graphs.split[name]


@dataclass(frozen=True)
class Made:
    """`vectors` (N, width) for the probe, or `predicted` classes (N,), or of few labels the rows of an evaluation;
    `chosen` is what validation chose."""

    vectors: Tensor | None = None
    predicted: Tensor | None = None
    few_labels: list[dict[str, Any]] | None = None
    validation: float | None = None
    chosen: dict[str, Any] | None = None
    epochs: int = 0


def raw(task: Task, seed: int) -> Made:
    """Features as they are."""
    return Made(task.x)


HOPS = range(11)  # how often features are propagated


def propagated(task: Task, seed: int, *, hops: int | None = None) -> Made:
    """S^k X (Wu et al., SGC, ICML 2019), k of HOPS by the probe's accuracy on validation nodes, or `hops`."""
    if hops is not None:
        return Made(propagate(task.source.all["node"], hops))
    best: tuple[float, int, Tensor] | None = None
    for hops in HOPS:
        x = propagate(task.source.all["node"], hops)
        chosen = task.part("train"), task.part("validation")
        found = fit_probe(x, task.y, *chosen, len(task.graphs.classes), task.probe).validation
        assert found is not None
        if best is None or found > best[0]:
            best = found, hops, x
    assert best is not None
    return Made(best[2], chosen={"hops": best[1]})


ALPHAS, LAYERS = (0.5, 0.7, 0.9, 0.95, 0.99), (3, 10, 50)
UNCHOSEN = (50, 0.9)  # where there are no validation nodes


def label_propagation(task: Task, seed: int) -> Made:
    """Zhu and Ghahramani, 2002: labels of the training nodes spread over edges; share and steps by validation."""
    best = Made(validation=-1.0)
    for layers, alpha in product(LAYERS, ALPHAS) if len(task.part("validation")) else [UNCHOSEN]:
        said = LabelPropagation(layers, alpha)(task.y.clamp_min(0), task.edge_index, mask=task.part("train"))
        found = _right(said, task, "validation")
        if best.validation is None or found > best.validation:
            best = Made(predicted=said.argmax(1), validation=found, chosen={"layers": layers, "alpha": alpha})
    return best


def gcn(task: Task, seed: int) -> Made:
    """After Kipf and Welling, ICLR 2017: 2 layers, 16 wide; all weights decay here, not the first layer's alone."""
    model = _seeded(seed, lambda: GCN(task.x.shape[1], 16, 2, len(task.graphs.classes), dropout=0.5))
    return _supervised(model, task, lr=0.01, dropout=0.5, seed=seed)


def gat(task: Task, seed: int) -> Made:
    """After Velickovic et al., ICLR 2018: 2 layers, 8 heads of 8. As PyTorch Geometric builds it: the last has 8 heads,
    too, which are averaged, on every set."""
    width, classes = task.x.shape[1], len(task.graphs.classes)
    model = _seeded(seed, lambda: GAT(width, 64, 2, classes, heads=8, dropout=0.6, act="elu"))
    return _supervised(model, task, lr=0.005, dropout=0.6, seed=seed)


EPOCHS = 200


def _supervised(model: nn.Module, task: Task, *, lr: float, dropout: float, seed: int) -> Made:
    """Full-batch training on the training nodes; the epoch is the one that is best on validation nodes, or the last."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=5e-4)
    train, best, said = task.part("train"), Made(validation=-1.0), torch.empty(0)
    x = task.x.clone()
    there = x.flatten().nonzero().squeeze(1)  # a zero stays one: most of the features need no random number
    values = x.flatten()[there]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for epoch in range(1, EPOCHS + 1):
            model.train()
            optimizer.zero_grad()
            x.view(-1)[there] = F.dropout(values, dropout)
            out = model(x, task.edge_index)
            F.cross_entropy(out[train], task.y[train]).backward()
            optimizer.step()
            model.eval()
            with torch.no_grad():
                said = model(task.x, task.edge_index)
            found = _right(said, task, "validation")
            if best.validation is None or found >= best.validation:
                best = Made(predicted=said.argmax(1), validation=found, chosen={"epoch": epoch}, epochs=EPOCHS)
    return best


MOST, PATIENCE = 1000, 20  # epochs
SPARSE = 0.05  # share of features that are not zero, below which a sparse product is the faster one


def dgi(task: Task, seed: int) -> Made:
    """Velickovic et al., Deep graph infomax, ICLR 2019: one GCN layer of 512, the epoch of the lowest loss.

    Features meet the weights once a step: rows that are exchanged before that product or after it are the same.
    """
    x, nodes = task.x, len(task.x)
    edges, weights = gcn_norm(task.edge_index, None, nodes)
    around = torch.sparse_coo_tensor(edges.flip(0), weights, (nodes, nodes), check_invariants=False).coalesce()
    if x.count_nonzero() < SPARSE * x.numel():
        x = x.to_sparse()

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = GCNConv(x.shape[1], 512), nn.PReLU(512)

        def forward(self, mixed: Tensor) -> Tensor:
            out: Tensor = self.act(around @ mixed + self.conv.bias)
            return out

    def summary(z: Tensor, *rest: Any, **more: Any) -> Tensor:
        return z.mean(0).sigmoid()

    def corruption(mixed: Tensor) -> tuple[Tensor]:
        return (mixed[torch.randperm(nodes)],)

    def mixed() -> Tensor:
        out: Tensor = x @ model.encoder.conv.lin.weight.t()
        return out

    model = _seeded(seed, lambda: DeepGraphInfomax(512, encoder=Encoder(), summary=summary, corruption=corruption))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    lowest, since, epochs, kept = float("inf"), 0, 0, model.state_dict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        while epochs < MOST and since < PATIENCE:
            optimizer.zero_grad()
            loss = model.loss(*model(mixed()))
            loss.backward()
            optimizer.step()
            epochs, since = epochs + 1, since + 1
            if loss.item() < lowest:
                lowest, since, kept = loss.item(), 0, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    model.eval()
    with torch.no_grad():
        return Made(model.encoder(mixed()), chosen={"loss": lowest}, epochs=epochs)


ROUNDS = 3


def wl(task: Task, seed: int) -> Made:
    """Shervashidze et al., Weisfeiler-Lehman graph kernels, JMLR 2011: how often each colour comes in each graph,
    before and after each of 3 rounds, where a node's new colour is its own and those around it."""
    node = task.source.all["node"]
    colours = torch.unique(task.x, dim=0, return_inverse=True)[1]
    counts = []
    for done in range(ROUNDS + 1):
        conv = WLConv()
        counts.append(_histogram(colours, node.batch, task.source.num_items))
        if done < ROUNDS:
            colours = conv(colours, task.edge_index)
    return Made(torch.cat(counts, 1), chosen={"rounds": ROUNDS})


def _histogram(colours: Tensor, batch: Tensor, items: int) -> Tensor:
    """(items, colours that two items have, and one for each item's others): those make no two graphs more alike, but
    count in their lengths."""
    size = int(colours.max()) + 1
    counts = torch.sparse_coo_tensor(
        torch.stack([batch, colours]), torch.ones(len(batch)), (items, size), check_invariants=False
    ).coalesce()
    shared = torch.bincount(counts.indices()[1], minlength=size) > 1
    place, kept = shared.cumsum(0) - 1, shared[counts.indices()[1]]
    out = torch.zeros(items, int(shared.sum()))
    out[counts.indices()[0][kept], place[counts.indices()[1][kept]]] = counts.values()[kept]
    squares = torch.zeros(items).index_add_(0, counts.indices()[0][~kept], counts.values()[~kept] ** 2)
    return torch.cat([out, squares.sqrt().diag()], 1)


def _seeded(seed: int, make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _right(said: Tensor, task: Task, part: str) -> float:
    """0 where the part has no nodes."""
    rows = task.part(part)
    return accuracy(said[rows].argmax(1), task.y[rows]) if len(rows) else 0.0


BASELINES: dict[str, Callable[..., Made]] = {
    "raw": raw,
    "propagated": propagated,
    "label_propagation": label_propagation,
    "gcn": gcn,
    "gat": gat,
    "dgi": dgi,
    "wl": wl,
}
OF_GRAPHS = ("wl",)  # the others are of nodes
CLASSES = ("label_propagation", "gcn", "gat")  # that say classes, the others vectors
SEEDLESS = ("raw", "propagated", "label_propagation")  # that come out the same at each seed of one split


def check(method: str, name: str, options: Mapping[str, Any], labels: Sequence[int]) -> None:
    """Raises StructmaeError for a method's options that its baseline does not have, or that few `labels` need."""
    parameters = inspect.signature(BASELINES[name]).parameters
    known = [key for key, each in parameters.items() if each.kind is each.KEYWORD_ONLY]
    for key, value in options.items():
        if key not in known:
            has = ", ".join(known) or "none"
            raise StructmaeError(f"method {method}: baseline {name} has no option {key}: it has {has}")
        if type(value) is not int or value < 0:
            raise StructmaeError(f"method {method}: {key}={value!r} must be a whole number, 0 or more")
    if labels and not set(options).issuperset(known):
        raise StructmaeError(
            f"method {method}: baseline {name} chooses {', '.join(known)} on validation nodes, of which few labels "
            f"read none: give settings = {{ {known[0]} = 2 }}, or the like"
        )


def make(name: str, task: Task, seed: int, options: Mapping[str, Any], labels: Sequence[int] = ()) -> Made:
    """What a baseline makes of a task. With `labels`, one that says classes is trained on each draw of so many labels a
    class, the draws of all methods, and reads no validation node."""
    if not labels or name not in CLASSES:
        return BASELINES[name](task, seed, **options)
    fitted, test = task.part("train"), task.part("test")

    def value(chosen: few.Ints) -> float:
        split = {"train": torch.from_numpy(chosen), "validation": fitted[:0], "test": test}
        said = BASELINES[name](replace(task, graphs=replace(task.graphs, split=split)), seed, **options).predicted
        assert said is not None
        return accuracy(said[test], task.y[test])

    subsets, _ = few.few(task.y.numpy(), fitted.numpy(), labels)
    epochs = EPOCHS * sum(map(len, subsets.values())) if name not in SEEDLESS else 0
    return Made(few_labels=few.rows(ARM, subsets, value), epochs=epochs)


def score(made: Made, graphs: Graphs, recipe: Recipe, labels: Sequence[int] = ()) -> dict[str, Any]:
    """As an evaluation of node or graph classification has it, with one arm."""
    if made.few_labels is not None:
        return {"metric": "accuracy", "split": "test", "few_labels": made.few_labels}
    if graphs.level == "graph":
        assert made.vectors is not None
        scored = graph_classification.score({ARM: made.vectors}, graphs, recipe, linear=True)
        scored["rows"][0]["chosen"] = made.chosen
        return scored
    if made.vectors is not None:
        scored = node_classification.score({ARM: made.vectors}, graphs, recipe, labels=labels)
        scored["rows"][0]["chosen"] = made.chosen
        return scored
    assert made.predicted is not None
    assert graphs.split is not None
    assert graphs.y is not None
    test = graphs.split["test"]
    right = made.predicted[test] == graphs.y[test]
    row = {"features": ARM, "value": float(right.double().mean()), "validation": made.validation}
    row |= {"n": len(test), "chosen": made.chosen, "right": packed(right.numpy())}
    return {"metric": "accuracy", "split": "test", "rows": [row]}
