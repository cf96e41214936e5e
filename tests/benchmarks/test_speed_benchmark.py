import json
import sys
import types
from dataclasses import replace

import pytest
import torch

import structmae
from structmae import registry
from structmae.errors import StructmaeError
from structmae.masking.strategies import Act
from structmae.planning import Planner
from structmae.recipe import resolve
from structmae.run import build

MODULES = (
    "speed", "speed_floor", "speed_growth", "speed_plain", "speed_report", "speed_seeds", "speed_sides", "speed_worker",
    "speed_works", "masking", "masking_report",
)  # fmt: skip
SMALL = {"encoder.hidden": 16, "encoder.heads": 2}
STILL = {"encoder.dropout": 0.0, "encoder.attention_dropout": 0.0}
KEYS = ["work", "precision", "ours_ms", "other", "other_ms", "ratio", "floor_ms", "threads", "processor"]


@pytest.fixture
def part(script, monkeypatch):
    """Imports a module of the benchmark by name."""
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(structmae, "tune_cpu", lambda: False)  # it can't be undone, and other tests follow
    yield script
    for name in MODULES:
        sys.modules.pop(name, None)


def both(part, graphs, **settings):
    """Ours, plain with the same weights, a batch of all items, and what plain reads of it."""
    plain = part("speed_plain")
    recipe = resolve("graphmae", {**SMALL, **STILL, **settings}, level=graphs.level)
    modality = registry.get("modality", "graph")
    tokenizer = modality.fit(graphs, recipe)
    source = modality.source(graphs, tokenizer, torch.device("cpu"))
    ours = build(recipe, tokenizer).train()
    other = plain.PlainGraphMAE(recipe, tokenizer.width).train()
    with torch.no_grad():
        ours.tokens["node"].normal_()
        for mine, its in parts(ours, other):
            assert mine.shape == its.shape
            its.copy_(mine)
    batch = Planner.of(recipe).batch(source, torch.arange(source.num_items), visit=3, step=0)
    return recipe, source, ours, other, batch


def parts(ours, other):
    """The same parameters of both, whatever they are called."""
    decoder = ours.heads["features"].decoder
    mine = [*ours.encoder.parameters(), *decoder.bridge.parameters(), *decoder.body.parameters(), *ours.tokens.values()]
    its = [*other.encoder.parameters(), *other.bridge.parameters(), *other.decoder.parameters(), other.token]
    assert len(mine) == len(list(ours.parameters()))
    return list(zip(mine, its, strict=True))


LAYERS = [
    {"mask.random": 0.2},
    {"mask.random": 0.2, "encoder.layer": "gcn", "heads.features.layer": "gcn", "encoder.norm": "layernorm"},
    {"encoder.layer": "gin", "heads.features.layer": "gin", "encoder.norm": "batchnorm"},
    {"heads.features.layers": 2, "heads.features.gamma": 1.0},
]


@pytest.mark.parametrize("settings", LAYERS, ids=["gat", "gcn", "gin", "deep decoder"])
@pytest.mark.parametrize("data", ["karate", "molecules"])
def test_plain_does_the_same_work(part, request, data, settings):
    """The same weights and the same hidden nodes give the same loss, and the same gradients."""
    plain = part("speed_plain")
    _, _, ours, other, batch = both(part, request.getfixturevalue(data), **settings)
    node, plan = batch.tokens["node"], batch.plans["node"]
    drawn = plain.Draw(plan.hidden, plan.with_act(Act.TOKEN), plan.with_act(Act.RANDOM), plan.taken)
    loss = other(node.values, node.relations["edges"].edge_index, drawn)
    total = ours(batch).total
    torch.testing.assert_close(loss, total, rtol=1e-4, atol=1e-5)
    for one in (loss, total):
        one.backward()
    for mine, its in parts(ours, other):
        torch.testing.assert_close(its.grad, mine.grad, rtol=1e-3, atol=1e-5)


def test_plain_has_as_many_parameters(part, karate):
    _, _, ours, other, _ = both(part, karate)
    assert sum(weight.numel() for weight in ours.parameters()) == sum(weight.numel() for weight in other.parameters())


