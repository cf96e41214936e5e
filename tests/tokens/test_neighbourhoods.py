import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import structmae
from structmae import resolve
from structmae.errors import StructmaeError
from structmae.graph import source as source_of
from structmae.masking.rng import VALIDATION, philox4x32, stream
from structmae.run import build
from structmae.tokens.graph import NodeTokenizer
from structmae.tokens.neighbourhoods import Neighbourhoods


def cutting(nodes, edges, hops, most, width=0, undirected=True, edge_tokens=False):
    """A whole graph whose one feature is the node's number, and its neighbourhoods."""
    options = {"hops": hops, "neighbours": most, "edge_tokens": edge_tokens}
    tokenizer = NodeTokenizer(
        categories={}, columns=1, normalize="none", undirected=undirected, edge_width=width, **options
    )
    attributes = torch.arange(edges.shape[1] * width).view(-1, width).float() if width else None
    ptr, item_id = torch.tensor([0, nodes]), torch.zeros(1, dtype=torch.long)
    whole = tokenizer.tokens(torch.arange(nodes)[:, None].float(), edges, ptr, item_id, attributes)
    return whole, Neighbourhoods(whole, tokenizer)


def random_edges(seed, nodes, count):
    return torch.randint(0, nodes, (2, count), generator=torch.Generator().manual_seed(seed))


