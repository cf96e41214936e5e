import json

import pytest

import structmae
from structmae.data import catalog

MODULES = ("systems", "systems_rows", "systems_checks", "systems_table")
TINY = {
    "train.epochs": 2, "train.warmup": 0, "encoder.layers": 1, "encoder.hidden": 8, "encoder.heads": 2,
    "encoder.feed_forward": 8,
}  # fmt: skip
PROBE = {"probe.epochs": 2, "probe.subsets": 1}


@pytest.fixture
def systems(script, monkeypatch):
    """The module of two small systems: images, and a graph that is bundled."""
    import sys

    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    made = script("systems")
    head = {"heads.pixels.hidden": 8, "heads.pixels.heads": 2}
    small = (
        made.System("mae", made.Case("mae", "digits-images", {**TINY, **head, **PROBE}), note="Small."),
        made.System(
            "graphmae2", made.Case("graphmae2", "karate", {**TINY, "probe.epochs": 2}),
            {"graphmae": made.Case("graphmae", "karate", {**TINY, "probe.epochs": 2})},
        ),
    )  # fmt: skip
    monkeypatch.setattr(made, "SYSTEMS", small)
    yield made
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def run(systems, script, tmp_path, capsys):
    """Runs the script in this process; gives exit code, summary and what stderr says."""
    main = script("run").main

    def call(*words):
        code = main(["systems", "--threads", "1", "--results", str(tmp_path / "out"), "--json", *words])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return call


@pytest.fixture
def render(systems, script, tmp_path, capsys):
    main = script("tables").main

    def call(form="md"):
        code = main(["systems", "--format", form, "--results", str(tmp_path / "out")])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def lines(folder):
    return [json.loads(text) for text in (folder / "out" / "systems.jsonl").read_text().splitlines()]


def grid(markdown):
    return [row[2:-2].split(" | ") for row in markdown.splitlines() if row.startswith("|")][2:]


def test_a_line_a_system_and_none_twice(run, render, tmp_path, monkeypatch):
    code, summary, err = run()
    assert code == 0, err
    assert (summary["ran"], summary["there"], summary["skipped"]) == (2, 0, [])
    mae, graph = lines(tmp_path)
    assert (mae["table"], mae["system"], mae["data"], mae["recipe"], mae["seed"]) == (
        "systems", "mae", "digits-images", "mae", 0,
    )  # fmt: skip
    assert {**TINY, **PROBE}.items() <= mae["settings"].items()
    assert set(graph["runs"]) == {"own", "graphmae"}
    for line in (mae, graph):
        assert line["seconds"] > 0
        assert line["wall"] > line["seconds"]
        assert line["peak_memory"] > 0
        assert (line["device"], line["threads"], line["epochs"]) == ("cpu", 1, 2)
        assert {"structmae", "torch"} <= set(line["versions"])
        for each in line["checks"]:
            assert set(each) == {"what", "value", "must", "bound", "holds"}
    holds = [each["holds"] for each in mae["checks"]]
    assert holds == [True, False, False, None, None, None]  # two epochs of 8 numbers rebuild nothing
    assert [each["holds"] for each in graph["checks"][:2]] == [True, True]
    assert [each["what"] for each in summary["failing"]] == [each["what"] for each in mae["checks"][1:3]]
    assert err.count("does not hold: mae on digits-images, seed 0") == 2
    assert [entry.name for entry in (tmp_path / "out" / "runs").iterdir()] == ["systems.lock"]

    rows = grid(render()[1])
    assert [row[0] for row in rows if row[0]] == ["mae, digits-images", "graphmae2, karate"]
    assert [row[4] for row in rows[:6]] == ["yes", "**no**", "**no**", "-", "-", "-"]
    assert rows[0][2:4] == ["yes", "yes"]
    assert float(rows[1][2]) == pytest.approx(mae["checks"][1]["value"], abs=1e-3)
    assert rows[1][3] == "<= 0.700"

    monkeypatch.setattr(structmae, "pretrain", lambda *args, **more: pytest.fail("a finished row ran again"))
    before = (tmp_path / "out" / "systems.jsonl").read_bytes()
    code, again, _ = run()
    assert (code, again["ran"], again["there"], again["failing"]) == (0, 0, 2, summary["failing"])
    assert (tmp_path / "out" / "systems.jsonl").read_bytes() == before


def test_the_values_are_the_packages_own(run, systems, tmp_path):
    run("--only", "mae")
    settings = dict(systems.SYSTEMS[0].own.settings)
    own = structmae.pretrain("digits-images", "mae", settings=settings, seed=0, progress=False, threads=1)
    scored = own.evaluate(task="image_classification")
    found = {each["what"]: each["value"] for each in lines(tmp_path)[0]["checks"]}
    assert found["probe, pretrained"] == pytest.approx(scored["pretrained"])
    ratio = own.evaluate(task="reconstruction")["rows"][0]["ratio"]
    assert found["masked squared error over that of the mean of each place"] == pytest.approx(ratio, rel=1e-4)