def test_plain_hides_as_many_and_reads_the_same_graphs(part, molecules):
    plain = part("speed_plain")
    recipe, source, *_ = both(part, molecules)
    drawn = plain.draw(40, 0.5, 0.2)
    assert len(drawn.hidden) == 20
    assert len(drawn.swapped) == len(drawn.source) == 4
    assert sorted(torch.cat([drawn.token, drawn.swapped]).tolist()) == sorted(drawn.hidden.tolist())
    node = source.all["node"]
    graphs = list(plain._graphs(node.values, node.relations["edges"].edge_index, node.ptr.tolist()))
    assert torch.equal(torch.cat([graph.x for graph in graphs]), node.values)
    joined = torch.cat([graph.edge_index + first for graph, first in zip(graphs, node.ptr, strict=False)], 1)
    assert torch.equal(joined, node.relations["edges"].edge_index)
    steps, epochs = [], []
    short = replace(recipe, train=replace(recipe.train, epochs=2, batch_size=4))
    plain.train(short, source, after_step=lambda: steps.append(0), after_epoch=lambda: epochs.append(0))
    assert (len(steps), len(epochs)) == (4, 2)


@pytest.mark.parametrize(
    "settings", [{"encoder.residual": True}, {"heads.features.remask": "none"}, {"mask.keep": 0.1}]
)
def test_what_plain_does_not_do_is_refused(part, karate, settings):
    with pytest.raises(Exception, match="not those of a GraphMAE"):
        both(part, karate, **settings)


def test_patchtst_of_transformers_has_our_shape(part):
    """As many tokens, layers and widths; it draws, and takes a step, without an error."""
    pytest.importorskip("transformers")
    plain = part("speed_plain")
    small = {**SMALL, "encoder.layers": 1, "encoder.feed_forward": 16, "train.batch_size": 4}
    loaded = part("speed_sides").load("patchtst", "lorenz96", small)
    stop = part("speed_worker").Stop

    def after():
        raise stop

    with pytest.raises(stop):
        plain.patchtst(loaded.recipe, loaded.source, after)


def test_a_step_of_ours_is_the_training_loop_s(part):
    """Held after each step, and stopped from outside."""
    sides, worker = part("speed_sides"), part("speed_worker")
    work = part("speed_works").Work("small", "graphmae", "karate", settings=SMALL)
    commands = iter([{"do": "steps", "steps": 3}, {"do": "count", "precision": "fp32"}, {"do": "stop"}])
    said = []
    turns = worker.Turns(
        types.SimpleNamespace(readline=lambda: json.dumps(next(commands))),
        types.SimpleNamespace(write=lambda text: said.append(json.loads(text)), flush=lambda: None),
    )
    with pytest.raises(worker.Stop):
        sides.ours(turns, 1, work=vars(work), precision="fp32")
    first, turn, counted = said
    assert first["ms"] == []
    assert len(turn["ms"]) == 3
    assert counted["rate"] > 0
    loaded = sides.load("graphmae", "karate", SMALL)
    weights = sum(weight.numel() for weight in build(loaded.recipe, loaded.tokenizer).parameters())
    assert turn["moved"] > 28 * weights


def test_products_are_counted(part):
    floor = part("speed_floor")
    a, b = torch.randn(16, 8, requires_grad=True), torch.randn(8, 4, requires_grad=True)
    count = floor.Count("fp32")
    (a @ b).sum().backward()
    floor.TAKES, floor.LARGE = 0.0, (8, 8, 8)
    found = count.close()
    assert found["flops"] == 3 * 2 * 16 * 8 * 4
    assert set(count.products) == {(16, 8, 4), (16, 4, 8), (8, 16, 4)}


@pytest.fixture
def run(part, monkeypatch, capsys):
    """Runs the script on two small works; gives exit code, stdout and stderr."""
    speed, work = part("speed"), part("speed_works").Work
    monkeypatch.setattr(speed, "TURN", 0.0)
    works = [
        work("graphmae_cora", "graphmae", "karate", 4.5, 7.0, settings=SMALL),
        work("graphmae_mutag", "graphmae", "missing.csv", 2.0, settings=SMALL, unit="epoch"),
    ]

    def call(*arguments):
        try:
            code = speed.main(list(arguments), works)
        except SystemExit as error:
            code = error.code
        return (code, *capsys.readouterr())

    return call


