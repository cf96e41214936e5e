"""What products are computed in: the check, what follows from it, and where bfloat16 begins and ends."""

import json

import pytest
import torch
import torch.nn.functional as F

import structmae
from structmae import cli, precision
from structmae.errors import UsageError
from structmae.model import Losses, Trainable
from structmae.precision import LEAST, at_fp32, autocast, check, largest, settle
from structmae.run import Run
from structmae.tokens.graph import GraphSource, NodeTokenizer
from structmae.train import fit, suited

CPU = torch.device("cpu")
NAMES = ("fp32", "medium", "bf16")


def errors(**found):
    """A machine on which products have these errors."""
    return lambda name, device="cpu": {"fp32": 3e-7, "medium": 5e-7, "bf16": 4e-3, **found}[name]


def pretrain(**changes):
    settings = {"train.epochs": 3, "encoder.hidden": 16, "encoder.heads": 2, **changes.pop("settings", {})}
    return structmae.pretrain("karate", settings=settings, progress=False, **changes)


@pytest.fixture
def everything_gains(monkeypatch):
    """Products of any size are as large as medium needs."""
    monkeypatch.setattr(precision, "LEAST", 0)


def test_the_error_of_a_product_is_what_its_format_gives():
    assert 0 < check("fp32") < 1e-6
    assert 1e-3 < check("bf16") < 1e-2
    assert 0 < check("medium") <= check("bf16")
    assert all(check(name) == check.__wrapped__(name) for name in NAMES)


def test_the_check_leaves_precision_autocast_and_generators_alone():
    torch.set_float32_matmul_precision("high")
    before = torch.get_rng_state()
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = check.__wrapped__("fp32")
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found == check("fp32")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("wanted", "error", "work", "used"),
    [
        ("fp32", 3e-7, LEAST, "fp32"),
        ("medium", 5e-7, LEAST, "medium"),
        ("medium", 9e-6, LEAST, "medium"),
        ("medium", 2e-5, LEAST, "fp32"),
        ("medium", 4e-3, LEAST, "fp32"),
        ("medium", 5e-7, LEAST - 1, "fp32"),
        ("bf16", 4e-3, 0, "bf16"),
    ],
)
def test_medium_is_used_where_it_is_float32_and_gains(monkeypatch, wanted, error, work, used):
    monkeypatch.setattr(precision, "check", errors(**{wanted: error} if wanted != "fp32" else {}))
    found = settle(wanted, CPU, work)
    assert found.name == used
    assert found.remark.startswith(f"precision: {used}")
    measured = wanted != "fp32" and not (wanted == "medium" and work < LEAST)
    assert (f"{error:.1e}" in found.remark and "fp32 3.0e-07" in found.remark) == measured


@pytest.mark.parametrize("name", NAMES)
def test_a_precision_ends_even_when_what_it_is_for_fails(name):
    before = torch.get_float32_matmul_precision()

    def fails():
        with precision.precision(name):
            assert torch.get_float32_matmul_precision() == ("medium" if name == "medium" else "highest")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("name", ["fp32", "medium"])
def test_what_is_computed_at_fp32_is_so_forward_and_backward(name):
    """The bits of fp32, gradients too, of those that are asked for."""
    seen = []

    class Watch(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            seen.append(torch.get_float32_matmul_precision())
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            seen.append(torch.get_float32_matmul_precision())
            return grad

    def attend(q, k, v):
        return Watch.apply(F.scaled_dot_product_attention(q, k, v))

    inputs = [torch.randn(2, 2, 40, 8, requires_grad=number != 1) for number in range(3)]
    weight = torch.randn(2, 2, 40, 8)
    expected = attend(*inputs)
    gradients = torch.autograd.grad(expected, inputs[::2], weight)
    with precision.precision(name):
        out = at_fp32(attend, *inputs)
        assert torch.equal(out, expected)
        for _ in range(2):
            found = torch.autograd.grad(out, inputs[::2], weight, retain_graph=True)
            assert all(torch.equal(one, other) for one, other in zip(found, gradients, strict=True))
        with torch.no_grad():
            assert torch.equal(at_fp32(attend, *inputs), expected)
    assert seen == ["highest"] * len(seen)


@pytest.mark.parametrize("everywhere", ["highest", "high", "medium"])
@pytest.mark.parametrize("mine", [("ieee", "tf32"), ("bf16", "none"), None])
def test_what_a_person_has_set_is_put_back(everywhere, mine):
    """By backend as well, where torch itself can no longer say which it is of all."""
    backends = torch.backends.mkldnn.matmul, torch.backends.cuda.matmul
    start = [backend.fp32_precision for backend in backends]
    try:
        torch.set_float32_matmul_precision(everywhere)
        for backend, value in zip(backends, mine or (), strict=False):
            backend.fp32_precision = value
        before = [backend.fp32_precision for backend in backends]
        with precision.precision("medium"):
            assert torch.get_float32_matmul_precision() == "medium"
        assert [backend.fp32_precision for backend in backends] == before
        if mine is None:
            assert torch.get_float32_matmul_precision() == everywhere
    finally:
        torch.set_float32_matmul_precision("highest")
        for backend, value in zip(backends, start, strict=True):
            backend.fp32_precision = value


def test_bfloat16_is_of_products_alone():
    x = torch.rand(4, 4, requires_grad=True)
    for name in NAMES:
        with autocast(name, CPU):
            product = x @ x
            assert product.dtype == (torch.bfloat16 if name == "bf16" else torch.float32)
            assert (product - x).dtype == torch.float32
        product.sum().backward()
        assert x.grad.dtype == torch.float32


def test_the_largest_product_is_of_all_tokens_and_the_largest_matrix():
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 7))
    assert largest(model, 10) == 350
    assert largest(torch.nn.BatchNorm1d(5), 10) == 0