def test_a_killed_row_goes_on(run, systems, script, tmp_path, monkeypatch):
    rows = script("systems_rows")
    made = rows.CHECKS["graphmae2"]

    def dies(runs):
        raise RuntimeError("power cut")

    monkeypatch.setitem(rows.CHECKS, "graphmae2", dies)
    with pytest.raises(RuntimeError, match="power cut"):
        run("--only", "graphmae2")
    folders = sorted(path for path in (tmp_path / "out" / "runs").iterdir() if path.is_dir())
    assert len(folders) == 2
    monkeypatch.setattr("structmae.pretraining.fit", lambda *args, **more: pytest.fail("a finished run ran again"))
    monkeypatch.setitem(rows.CHECKS, "graphmae2", lambda runs: seen.append(runs) or made(runs))
    seen = []
    assert run("--only", "graphmae2")[0] == 0
    assert sorted(each.folder for each in seen[0].values()) == folders
    assert all(each.result["epochs"] == 2 for each in seen[0].values())
    assert not any(path.exists() for path in folders)


def test_settings_and_seeds_are_rows_of_their_own(run, render, tmp_path):
    assert run("--only", "graphmae2")[1]["ran"] == 1
    assert run("--only", "graphmae2", "--set", "train.epochs=2")[1]["there"] == 1  # changes nothing
    assert run("--only", "graphmae2/karate", "--seeds", "2", "--set", "train.epochs=1")[1]["ran"] == 2
    assert [(line["seed"], line["settings"]["train.epochs"]) for line in lines(tmp_path)] == [(0, 2), (0, 1), (1, 1)]
    rows = grid(render()[1])
    assert [row[0] for row in rows if row[0]] == [
        "mae, digits-images", "graphmae2, karate", "graphmae2, karate, train.epochs=1",
    ]  # fmt: skip
    assert rows[0][1:] == ["not measured", "-", "-", "-", "-"]


def test_data_that_is_not_here_is_said_and_leaves_the_rest(run, render, systems, monkeypatch):
    here = catalog.where
    monkeypatch.setattr(catalog, "where", lambda name: None if name == "karate" else here(name))
    code, summary, err = run()
    assert (code, summary["ran"]) == (1, 1)
    assert [each["system"] for each in summary["skipped"]] == ["graphmae2"]
    assert "skipped graphmae2 on karate, seed 0: data not here" in err
    assert grid(render()[1])[-1] == ["graphmae2, karate", "data not here", "-", "-", "-", "-"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "mea"], "did you mean mae?"),
        (["--set", "train.seed=3"], "give --seeds N"),
        (["--set", "train.epoch=3"], "unknown key"),
    ],
)
def test_wrong_options_are_one_line(run, words, said):
    code, out, err = run(*words)
    assert (code, out) == (2, None)
    assert said in err
    assert err.count("\n") == 1


def test_a_line_of_something_else_is_refused(run, render, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "systems.jsonl").write_text('{"table": "other"}\n')
    for call in (run, render):
        code, _, err = call()
        assert code == 1
        assert "line 1 is no result of systems" in err


def test_csv_and_other_formats(render):
    code, out, err = render("csv")
    assert code == 0
    assert out.splitlines()[0] == "system,what must hold,value,bound,holds,seconds"
    assert "Nothing is measured yet: python benchmarks/run.py systems" in err
    assert render("latex")[0] == 2


def test_a_bound_holds_for_every_seed_or_not_at_all(render, systems, tmp_path):
    def line(seed, value):
        system = systems.SYSTEMS[0]
        check = {"what": "more", "value": value, "must": ">", "bound": 0.5, "holds": value > 0.5}
        row = systems.Row(system, seed, {}, {})
        made = {"seconds": 2.0, "wall": 3.0, "versions": {}, "device": "cpu", "threads": 1, "revision": None}
        return {**row.about(), "runs": row.runs(), "checks": [check], **made}

    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "systems.jsonl"
    path.write_text("".join(json.dumps(line(seed, value)) + "\n" for seed, value in enumerate((0.6, 0.4, 0.8))))
    assert grid(render()[1])[0][1:] == ["more", "0.600 ± 0.200", "> 0.500", "**no** (2 of 3 seeds do)", "2 (3)"]


def test_what_is_no_number_holds_nothing(script, systems):
    check = script("systems_rows").check
    assert check("this", float("nan"), "<=", 1)["holds"] is False
    assert check("this", 1.0, "<", float("nan"))["holds"] is False
    assert check("this", 1.0, "<=", 1)["holds"] is True


@pytest.mark.parametrize("name", ["mae", "igpt"])
def test_mechanisms_that_are_broken_are_found(script, systems, monkeypatch, name):
    """An encoder that reads what is hidden; a causal one that sees all."""
    checks = script("systems_checks")
    head = {"heads.pixels.hidden": 8, "heads.pixels.heads": 2} if name == "mae" else {"tokens.palette": 4}
    made = structmae.pretrain("digits-images", name, settings={**TINY, **head}, progress=False)
    look = {"mae": checks.hidden_unread, "igpt": checks.causal}[name]
    assert look(made)
    if name == "mae":
        read = type(made.encoder).read

        def leaks(self, tokens, *arguments):
            encoded = read(self, tokens, *arguments)
            encoded.latent["patch"].add_(tokens["patch"].values.mean())
            return encoded

        monkeypatch.setattr(type(made.encoder), "read", leaks)
    else:
        made.encoder.attention = "full"
    assert not look(made)
