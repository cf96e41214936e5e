import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.nn import GATConv, GCNConv, GINConv

from structmae import resolve
from structmae.errors import StructmaeError
from structmae.nn.build import build_encoder
from structmae.nn.gnn import pooled
from structmae.run import build
from structmae.tokens.graph import NodeTokenizer

LAYERS = ("gat", "gcn", "gin")


def encoder_of(layer, width=4, seed=0, **settings):
    recipe = resolve(
        "graphmae",
        {"encoder.layer": layer, "encoder.hidden": 8, "encoder.heads": 2, "train.seed": seed, **settings},
    )
    tokenizer = NodeTokenizer(categories={}, columns=width, normalize="none", undirected=True, edge_width=0)
    return build(recipe, tokenizer).encoder.eval()


def graph(seed, nodes=9, edges=14, width=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(nodes, width, generator=generator), torch.randint(0, nodes, (2, edges), generator=generator)


@pytest.mark.parametrize("norm", ["none", "batchnorm", "layernorm"])
@pytest.mark.parametrize("layer", LAYERS)
@given(seed=st.integers(0, 10**6))
def test_permuting_nodes_permutes_embeddings(layer, norm, seed):
    encoder = encoder_of(layer, **{"encoder.norm": norm, "encoder.residual": True})
    x, edges = graph(seed)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed + 1))
    place = torch.argsort(order)  # node i of the old graph is row place[i] of the new one
    with torch.no_grad():
        torch.testing.assert_close(encoder(x[order], place[edges])[place], encoder(x, edges), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_edges_changes_no_bit(layer, seed):
    encoder = encoder_of(layer)
    x, edges = graph(seed)
    order = torch.randperm(edges.shape[1], generator=torch.Generator().manual_seed(seed + 1))
    both = torch.cat([edges[:, order], edges.flip(0)], 1)  # listed twice, the other way round too
    with torch.no_grad():
        assert torch.equal(encoder(x, edges), encoder(x, edges[:, order]))
        assert torch.equal(encoder(x, edges), encoder(x, both))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_packed_graph_is_as_it_is_alone(layer):
    encoder = encoder_of(layer, **{"encoder.norm": "batchnorm", "encoder.pool": "sum"})
    parts = [graph(seed, nodes=3 + seed) for seed in range(3)]
    x = torch.cat([p[0] for p in parts])
    starts = torch.tensor([0, 3, 7])
    edges = torch.cat([p[1] % len(p[0]) + start for p, start in zip(parts, starts, strict=True)], 1)
    batch = torch.repeat_interleave(torch.arange(3), torch.tensor([3, 4, 5]))
    with torch.no_grad():
        together = encoder(x, edges, batch=batch)
        alone = torch.cat([encoder(p[0], p[1] % len(p[0])) for p in parts])
    assert together.shape == (3, 8)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_are_pytorch_geometrics_on_a_graph_with_self_loops(layer):
    """One encoder layer against the library's own with its own handling of self-loops."""
    encoder = encoder_of(layer, **{"encoder.layers": 1})
    x, edges = graph(3)
    edges = encoder.tokenizer.relation(edges, len(x)).edge_index
    edges = edges[:, edges[0] != edges[1]]
    ours = encoder.body.layers[0].conv
    if layer == "gat":
        theirs = GATConv(4, 4, 2, add_self_loops=True)
    elif layer == "gcn":
        theirs = GCNConv(4, 8, add_self_loops=True)
    else:
        theirs = GINConv(ours.nn, eps=1.0)  # the self-loop counts the node once more
    if layer != "gin":
        theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        expected = encoder.body.ends[0](theirs.eval()(x, edges))
        torch.testing.assert_close(encoder(x, edges), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", LAYERS)
def test_isolated_nodes_and_no_edges_work(layer):
    encoder = encoder_of(layer)
    out = encoder(torch.randn(3, 4), torch.zeros(2, 0, dtype=torch.long))
    assert out.shape == (3, 8)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("layer", ["gat", "gin"])
def test_edge_attributes_are_read(layer):
    recipe = resolve(
        "graphmae",
        {"encoder.layer": layer, "encoder.hidden": 8, "encoder.heads": 2, "encoder.edge_features": True},
    )
    tokenizer = NodeTokenizer(categories={}, columns=4, normalize="none", undirected=True, edge_width=2)
    encoder = build_encoder(recipe, tokenizer).eval()
    x, edges = graph(0)
    attributes = torch.rand(edges.shape[1], 2)
    with torch.no_grad():
        assert not torch.allclose(encoder(x, edges, attributes), encoder(x, edges, attributes + 1))


def test_what_the_encoder_cannot_read_is_refused():
    encoder = encoder_of("gat")
    x, edges = graph(0)
    with pytest.raises(StructmaeError, match="to 99, but x has rows 0 to"):
        encoder(x, torch.tensor([[0], [99]]))
    with pytest.raises(StructmaeError, match="must not decrease"):
        encoder(x, edges, batch=torch.tensor([1] * 4 + [0] * 5))


@pytest.mark.parametrize("how", ["sum", "mean", "max"])
def test_pooling_is_its_name(how):
    h = torch.tensor([[1.0, -2.0], [3.0, 4.0], [5.0, 0.0]])
    expected = torch.stack([getattr(torch, how)(h[:2], 0), getattr(torch, how)(h[2:], 0)]) if how != "max" else (
        torch.stack([h[:2].max(0).values, h[2:].max(0).values])
    )  # fmt: skip
    assert torch.equal(pooled(h, torch.tensor([0, 0, 1]), 2, how), expected)


def test_attention_starts_as_the_papers_code_starts_it():
    """Xavier normal with the gain of a ReLU: deviation sqrt(2) sqrt(2 / (in + out)) of the dense weight."""
    conv = encoder_of("gat", width=300, **{"encoder.hidden": 200}).body.layers[0].conv
    assert float(conv.lin.weight.detach().std()) == pytest.approx((2 * 2 / (300 + 200)) ** 0.5, rel=0.03)


def test_a_decoder_has_one_head_an_open_end_and_the_encoders_width_inside():
    recipe = resolve("graphmae", {"heads.features.layer": "gin"}, level="graph", data="mutag")
    tokenizer = NodeTokenizer(categories={0: 7}, columns=1, normalize="none", undirected=True, edge_width=0)
    model = build(recipe, tokenizer)
    decoder = model.heads["features"].decoder
    assert [tuple(p.shape) for p in decoder.body.layers[0].conv.nn.parameters() if p.dim() == 2] == [(32, 32), (7, 32)]
    assert len(decoder.body.ends[0]) == 0
    assert decoder.bridge.weight.shape == (32, 32)
    assert decoder.bridge.bias is None
    attention = build(resolve("graphmae"), tokenizer).heads["features"].decoder.body.layers[0].conv
    assert attention.heads == 1
    assert attention.out_channels == 7


def test_batch_normalisation_reads_a_single_row_too():
    from structmae.nn.gnn import NORMS

    norm = NORMS["batchnorm"](3)
    one = torch.tensor([[1.0, 2.0, 3.0]])
    assert torch.allclose(norm(one), one, atol=1e-4)  # mean 0 and variance 1 until rows have come
    norm(torch.randn(50, 3) + 4)
    assert not torch.allclose(norm(one), one, atol=0.1)
    assert torch.equal(norm(one), norm.eval()(one))