def test_a_pair_of_processes(run, part, tmp_path):
    """A row as JSON and in the table, which tables.py shows too."""
    file = tmp_path / "speed.json"
    asked = ["--precision", "medium", "--threads", "1", "--quick", "--json", str(file)]
    code, out, err = run(*asked, "--only", "graphmae_cora")
    assert code == 0, err
    (row,) = json.loads(file.read_text())
    assert list(row)[: len(KEYS)] == KEYS
    assert all(row[key] > 0 for key in ("ours_ms", "other_ms", "ratio", "floor_ms", "ours_memory", "other_memory"))
    assert row["other"] == "plain GraphMAE, defaults"
    assert row["pairs"] == 4
    assert out.startswith("work")
    assert "4.5 " in out
    assert part("tables").main(["speed", "--results", str(tmp_path)]) == 0


def test_a_side_that_fails_leaves_its_row_out(run, part, monkeypatch):
    def fail(work, *rest):
        raise StructmaeError(f"{work.data} is not here")

    monkeypatch.setattr(part("speed"), "measure", fail)
    code, out, _ = run("--precision", "fp32", "--threads", "1", "--quick", "--only", "graphmae_mutag")
    assert code == 1
    assert "left out: graphmae_mutag at fp32: missing.csv is not here" in out


def test_a_process_that_fails_says_why(part):
    worker = part("speed_worker")
    with worker.Worker("no_such_module", "ours", {}, 1) as side, pytest.raises(StructmaeError, match="no_such_module"):
        side.ready()


@pytest.mark.parametrize(
    "arguments", [["--only", "cora"], ["--precision", "fp8"], ["--seeds", "0"], ["--seeds", "2", "--growth"],
                  ["--growth", "--json", "rows.json"]],
)  # fmt: skip
def test_wrong_options_are_one_line(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1


def test_ratio_is_the_median_of_pairs(part):
    report = part("speed_report")
    work = part("speed_works").Work("small", "graphmae", "karate", 12.0)
    row = report.Row(work, "medium", 1, [1.0, 2.0, 4.0], [10.0, 40.0, 12.0], 0.5).public({})
    assert (row["ratio"], row["ours_ms"], row["other_ms"]) == (10.0, 2.0, 12.0)
    assert "12 NO" in report.text([row])
    assert "12 NO" not in report.text([{**row, "precision": "fp32"}])


def test_works_are_those_asked_for(part):
    works = {work.name: (work.must, work.aim, work.same) for work in part("speed_works").WORKS}
    assert works == {
        "graphmae_cora_tuned": (2.0, 3.0, True), "graphmae_cora": (4.5, 7.0, False),
        "graphmae_citeseer": (4.5, 7.0, False), "graphmae_pubmed": (4.5, 7.0, False),
        "graphmae_mutag": (2.0, None, False), "patchtst": (3.0, 5.0, False), "tsformer_visible": (2.2, None, True),
        "tsformer_visible_encoder": (3.5, None, True), "gcn_cora": (1.5, None, True), "gin_cora": (1.5, None, True),
    }  # fmt: skip


def test_seeds_are_run_once(part, tmp_path, capsys, monkeypatch):
    """Both sides train and are scored; what is there is not made again."""
    seeds = part("speed_seeds")
    asked = {**SMALL, "train.epochs": 3, "probe.epochs": 3}
    monkeypatch.setattr(seeds, "call", lambda module, function, **about: getattr(seeds, function)(**about))
    for _ in range(2):
        assert seeds.main(1, 1, folder=tmp_path, data="karate", settings=asked) == 0
    lines = [json.loads(line) for line in (tmp_path / "speed_seeds.jsonl").read_text().splitlines()]
    assert [line["recipe"] for line in lines] == ["graphmae", "plain"]
    assert all(0 <= line["value"] <= 1 and line["seconds"] > 0 for line in lines)
    out = capsys.readouterr().out
    assert "the range of plain's seeds" in out
    assert "its evaluation takes" in out


@pytest.mark.slow
def test_growth_is_measured_and_plotted(part, tmp_path):
    assert part("speed_growth").main(1, folder=tmp_path, quick=True) == 0
    assert (tmp_path / "speed_growth.png").exists()
    assert len(json.loads((tmp_path / "speed_growth.json").read_text())["steps"]) == 2
