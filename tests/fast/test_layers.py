"""A layer by kernels is PyTorch Geometric's layer, in a whole model too: the same loss, the same gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

import structmae
from structmae import registry, resolve
from structmae.fast.dropout import dropout
from structmae.fast.products import by_heads
from structmae.fast.sparse import dense
from structmae.nn import convolutions, gnn
from structmae.planning import Planner
from structmae.run import build

LAYERS = ("gat", "gcn", "gin")


def graphs(sets=1, width=80):
    """Bags of words on a directed ring with chords."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for index in range(sets):
        nodes = 30 + index
        x = (torch.rand(nodes, width, generator=generator) < 0.06).float()
        ring = torch.arange(nodes)
        edge_index = torch.cat([torch.stack([ring, (ring + 1) % nodes]), torch.stack([ring, ring // 2])], 1)
        made.append(Data(x=x, edge_index=edge_index, y=torch.tensor([index % 2])))
    return structmae.load_data(made if sets > 1 else made[0])


def parts(y, bias, norm, act, p=0.0, training=True):
    """The end of a layer by modules."""
    y = dense(y)
    return dropout(act(norm(y if bias is None else y + bias)), p, training)


def step(data, monkeypatch, fast, **settings):
    """Loss and gradients of one step."""
    with monkeypatch.context() as patch:
        if not fast:
            patch.setattr(convolutions, "fits", lambda *tensors: False)
            for module in (convolutions, gnn):
                patch.setattr(module, "ended", parts)
        recipe = resolve("graphmae", {"encoder.hidden": 16, "encoder.heads": 2, "mask.random": 0.2, **settings},
                         level=data.level)  # fmt: skip
        modality = registry.get("modality", "graph")
        model = build(recipe, modality.fit(data, recipe)).train()
        source = modality.source(data, model.encoder.tokenizer, torch.device("cpu"))
        batch = Planner.of(recipe).batch(source, torch.arange(source.num_items), visit=0, step=0)
        torch.manual_seed(1)
        total = model(batch).total
        total.backward()
    return total.detach(), {name: weight.grad for name, weight in model.named_parameters()}


CASES = {
    "plain": {},
    "dropout": {"encoder.dropout": 0.3},
    "batchnorm": {"encoder.norm": "batchnorm"},
    "layernorm, residual": {"encoder.norm": "layernorm", "encoder.residual": True},
    "one layer": {"encoder.layers": 1},
    "deep decoder": {"heads.features.layers": 2},
    "re-masked at random": {"heads.features.remask": "random", "heads.features.remask_draws": 2},
    "not re-masked": {"heads.features.remask": "none"},
    "squared error": {"heads.features.loss": "mse"},
    "with a term": {"terms.uniformity.weight": 0.1},
    "relu": {"encoder.activation": "relu"},
    "mlp decoder": {"heads.features.layer": "mlp"},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("sets", [1, 3])
def test_a_step_is_that_of_the_plain_layers(layer, case, sets, monkeypatch):
    data = graphs(sets)
    settings = {"encoder.layer": layer, "heads.features.layer": layer, "encoder.norm": "none", "encoder.dropout": 0.0,
                "encoder.attention_dropout": 0.0, "encoder.pool": "none", **CASES[case]}  # fmt: skip
    (fast, mine), (slow, theirs) = (step(data, monkeypatch, on, **settings) for on in (True, False))
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-6)
    assert [name for name in mine if mine[name] is None] == [name for name in theirs if theirs[name] is None]
    scale = max(float(grad.abs().max()) for grad in theirs.values() if grad is not None)
    for name, grad in mine.items():
        torch.testing.assert_close(
            grad, theirs[name], rtol=1e-3, atol=1e-5 * scale, msg=lambda text, at=name: f"{at}: {text}"
        )


@pytest.mark.parametrize("layer", LAYERS)
@given(seed=st.integers(0, 10**6))
def test_some_rows_are_those_of_all(layer, seed):
    """Whichever of sum and product comes first."""
    data = graphs()
    recipe = resolve("graphmae", {"encoder.layer": layer, "encoder.hidden": 8, "encoder.heads": 2})
    modality = registry.get("modality", "graph")
    encoder = build(recipe, modality.fit(data, recipe)).encoder.eval()
    node = modality.source(data, encoder.tokenizer, torch.device("cpu")).all["node"]
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(node), generator=generator)[
        : int(torch.randint(1, 30, (1,), generator=generator))
    ].sort()[0]
    with torch.no_grad():
        every = encoder.body(node.values, node.relations["edges"])
        torch.testing.assert_close(
            encoder.body(node.values, node.relations["edges"], rows), every[rows], rtol=1e-4, atol=1e-5
        )


def test_edge_attributes_are_left_to_the_library(molecules):
    recipe = resolve(
        "graphmae", {"encoder.edge_features": True, "encoder.layer": "gat", "encoder.hidden": 8}, level="graph"
    )
    modality = registry.get("modality", "graph")
    model = build(recipe, modality.fit(molecules, recipe))
    node = modality.source(molecules, model.encoder.tokenizer, torch.device("cpu")).all["node"]
    layer = model.encoder.body.layers[0]
    assert not layer.covered(node.relations["edges"])


@given(rows=st.integers(0, 6), inner=st.integers(1, 5), width=st.integers(1, 4), heads=st.integers(1, 3))
def test_products_of_heads_side_by_side(rows, inner, width, heads):
    x = torch.randn(rows, heads * inner).requires_grad_()
    weight, bias = torch.randn(heads * width, inner).requires_grad_(), torch.randn(heads * width).requires_grad_()
    found = by_heads(x, weight, bias, heads)
    expected = (
        torch.einsum("thi,hci->thc", x.view(rows, heads, inner), weight.view(heads, width, inner)).flatten(1) + bias
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    ways = torch.randn_like(expected)
    mine = torch.autograd.grad((found * ways).sum(), (x, weight, bias))
    theirs = torch.autograd.grad((expected * ways).sum(), (x, weight, bias))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [*LAYERS, "mlp"])
@pytest.mark.parametrize("norm", ["none", "batchnorm", "layernorm"])
def test_layers_in_a_row_with_dropout_between_them(layer, norm):
    data = graphs()
    settings = {"encoder.layer": layer, "encoder.hidden": 16, "encoder.heads": 2, "encoder.layers": 3,
                "encoder.norm": norm, "encoder.dropout": 0.4, "encoder.attention_dropout": 0.0}  # fmt: skip
    recipe = resolve("graphmae", settings)
    modality = registry.get("modality", "graph")
    body = build(recipe, modality.fit(data, recipe)).encoder.body.train()
    node = modality.source(data, modality.fit(data, recipe), torch.device("cpu")).all["node"]
    x, relation = node.values, node.relations["edges"]
    torch.manual_seed(5)
    found = body(x, relation)
    torch.manual_seed(5)
    h = x
    for one, end in zip(body.layers, body.ends, strict=True):
        h = dropout(h, 0.4)
        if h is not x and one is not body.layers[0]:
            assert 0.3 < float((h == 0).float().mean()) < 0.9
        h = end(one(h, relation))
    torch.testing.assert_close(found, h, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["graphmae", "graphmae2", "maskgae_edge"])
def test_bfloat16_where_autocast_is_not_the_cpus(name, monkeypatch):
    """As on a GPU: no kernels, and a product's gradients are made outside of autocast."""
    from structmae.fast import chain, cosine, ending

    monkeypatch.setattr(chain, "low", lambda: None)
    monkeypatch.setattr(cosine, "fits", lambda *tensors: False)
    monkeypatch.setattr(ending, "_reads", lambda *given: False)
    monkeypatch.setattr(convolutions, "fits", lambda *tensors: False)
    settings = {"train.precision": "bf16", "train.epochs": 2, "encoder.hidden": 16, "size": "tiny"}
    run = structmae.pretrain("karate", name, settings=settings, progress=False)
    assert run.result["loss_last"] > 0
