"""Images as the model sees them: three rows of each map, what is hidden grey."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from structmae.errors import UsageError
from structmae.report.base import PANELS, Axes, Look, Scene, array, caveat, chosen, look, teller, teller_of_all, values

if TYPE_CHECKING:
    from structmae.run import Run

SHOWN = 6  # images
COVER, MISSING = "#a8c4d8", "#ffffff"  # hidden, not observed: grey levels are what images have


def scene(run: "Run", images: Any, source: Any, start: int | None, channel: int | str) -> Scene:
    """Six images from number `start` on; without it test images at even distances."""
    tokenizer, rows = source.tokenizer, _rows(images, start)
    seen = look(run, source.at(rows), "patch", source.device)
    heads = [teller(run, seen.said, kind) for kind in tokenizer.kinds]
    known = next((head for head in heads if head is not None), None) or teller_of_all(run, seen.said)
    pictures, caption = (_colours if tokenizer.vocabulary else _values)(seen, heads, tokenizer, images.x[rows])
    title = f"{images.name}: {caption}{caveat(known, 'patch')}"
    second = "seen at the\nmiddle pixel" if seen.in_order else "what the\nencoder sees"
    several = len(images.maps) > 1
    labels = [
        row for name, _ in images.maps for row in (f"{name},\n{PANELS[0]}" if several else PANELS[0], second, PANELS[2])
    ]
    wide = 1.3 if len(labels) == 3 else 0.95
    high = wide * tokenizer.size[0] / tokenizer.size[1]

    def draw(axes: Axes) -> None:
        for ax, picture, label in zip(axes, pictures, labels, strict=True):
            _draw(ax, picture, label)
        axes[0].set_title(title, loc="left", fontsize=10, parse_math=False)
        step = pictures[0].shape[1] / len(rows)
        axes[-1].set_xticks([(place + 0.5) * step - 0.5 for place in range(len(rows))], rows.tolist(), fontsize=8)
        axes[-1].set_xlabel("image", fontsize=9)

    size = (len(rows) * wide + 1.6, len(labels) * (high + 0.06) + 0.9)
    needs = f"this run has {len(labels)} rows of images"
    return Scene(len(labels), 1, size, needs, draw)


def _values(seen: Look, heads: list[Any], tokenizer: Any, x: Tensor) -> tuple[list[NDArray[np.float32]], str]:
    """Rows of patches, map by map, and what the title says."""
    part, (shown, _, covered) = seen.part, seen.content()
    asked = torch.zeros(len(part), dtype=torch.bool, device=covered.device).index_fill(0, seen.asked, True)
    rebuilt, told = part.values.clone(), torch.zeros_like(asked)
    for number, head in enumerate(heads):
        if head is not None:
            mine = asked if part.kind is None else asked & (part.kind == number)
            observed = None if part.observed is None else part.observed[mine]
            rebuilt[mine] = values(head, seen.said[head.name][mine], part.values[mine], observed)
            told |= mine
    there = torch.ones_like(rebuilt, dtype=torch.bool) if part.observed is None else part.observed
    error = (rebuilt - part.values).square()[there & told[:, None]].mean()
    raw = {"input": x, "seen": _raw(tokenizer, shown), "rebuilt": _raw(tokenizer, rebuilt)}
    cover = {"seen": _pixels(tokenizer, covered), "rebuilt": _pixels(tokenizer, asked & ~told)}
    missing = x.isnan()
    raw["seen"][missing & ~cover["seen"]] = float("nan")
    raw["rebuilt"][missing & ~_pixels(tokenizer, told)] = float("nan")
    pictures, first = [], 0
    for _, channels in tokenizer.maps:
        span = slice(first, first + channels)
        first += channels
        pictures += _triple(
            {key: part[:, span] for key, part in raw.items()}, {k: c[:, span] for k, c in cover.items()}
        )
    return pictures, f"{_share(seen)} hidden, mse of the hidden {float(error):.3g} (scaled)"


def _colours(seen: Look, heads: list[Any], tokenizer: Any, x: Tensor) -> tuple[list[NDArray[np.float32]], str]:
    """Rows of colours of a palette, and what the title says."""
    part, (_, ids, covered) = seen.part, seen.content(tokenizer.vocabulary)
    assert part.ids is not None
    assert ids is not None
    head = heads[0]
    told = torch.zeros(len(part), dtype=torch.bool, device=covered.device).index_fill(0, seen.asked, True)
    if part.valid is not None:
        told &= part.valid
    said = seen.said[head.name].argmax(1)
    right = f"{float((said == part.ids)[told].float().mean()):.0%}"
    colours = {"input": part.ids, "seen": ids, "rebuilt": said.where(told, part.ids)}
    raw = {key: _raw(tokenizer, tokenizer.decode(which)) for key, which in colours.items()}
    pixels = _pixels(tokenizer, told)
    cover = {"seen": _pixels(tokenizer, covered), "rebuilt": torch.zeros_like(pixels)}
    if part.valid is not None:
        for key in raw:
            raw[key][_pixels(tokenizer, ~part.valid)] = float("nan")
    caption = f"{_share(seen)} hidden, {right} of the hidden colours right"
    if seen.in_order:
        caption = f"{right} right; rebuilt is each pixel's most likely colour after the true ones before it"
    return _triple(raw, cover), f"{tokenizer.vocabulary} colours, {caption}"


def _raw(tokenizer: Any, content: Tensor) -> Tensor:
    """Token values, or colours, as images of raw values."""
    with torch.no_grad():
        whole: Tensor = tokenizer.unnormalize(tokenizer.join(content)).cpu()
    return whole


def _pixels(tokenizer: Any, tokens: Tensor) -> Tensor:
    """Of some tokens, their pixels (B, C, H, W)."""
    width = tokenizer.most * tokenizer.patch**2
    whole: Tensor = tokenizer.join(tokens[:, None].float().expand(-1, width)).cpu() > 0.5
    return whole


def _share(seen: Look) -> str:
    valid = len(seen.part) if seen.part.valid is None else int(seen.part.valid.sum())
    return f"{len(seen.plan.hidden) / valid:.0%}"


def _triple(raw: dict[str, Tensor], cover: dict[str, Tensor]) -> list[NDArray[np.float32]]:
    """Input, seen and rebuilt images of one map, each (H, W + gaps, 4), all in one scale."""
    known = raw["input"][~raw["input"].isnan()]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    if raw["input"].shape[1] == 3 and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return [_row(array(raw[key]), cover.get(key), low, high) for key in ("input", "seen", "rebuilt")]


def _row(x: NDArray[np.float32], cover: Tensor | None, low: float, high: float) -> NDArray[np.float32]:
    """Images (B, C, H, W) side by side as colours (H, W + gaps, 4): three channels are red, green and blue, of other
    numbers the first one is grey."""
    pixels = np.repeat(x[:, :1], 3, 1) if x.shape[1] != 3 else x
    pixels = np.clip((pixels - low) / (high - low or 1.0), 0, 1).transpose(0, 2, 3, 1)
    pixels = np.asarray(np.where(np.isnan(pixels).any(-1, keepdims=True), _colour(MISSING), pixels))
    if cover is not None:
        pixels = np.where(array(cover.any(1))[..., None], _colour(COVER), pixels)
    opaque = np.concatenate([pixels, np.ones_like(pixels[..., :1])], -1)
    gap = max(1, round(x.shape[3] / 10))
    spaced = np.pad(opaque, ((0, 0), (0, 0), (gap // 2, gap - gap // 2), (0, 0)))
    whole: NDArray[np.float32] = np.concatenate(list(spaced), 1).astype(np.float32)
    return whole


def _colour(name: str) -> NDArray[np.float64]:
    return np.array([*bytes.fromhex(name[1:])]) / 255


def _draw(ax: Any, picture: NDArray[np.float32], label: str) -> None:
    ax.imshow(picture, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)


def _rows(images: Any, start: int | None) -> Tensor:
    """The images to show."""
    if start is None:
        part = next(images.split[key] for key in ("test", "validation", "train") if len(images.split[key]))
        return chosen(part, SHOWN)
    if not 0 <= start < images.num_items:
        raise UsageError(f"start={start}: {images.name} has images 0 to {images.num_items - 1}")
    return torch.arange(start, min(start + SHOWN, images.num_items))
