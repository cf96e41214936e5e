import pytest

from structmae import registry
from structmae.errors import UsageError


def test_every_built_in_part_can_be_had():
    for kind in ("recipe", "layer", "loss", "task"):
        for name in registry.names(kind):
            assert registry.get(kind, name) is registry.get(kind, name)


def test_register_adds_once(monkeypatch):
    monkeypatch.setitem(registry._PARTS, "loss", dict(registry._PARTS["loss"]))

    @registry.register("loss", "mine")
    def mine(prediction, target, gamma):
        return (prediction - target).abs().mean(-1)

    assert registry.get("loss", "mine") is mine
    with pytest.raises(UsageError, match="registered already"):
        registry.register("loss", "sce")(mine)


def test_unknown_names_have_near_misses():
    with pytest.raises(UsageError, match="did you mean gcn"):
        registry.get("layer", "gcnn")
    with pytest.raises(UsageError, match="unknown kind"):
        registry.get("lawyer", "gcn")
