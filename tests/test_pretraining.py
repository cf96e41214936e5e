import json

import pytest
import torch
from torch_geometric.data import Data

import structmae
from structmae import train
from structmae.errors import StructmaeError, UsageError
from structmae.pretraining import new_folder


def start(folder, tiny, **changes):
    options = {"data": "karate", "settings": tiny, "out": folder, "progress": False, **changes}
    return structmae.pretrain(**options)


def test_an_existing_folder_is_refused_and_left_alone(tmp_path, tiny):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(StructmaeError, match="exists"):
        start(tmp_path, tiny)
    with pytest.raises(StructmaeError, match="not a run"):
        start(tmp_path, tiny, resume=True)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_resume_of_a_finished_run_gives_its_result(tmp_path, tiny):
    first = start(tmp_path / "r", tiny, evaluate=True)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "r").iterdir()}
    again = start(tmp_path / "r", tiny, evaluate=True, resume=True)
    assert again.result == first.result
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "r").iterdir()} == before
    assert torch.equal(again.embed(), first.embed())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": {"train.epochs": "4"}}, "train.epochs was 3, now 4"),
        ({"seed": 5}, "train.seed was 0, now 5"),
        ({"data": "citations"}, "data was karate, now citations"),
        ({"threads": 7}, "threads was"),
        ({"recipe": "mine.toml"}, "recipe"),
        ({"settings": {"size": "published"}}, "size was tiny, now published"),
    ],
)
def test_resume_names_and_refuses_what_changed(tmp_path, tiny, change, words):
    start(tmp_path / "r", tiny)
    with pytest.raises(StructmaeError, match=words):
        start(tmp_path / "r", tiny, resume=True, **{"settings": {}, **change})


def test_resume_takes_the_same_options_again_or_none(tmp_path, tiny, monkeypatch):
    whole = start(tmp_path / "whole", {**tiny, "train.save_every": 1})
    real, calls = train._epoch, iter(range(9))

    def dies(*args):
        if next(calls) == 2:
            raise RuntimeError("power cut")
        return real(*args)

    for name, options in (("a", {"settings": {**tiny, "train.save_every": 1}}), ("b", {"data": None, "settings": {}})):
        calls = iter(range(9))
        monkeypatch.setattr(train, "_epoch", dies)
        with pytest.raises(RuntimeError):
            start(tmp_path / name, {**tiny, "train.save_every": 1})
        assert (tmp_path / name / "resume.pt").exists()
        with pytest.raises(StructmaeError, match="has not finished"):
            structmae.load(tmp_path / name)
        monkeypatch.setattr(train, "_epoch", real)
        resumed = start(tmp_path / name, None, resume=True, **options)
        assert all(
            torch.equal(one, other)
            for one, other in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
        )
        assert not (tmp_path / name / "resume.pt").exists()


def test_resume_sees_that_the_data_has_changed(tmp_path, tiny):
    edges = tmp_path / "edges.csv"
    edges.write_text("src,dst\na,b\nb,c\nc,d\n")
    run = start(tmp_path / "r", tiny, data=str(edges))
    edges.write_text("src,dst\na,b\nb,c\nc,a\nc,d\n")
    with pytest.raises(StructmaeError, match=r"content of .* has changed"):
        start(tmp_path / "r", tiny, data=str(edges), resume=True)
    with pytest.raises(StructmaeError, match="has changed"):
        structmae.load(run.folder).embed()
    assert structmae.load(run.folder).embed(str(edges)).shape == (4, 16)


def test_resume_needs_a_folder_and_starts_where_there_is_none(tmp_path, tiny):
    with pytest.raises(UsageError, match="--out"):
        start(None, tiny, resume=True)
    notes = []
    start(tmp_path / "new", tiny, resume=True, note=notes.append)
    assert any("starting a new run" in note for note in notes)


def test_seed_is_short_for_train_seed(tiny):
    assert start(None, tiny, seed=7).recipe.train.seed == 7
    with pytest.raises(UsageError, match="disagree"):
        start(None, {**tiny, "train.seed": 3}, seed=7)