def rank(seed, node):
    """The contract: key (0, stream), counter (seed low, high, visit, node // 4)."""
    return philox4x32((seed & 0xFFFFFFFF, seed >> 32, VALIDATION, node // 4), (0, stream(token_set=255)))[node % 4]


def breadth_first(edges, seed, hops, most):
    """The nodes of a neighbourhood by plain sets; `edges` are pairs (source, target)."""
    found, ring = [seed], [seed]
    for _ in range(hops):
        ring = sorted({a for a, b in edges if b in ring} - set(found))
        if len(ring) > most - len(found):
            ring = sorted(ring, key=lambda node: (rank(seed, node), node))[: most - len(found)]
        found += ring
    return [seed, *sorted(found[1:])]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    nodes=st.integers(1, 12),
    count=st.integers(0, 30),
    hops=st.integers(1, 3),
    most=st.integers(2, 9),
    undirected=st.booleans(),
)
def test_neighbourhoods_are_those_of_a_plain_search(seed, nodes, count, hops, most, undirected):
    whole, around = cutting(nodes, random_edges(seed, nodes, count), hops, most, undirected=undirected)
    edges = {tuple(pair) for pair in whole["node"].relations["edges"].edge_index.t().tolist()}
    part = around.cut(torch.arange(nodes))["node"]
    relation = part.relations["edges"]
    target = relation.edge_index[1]
    assert part.item_id.tolist() == list(range(nodes))
    for item in range(nodes):
        begin, end = part.ptr[item : item + 2].tolist()
        members = part.values[begin:end, 0].long().tolist()
        assert members == breadth_first(edges, item, hops, most)
        inside = (target >= begin) & (target < end)
        pairs = [(members[a - begin], members[b - begin]) for a, b in relation.edge_index[:, inside].t().tolist()]
        assert len(pairs) == len(set(pairs))
        assert set(pairs) == {(a, b) for a, b in edges if a in members and b in members}
        assert {(node, node) for node in members} <= set(pairs)
    key = target * (len(part) + 1) + relation.source
    assert bool((key[1:] > key[:-1]).all())  # rows in order, and sources in each row


def test_the_nearer_come_first():
    """A star whose leaves have leaves: the first ring is whole before any of the second is taken."""
    first = torch.tensor([[1, 2, 3], [0, 0, 0]])
    second = torch.tensor([range(4, 13), [1, 1, 1, 2, 2, 2, 3, 3, 3]])
    _, around = cutting(13, torch.cat([first, second], 1), hops=2, most=6)
    members = around.cut(torch.tensor([0]))["node"].values[:, 0].long().tolist()
    assert members[:4] == [0, 1, 2, 3]
    assert len(members) == 6


def test_which_of_a_ring_are_taken_depends_on_the_seed():
    hub = torch.tensor([list(range(2, 42)) * 2, [0] * 40 + [1] * 40])
    _, around = cutting(42, hub, hops=1, most=11)
    one, other = (around.cut(torch.tensor([node]))["node"].values[1:, 0].tolist() for node in (0, 1))
    assert len(one) == len(other) == 10
    assert one != other


def check_same(first, second):
    assert torch.equal(first.values, second.values)
    assert torch.equal(first.relations["edges"].edge_index, second.relations["edges"].edge_index)
    for name in ("attributes", "token"):
        parts = [getattr(part.relations["edges"], name) for part in (first, second)]
        assert (parts[0] is None) == (parts[1] is None)
        assert parts[0] is None or torch.equal(*parts)


@pytest.mark.parametrize("tokens", [False, True])
@settings(max_examples=30)
@given(order=st.permutations(range(9)), size=st.integers(1, 9))
def test_a_neighbourhood_is_the_same_in_any_batch(tokens, order, size):
    edges = random_edges(7, 9, 20)
    _, around = cutting(9, edges, hops=2, most=5, width=2, edge_tokens=tokens)
    batch = around.cut(torch.tensor(order[:size]))
    for place, node in enumerate(order[:size]):
        alone = around.cut(torch.tensor([node]))
        assert batch["node"].item_id[place] == node
        rows = torch.arange(int(batch["node"].ptr[place]), int(batch["node"].ptr[place + 1]))
        part = batch["node"].only(rows)
        if tokens:
            edge = batch["edge"]
            mine = torch.arange(int(edge.ptr[place]), int(edge.ptr[place + 1]))
            assert torch.equal(edge.values[mine], alone["edge"].values)
            assert torch.equal(edge.ends[:, mine] - rows[0], alone["edge"].ends)
            relation = part.relations["edges"]
            of = relation.token
            relation = type(relation)(
                relation.indptr, relation.source, relation.attributes, (of - mine[0]).where(of >= 0, -1)
            )
            part.relations["edges"] = relation
        check_same(part, alone["node"])


def test_edges_keep_their_attributes():
    whole, around = cutting(9, random_edges(7, 9, 20), hops=1, most=4, width=2)
    relation = whole["node"].relations["edges"]
    table = dict(zip(map(tuple, relation.edge_index.t().tolist()), relation.attributes.tolist(), strict=True))
    part = around.cut(torch.arange(9))["node"]
    cut = part.relations["edges"]
    names = part.values[:, 0].long()
    pairs = names[cut.edge_index].t().tolist()
    assert [table[tuple(pair)] for pair in pairs] == cut.attributes.tolist()


def parts(graphs, **changes):
    recipe = resolve(
        "graphmae", {"encoder.hidden": 8, "encoder.heads": 2, "tokens.hops": 2, "tokens.neighbours": 6, **changes}
    )
    tokenizer = NodeTokenizer.fit(graphs, recipe)
    return build(recipe, tokenizer).encoder.eval(), source_of(graphs, tokenizer, torch.device("cpu"))


def test_the_source_goes_through_the_nodes(karate):
    _, source = parts(karate)
    assert source.num_items == 34
    assert len(source.all["node"]) == 34
    ids = [part["node"].item_id for part in source.sweep(10)]
    assert [len(part) for part in ids] == [10, 10, 10, 4]
    assert torch.equal(torch.cat(ids), torch.arange(34))
    assert source.target(torch.arange(3)) is None


@pytest.mark.parametrize("kind", ["gnn", "graph_transformer"])
def test_an_encoder_cuts_as_the_source_does(karate, kind, monkeypatch):
    """A vector a node, to the bit, however the encoder is asked."""
    import structmae.nn.graph

    encoder, source = parts(karate, **{"encoder.kind": kind})
    monkeypatch.setattr(structmae.nn.graph, "AT_ONCE", 10)
    with torch.no_grad():
        direct = encoder(karate.x, karate.edge_index)
        swept = torch.cat([encoder.represent(tokens) for tokens in source.sweep(10)])
        assert direct.shape == (34, 8)
        assert torch.equal(direct, swept)
        seed = source.batch(torch.tensor([20]))
        torch.testing.assert_close(encoder.read(seed).latent["node"][0], direct[20])


def test_neighbourhoods_that_hold_everything_give_what_the_graph_gives():
    """Of a GNN with two layers, all that a node sees is two steps away."""
    graphs = structmae.load_data("karate")
    encoder, _ = parts(graphs, **{"tokens.neighbours": 34})
    whole, _ = parts(graphs, **{"tokens.hops": 0})
    with torch.no_grad():
        torch.testing.assert_close(encoder(graphs.x, graphs.edge_index), whole(graphs.x, graphs.edge_index))


def test_no_nodes_give_no_vectors(karate):
    encoder, _ = parts(karate)
    assert encoder(torch.zeros(0, 34), torch.zeros(2, 0, dtype=torch.long)).shape == (0, 8)


def test_a_set_of_graphs_is_not_cut(molecules):
    with pytest.raises(StructmaeError, match=r"tokens\.hops=2 cuts a single graph"):
        parts(molecules)