class Watched(Trainable):
    """A linear model that notes what it computes in."""

    def __init__(self):
        super().__init__()
        self.out, self.seen = torch.nn.Linear(16, 1), []

    def forward(self, batch):
        values = next(iter(batch.tokens.values())).values
        found = self.out(values[:, :16])
        self.seen.append((found.dtype, torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")))
        loss = (found - 1).square().mean()
        return Losses(loss, {"task": loss})


def ready(graphs, **changes):
    recipe = structmae.resolve("graphmae", {"train.epochs": 2, "encoder.hidden": 8, "encoder.heads": 2, **changes})
    tokenizer = NodeTokenizer.fit(graphs, recipe)
    return recipe, tokenizer, GraphSource(graphs, tokenizer)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fp32", (torch.float32, "highest", False)),
        ("medium", (torch.float32, "medium", False)),
        ("bf16", (torch.bfloat16, "highest", True)),
    ],
)
def test_steps_are_computed_as_named_and_scores_in_float32(karate, name, expected, everything_gains, monkeypatch):
    monkeypatch.setattr(precision, "check", errors())
    recipe, _, source = ready(karate, **{"train.precision": name})
    model, scored = Watched(), []

    def validate():
        scored.append((torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")))
        return 1.0

    fit(model, source, recipe, device=CPU, progress=False, validate=validate)
    assert model.seen == [expected] * 2
    assert scored == [(expected[1], False)] * 3
    assert all(weight.dtype == torch.float32 for weight in model.parameters())
    assert (torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")) == ("highest", False)


def test_what_was_settled_is_taken_as_it_is(karate):
    recipe, _, source = ready(karate)
    model = Watched()
    fit(model, source, recipe, device=CPU, progress=False, precision="bf16")
    assert model.seen[0][0] == torch.bfloat16


def test_a_step_is_suited_by_its_tokens(karate, molecules, monkeypatch):
    sizes = []
    monkeypatch.setattr(precision, "settle", lambda *asked: sizes.append(asked[2]) or settle(*asked))
    for graphs, rows in ((karate, 34), (molecules, 4 + 5 + 6 + 7)):
        _, _, source = ready(graphs)
        suited("medium", Watched(), source, 4)
        assert sizes.pop() == 16 * rows


@pytest.mark.parametrize("name", NAMES)
def test_training_at_any_precision_is_near_and_resumes_to_the_same_bits(
    tmp_path, name, monkeypatch, everything_gains, karate
):
    from structmae import train

    exact = pretrain(precision="fp32")
    whole = pretrain(precision=name, out=tmp_path / "whole", settings={"train.save_every": 1})
    assert whole.result["loss_last"] == pytest.approx(exact.result["loss_last"], rel=3e-2)
    real, calls = train._epoch, iter(range(9))

    def dies(*args):
        if next(calls) == 2:
            raise RuntimeError("power cut")
        return real(*args)

    monkeypatch.setattr(train, "_epoch", dies)
    with pytest.raises(RuntimeError, match="power cut"):
        pretrain(precision=name, out=tmp_path / "cut", settings={"train.save_every": 1})
    monkeypatch.setattr(train, "_epoch", real)
    resumed = structmae.pretrain(out=tmp_path / "cut", resume=True, progress=False)
    state = resumed.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in whole.model.state_dict().items())
    config = json.loads((tmp_path / "cut" / "config.json").read_text())
    assert whole.result["precision"] == resumed.result["precision"] == config["precision"]


def test_a_run_says_what_it_used_and_why(tmp_path):
    notes = []
    run = pretrain(out=tmp_path / "r", note=notes.append)
    assert [note for note in notes if note.startswith("precision: fp32 (")]  # karate is small
    assert (run.recipe.train.precision, run.config["precision"], run.result["precision"]) == ("medium", "fp32", "fp32")
    assert json.loads((tmp_path / "r" / "config.json").read_text())["precision"] == "fp32"
    notes.clear()
    assert pretrain(precision="bf16", note=notes.append).config["precision"] == "bf16"
    assert [note for note in notes if note.startswith("precision: bf16 (error of a product ")]


def test_a_run_goes_on_where_medium_is_no_float32(tmp_path, monkeypatch, everything_gains):
    """And its encoder is read there, as exactly as the machine can."""
    monkeypatch.setattr(precision, "check", errors())
    run = pretrain(out=tmp_path / "r")
    assert run.config["precision"] == run.precision.name == "medium"
    monkeypatch.setattr(precision, "check", errors(medium=4e-3))
    again = structmae.load(tmp_path / "r")
    assert again.precision.name == "fp32"
    (tmp_path / "r" / "result.json").unlink()
    assert structmae.pretrain(out=tmp_path / "r", resume=True, progress=False).result["precision"] == "fp32"


def test_a_run_from_before_is_read_as_it_was():
    run = pretrain()
    del run.config["precision"]
    assert run.precision.name == "fp32"


def test_evaluation_and_embedding_are_in_float32(karate, monkeypatch):
    """Of a run in bf16 the same vectors as of one in fp32 with its weights; of one at medium by the same library."""
    run = pretrain(precision="bf16")
    exact = Run(run.recipe, run.model, {**run.config, "precision": "fp32"}, karate)
    assert torch.equal(run.embed(), exact.embed())
    monkeypatch.setattr(precision, "check", errors())
    run.config["precision"] = "medium"
    seen = []
    real = type(run.encoder).represent

    def represent(self, tokens):
        seen.append((torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")))
        return real(self, tokens)

    monkeypatch.setattr(type(run.encoder), "represent", represent)
    run.embed()
    run.evaluate()
    assert set(seen) == {("medium", False)}
    assert torch.get_float32_matmul_precision() == "highest"


def test_fine_tuning_has_the_precision_of_the_run_or_its_own(tmp_path):
    settings = {"finetune.head_epochs": 1, "finetune.epochs": 1}
    base = pretrain(precision="bf16")
    first = structmae.finetune(base, settings=settings, progress=False, out=tmp_path / "r")
    assert first.config["precision"] == first.result["precision"] == "bf16"
    again = structmae.finetune(base, settings=settings, progress=False, out=tmp_path / "r", resume=True)
    assert again.precision.name == "bf16"
    assert structmae.load(tmp_path / "r").predict().equals(first.predict())
    notes = []
    other = structmae.finetune(base, settings=settings, precision="fp32", progress=False, note=notes.append)
    assert (other.recipe.train.precision, other.result["precision"]) == ("fp32", "fp32")
    assert "precision: fp32" in notes


def test_precision_is_short_for_train_precision(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"precision bf16 and train\.precision=fp32 disagree"):
        pretrain(precision="bf16", settings={"train.precision": "fp32"})
    with pytest.raises(UsageError, match=r"train\.precision='fp16' is not a choice"):
        pretrain(precision="fp16")
    fast = ["--set", "train.epochs=1", "--set", "encoder.hidden=8", "--set", "encoder.heads=2", "--no-eval", "--json"]
    assert cli.main(["pretrain", "--data", "karate", "--precision", "bf16", "--out", "r", *fast]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["precision"] == "bf16"
    assert "precision: bf16 (error of a product" in err
    short = ["--set", "finetune.head_epochs=0", "--set", "finetune.epochs=1", "--no-eval", "--json"]
    assert cli.main(["finetune", "r", "--precision", "fp32", *short]) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "fp32"
    assert cli.main(["finetune", "r", "--precision", "fp32", "--set", "train.precision=bf16", *short]) == 2
    assert "disagree" in capsys.readouterr().err


@pytest.mark.parametrize(("data", "recipe"), [("karate", "graphmae"), ("lorenz96", "tsformer")])
def test_a_run_in_bfloat16_learns(data, recipe):
    small = {"train.epochs": 2, "train.items": 64, "encoder.hidden": 16, "encoder.heads": 2, "train.lr": 1e-2}
    run = structmae.pretrain(data, recipe, settings=small, precision="bf16", progress=False)
    assert run.result["loss_last"] < run.result["loss_first"]
    assert run.embed().dtype == torch.float32


def test_a_second_backward_of_what_was_computed_at_fp32_is_refused():
    x = torch.randn(4, 4, requires_grad=True)
    with precision.precision("medium"):
        out = at_fp32(lambda x: x @ x, x)
        out.sum().backward()
        with pytest.raises(RuntimeError, match="second time"):
            out.sum().backward()