def test_nothing_is_written_when_an_input_is_bad(tmp_path, tiny):
    data = Data(x=torch.tensor([[1.0], [float("nan")]]), edge_index=torch.tensor([[0], [1]]))
    for bad in ({"data": data}, {"settings": {"mask.ratio": 2}}, {"recipe": "grafmae"}, {"data": "nosuchset"}):
        with pytest.raises(StructmaeError):
            start(tmp_path / "deep" / "r", tiny, **bad)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_leaves_nothing(tmp_path, tiny):
    (tmp_path / "file").write_text("")
    with pytest.raises(StructmaeError, match="cannot be written"):
        start(tmp_path / "file" / "r", tiny)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_labels_trains_and_says_why_there_is_no_evaluation(tmp_path, tiny):
    data = Data(x=torch.rand(8, 3), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]))
    run = start(tmp_path / "r", tiny, data=data, evaluate=True)
    assert run.result["evaluation"] is None
    assert "no labels" in run.result["evaluation_note"]
    assert json.loads((tmp_path / "r" / "result.json").read_text()) == run.result


def test_too_few_labels_train_and_say_why_there_is_no_evaluation(tmp_path, tiny):
    data = Data(x=torch.rand(8, 3), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]), y=torch.zeros(8, dtype=torch.long))
    run = start(tmp_path / "r", tiny, data=data, evaluate=True)
    assert run.result["evaluation"] is None
    assert "one class" in run.result["evaluation_note"]
    with pytest.raises(UsageError, match=r"encoder\.pool"):
        start(tmp_path / "s", {**tiny, "encoder.pool": "sum"}, evaluate=True)
    assert not (tmp_path / "s").exists()


def test_resume_knows_a_recipe_by_its_name_or_file(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(structmae.resolve("graphmae", {"size": "tiny", **tiny}).to_toml())
    start("r", {}, recipe="mine.toml")
    assert start("r", {}, recipe=tmp_path / "mine.toml", resume=True).result
    with pytest.raises(StructmaeError, match="recipe was"):
        start("r", {}, recipe="graphmae", resume=True)
    start("s", tiny, recipe="GraphMAE")
    assert start("s", tiny, recipe="graphmae", resume=True).result
    (tmp_path / "mine.toml").write_text(structmae.resolve("graphmae", {**tiny, "train.epochs": 4}).to_toml())
    with pytest.raises(StructmaeError, match=r"train\.epochs was 3, now 4"):
        start("r", {}, recipe="mine.toml", resume=True)


def test_a_new_folder_never_is_an_old_one(tmp_path):
    assert new_folder("cora", "graphmae", 0, tmp_path).name == "cora-graphmae-0"
    (tmp_path / "cora-graphmae-0").mkdir()
    (tmp_path / "cora-graphmae-0-2").mkdir()
    assert new_folder("cora", "graphmae", 0, tmp_path).name == "cora-graphmae-0-3"


def test_threads_are_put_back(tiny):
    before = torch.get_num_threads()
    run = start(None, tiny, threads=before + 1)
    assert run.config["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_a_part_of_ones_own_trains_and_loads(tmp_path, tiny, monkeypatch):
    from structmae import registry

    for kind in ("loss", "layer"):
        monkeypatch.setitem(registry._PARTS, kind, dict(registry._PARTS[kind]))

    @structmae.register("loss", "mean_absolute")
    def mean_absolute(prediction, target, gamma):
        return (prediction - target).abs().mean(-1)

    class Mean(torch.nn.Module):
        def __init__(self, width_in, width_out, **options):
            super().__init__()
            self.dense = torch.nn.Linear(width_in, width_out)

        def forward(self, h, relation):
            source, target = relation.edge_index
            return self.dense(torch.zeros_like(h).index_add(0, target, h[source]))

    structmae.register("layer", "plain_sum")(Mean)
    settings = {**tiny, "heads.features.loss": "mean_absolute", "encoder.layer": "plain_sum"}
    run = start(tmp_path / "r", settings)
    assert torch.equal(structmae.load(run.folder).embed(), run.embed())
    monkeypatch.undo()
    with pytest.raises(UsageError, match="--import"):
        structmae.load(run.folder)
