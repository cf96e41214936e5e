import json

import pytest
import torch
from torch_geometric.data import Data

import structmae
from structmae.errors import StructmaeError, UsageError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "karate"
    settings = {"train.epochs": 3, "encoder.hidden": 16, "encoder.heads": 2}
    return structmae.pretrain("karate", settings=settings, out=folder, evaluate=True, progress=False)


def test_a_loaded_run_gives_what_the_saved_one_gave(run):
    again = structmae.load(run.folder)
    assert torch.equal(again.embed(), run.embed())
    assert again.recipe.settings() == run.recipe.settings()
    assert again.result == run.result


def test_the_folder_holds_what_is_promised(run):
    assert {file.name for file in run.folder.iterdir()} == {
        "config.json", "metrics.jsonl", "model.safetensors", "picture.png", "result.json",
    }  # fmt: skip
    config = json.loads((run.folder / "config.json").read_text())
    assert config["schema"] == 4
    assert config["recipe"]["mask"]["ratio"] == 0.5
    assert config["data"]["fingerprint"] == structmae.load_data("karate").fingerprint()
    assert config["versions"]["torch"] == torch.__version__.split("+")[0]


def test_the_result_has_every_key(run):
    assert run.result.keys() >= {
        "recipe", "size", "data", "seed", "epochs", "seconds", "seconds_per_epoch", "peak_memory", "out", "loss_first",
        "loss_last", "evaluation",
    }  # fmt: skip
    evaluation = run.result["evaluation"]
    assert (evaluation["task"], evaluation["metric"], evaluation["better"], evaluation["split"]) == (
        "node_classification", "accuracy", "higher", "test",
    )  # fmt: skip
    for arm in ("pretrained", "random_init", "raw_features", "propagated_features"):
        assert 0 <= evaluation[arm] <= 1
    assert [row["features"] for row in evaluation["rows"]] == [
        "pretrained", "random_init", "raw_features", "propagated_features",
    ]  # fmt: skip
    assert structmae.load(run.folder).evaluate() == evaluation


def test_random_init_is_the_encoder_before_training(karate, tiny):
    run = structmae.pretrain(karate, settings={**tiny, "train.lr": 1e-30, "train.weight_decay": 0}, progress=False)
    evaluation = run.evaluate()
    assert evaluation["pretrained"] == evaluation["random_init"]


def test_the_encoder_is_a_plain_module_that_gives_the_embeddings(run, karate):
    encoder = run.encoder
    assert isinstance(encoder, torch.nn.Module)
    with torch.no_grad():
        assert torch.equal(encoder(karate.x, karate.edge_index), run.embed())
    encoder.train()
    loss = torch.nn.Linear(16, 2)(encoder(karate.x, karate.edge_index)).sum()
    loss.backward()
    assert all(p.grad is not None for p in encoder.parameters())
    encoder.eval()
    encoder.zero_grad(set_to_none=True)


def test_permuting_the_nodes_of_a_data_set_permutes_its_embeddings(run, karate):
    order = torch.randperm(34, generator=torch.Generator().manual_seed(0))
    place = torch.argsort(order)
    other = Data(x=karate.x[order], edge_index=place[karate.edge_index])
    torch.testing.assert_close(run.embed(other)[place], run.embed(), rtol=1e-4, atol=1e-5)


def test_raw_features_are_prepared_as_in_training(tiny):
    """Directed edges, repeats and features that are not normalised: the module does what the run did."""
    generator = torch.Generator().manual_seed(0)
    data = Data(x=torch.randn(12, 3, generator=generator) * 9 + 4, edge_index=torch.randint(0, 12, (2, 30)))
    run = structmae.pretrain(data, settings=tiny, progress=False)
    with torch.no_grad():
        torch.testing.assert_close(run.encoder(data.x, data.edge_index), run.embed(data))


