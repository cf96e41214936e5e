"""What holds on a GPU: the sums of the CPU, every precision, and a run that goes on. Skipped where there is none."""

import math

import pytest
import torch

import structmae
from structmae.train import Interrupted

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

GRAPHS = ("graphmae", "graphmae2", "maskgae_edge", "maskgae_path", "gmae", "duo", "structguided")
SERIES = ("patchtst", "tsformer", "spans", "spectrogram")
SMALL = {
    "train.epochs": 2, "encoder.hidden": 16, "encoder.heads": 2, "encoder.dropout": 0.0, "train.precision": "fp32",
}  # fmt: skip
STILL = {"encoder.attention_dropout": 0.0, "train.lr": 1e-4}  # Adam makes whole steps of rounding


def pretrain(recipe, device, **settings):
    data = "karate" if recipe in GRAPHS else "lorenz96"
    more = {} if recipe in GRAPHS else {"train.items": 16, "encoder.layers": 1}
    asked = {**SMALL, **STILL, **more, **settings}
    return structmae.pretrain(data, recipe, settings=asked, device=device, progress=False)


@pytest.mark.parametrize("recipe", GRAPHS + SERIES)
def test_without_dropout_a_gpu_learns_what_the_cpu_learns(recipe):
    cpu, gpu = pretrain(recipe, "cpu"), pretrain(recipe, "cuda")
    assert gpu.result["device"].startswith("cuda")
    assert math.isclose(cpu.result["loss_last"], gpu.result["loss_last"], rel_tol=1e-3)
    torch.testing.assert_close(cpu.embed(), gpu.embed(), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("precision", ["medium", "bf16"])
@pytest.mark.parametrize("recipe", GRAPHS + SERIES)
def test_every_precision_runs(recipe, precision):
    run = pretrain(recipe, "cuda", **{"train.precision": precision, "encoder.dropout": 0.2})
    assert math.isfinite(run.result["loss_last"])
    assert run.embed().isfinite().all()


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    whole = structmae.pretrain("karate", settings=SMALL, device="cuda", out=tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        calls = []

        def stop(*args):
            calls.append(args)
            if len(calls) == 2:
                raise Interrupted("stopped")
            return epoch(*args)

        from structmae import train

        epoch = train._epoch
        patch.setattr(train, "_epoch", stop)
        with pytest.raises(Interrupted):
            structmae.pretrain(
                "karate", settings={**SMALL, "train.save_every": 1}, device="cuda", out=tmp_path / "cut", progress=False
            )
    again = structmae.pretrain("karate", out=tmp_path / "cut", resume=True, device="cuda", progress=False)
    # Sums of CUDA's scatter come in any order: the same to rounding, not to the bit.
    torch.testing.assert_close(whole.embed(), again.embed(), rtol=1e-3, atol=1e-4)