def test_graph_sets_give_a_vector_a_graph(molecules, tiny, tmp_path):
    run = structmae.pretrain(molecules, settings={**tiny, "encoder.edge_features": True}, progress=False)
    vectors = run.embed()
    assert vectors.shape == (6, 16)
    batch = torch.repeat_interleave(torch.arange(6), molecules.ptr.diff())
    with torch.no_grad():
        again = run.encoder(molecules.x, molecules.edge_index, molecules.edge_attr, batch)
    torch.testing.assert_close(again, vectors, rtol=1e-5, atol=1e-5)
    run.save(tmp_path / "saved")
    with pytest.raises(StructmaeError, match="exists"):
        run.save(tmp_path / "saved")
    loaded = structmae.load(tmp_path / "saved")
    assert torch.equal(loaded.embed(molecules), vectors)
    with pytest.raises(StructmaeError, match="object in memory"):
        loaded.embed()


def test_tasks_must_fit_the_labels(run, molecules, tiny):
    with pytest.raises(UsageError, match="node labels"):
        run.evaluate(task="graph_classification")
    with pytest.raises(UsageError, match="unknown task"):
        run.evaluate(task="forecast")
    unlabelled = Data(x=torch.rand(5, 34), edge_index=torch.tensor([[0], [1]]))
    with pytest.raises(StructmaeError, match="no labels"):
        run.evaluate(unlabelled)
    with pytest.raises(UsageError, match=r"encoder\.pool"):
        structmae.pretrain(molecules, settings={**tiny, "encoder.pool": "none"}, progress=False).evaluate()


def test_other_data_must_have_the_same_columns(run):
    with pytest.raises(StructmaeError, match="34"):
        run.embed(Data(x=torch.rand(5, 3), edge_index=torch.tensor([[0], [1]])))


def test_html_shows_the_facts(run):
    page = run._repr_html_()
    assert "graphmae" in page
    assert "pretrained" in page
    assert "<script" not in page
    assert "karate" in repr(run)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", "{", "not JSON"),
        ("config.json", '{"schema": 99}', "schema 99"),
        ("config.json", '{"schema": 2}', "this version reads 4"),
        ("config.json", '{"schema": 4}', "damaged"),
        ("model.safetensors", "xx", "cannot be read"),
        ("model.safetensors", None, "has not finished"),
    ],
)
def test_a_damaged_folder_is_named(run, tmp_path, file, content, words):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(StructmaeError, match=words):
        structmae.load(folder)
    with pytest.raises(StructmaeError, match="not a run"):
        structmae.load(tmp_path)


def test_weights_of_another_model_are_refused(run, tmp_path, molecules, tiny):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    other = structmae.pretrain(molecules, settings=tiny, out=tmp_path / "other", progress=False)
    shutil.copy(other.folder / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(StructmaeError, match="another model"):
        structmae.load(folder)


def test_one_hot_node_labels_are_read_as_the_categories_they_are(molecules, tiny):
    """TU sets hold categories here and one-hot rows in PyTorch Geometric: the encoder takes both."""
    run = structmae.pretrain(molecules, settings=tiny, progress=False)
    one_hot = torch.nn.functional.one_hot(molecules.x[:, 0].long(), 3).float()
    batch = torch.repeat_interleave(torch.arange(6), molecules.ptr.diff())
    with torch.no_grad():
        torch.testing.assert_close(run.encoder(one_hot, molecules.edge_index, batch=batch), run.embed())
    first = slice(0, int(molecules.ptr[1]))
    edges = molecules.edge_index[:, molecules.edge_index[0] < first.stop]
    torch.testing.assert_close(run.embed([Data(x=one_hot[first], edge_index=edges)] * 2)[0], run.embed()[0])


def test_edge_attributes_that_nobody_reads_may_be_there(karate, run):
    data = Data(x=karate.x, edge_index=karate.edge_index, edge_attr=torch.rand(karate.num_edges, 3))
    assert torch.equal(run.embed(data), run.embed())
