"""Places the labels of points so that they cover neither each other nor a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.report.chart_style import QUIET, SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

GAP = 6.0  # points between a point and its label
LINE_HEIGHT = 11.5  # points
LEADER = 8.0  # a label that is farther from its point has a line to it
FARTHEST = 16  # half lines
CROWD = 7.0  # points that are nearer than this cover each other
LEAST_CROWD = 4


@dataclass(frozen=True)
class Label:
    """A text at a point in data coordinates."""

    x: float
    y: float
    text: str
    colour: str
    strong: bool = False


def merged(axes: Axes, labels: Sequence[Label]) -> list[Label]:
    """Returns labels with one for each crowd of points that cover each other: the first name, and how many others."""
    near = CROWD * axes.figure.dpi / 72
    crowds: list[list[Label]] = []
    for label in labels:
        x, y = axes.transData.transform((label.x, label.y))
        for crowd in crowds:
            other_x, other_y = axes.transData.transform((crowd[0].x, crowd[0].y))
            if abs(x - other_x) < near and abs(y - other_y) < near:
                crowd.append(label)
                break
        else:
            crowds.append([label])
    found = []
    for crowd in crowds:
        if len(crowd) < LEAST_CROWD:
            found += crowd
        else:
            found.append(replace(crowd[0], text=f"{crowd[0].text} and {len(crowd) - 1} others"))
    return found


def place(axes: Axes, labels: Sequence[Label]) -> None:
    """Writes labels at the right or the left of their points, the first ones nearest.

    The axes must have their final size.

    Args:
        axes: Where to write.
        labels: The labels, the most important first.
    """
    from matplotlib.transforms import Bbox

    figure = axes.figure
    scale = figure.dpi / 72
    around = axes.get_window_extent()
    points = [tuple(axes.transData.transform((label.x, label.y))) for label in labels]
    taken = [Bbox.from_bounds(x - 4 * scale, y - 4 * scale, 8 * scale, 8 * scale) for x, y in points]
    limits = Bbox.from_extents(around.x0 - 2, around.y0 - 2, figure.bbox.x1 - 2 * scale, around.y1 + 4 * scale)
    for label, (x, y) in zip(labels, points, strict=True):
        width, height = _size(axes, label, scale)
        options = []
        for side in (1, -1):
            for line in range(-FARTHEST, FARTHEST + 1):
                left = x + GAP * scale if side > 0 else x - GAP * scale - width
                box = Bbox.from_bounds(left, y + line * LINE_HEIGHT / 2 * scale - height / 2, width, height)
                outside = not (
                    limits.x0 <= box.x0 and box.x1 <= limits.x1 and limits.y0 <= box.y0 and box.y1 <= limits.y1
                )
                cost = abs(line) + (3 if side < 0 else 0) + 100 * outside + 40 * _covered(box, taken)
                options.append((cost, side, line, box))
        _, side, line, box = min(options, key=lambda option: option[:3])
        taken.append(box)
        _write(axes, label, side, line * LINE_HEIGHT / 2)


def place_at_ends(axes: Axes, labels: Sequence[Label]) -> None:
    """Writes labels at the right of their points, in the order of the points and as near to them as there is room.

    The axes must have their final size.
    """
    scale = axes.figure.dpi / 72
    heights = [float(axes.transData.transform((label.x, label.y))[1]) / scale for label in labels]
    order = sorted(range(len(labels)), key=heights.__getitem__)
    # Neighbours that are too near form a block around the middle of their points. Blocks that meet become one.
    blocks: list[list[int]] = []

    def middle(block: list[int]) -> float:
        return sum(heights[number] for number in block) / len(block)

    for number in order:
        blocks.append([number])
        while len(blocks) > 1:
            below, above = blocks[-2:]
            if middle(above) - middle(below) >= (len(below) + len(above)) / 2 * LINE_HEIGHT:
                break
            blocks[-2:] = [[*below, *above]]
    for block in blocks:
        lowest = middle(block) - (len(block) - 1) / 2 * LINE_HEIGHT
        for row, number in enumerate(block):
            _write(axes, labels[number], 1, lowest + row * LINE_HEIGHT - heights[number])


def _size(axes: Axes, label: Label, scale: float) -> tuple[float, float]:
    """Returns the width and the height of a label in pixels."""
    text = axes.text(0, 0, label.text, fontsize=SMALL, fontweight="bold" if label.strong else "normal")
    width = text.get_window_extent().width
    text.remove()
    return width, LINE_HEIGHT * scale


def _covered(box: Bbox, taken: Sequence[Bbox]) -> int:
    return sum(box.x0 < other.x1 and other.x0 < box.x1 and box.y0 < other.y1 and other.y0 < box.y1 for other in taken)


def _write(axes: Axes, label: Label, side: int, up: float) -> None:
    leader = {"arrowstyle": "-", "color": QUIET.light, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
    axes.annotate(
        label.text,
        (label.x, label.y),
        xytext=(side * GAP, up),
        textcoords="offset points",
        ha="left" if side > 0 else "right",
        va="center",
        fontsize=SMALL,
        fontweight="bold" if label.strong else "normal",
        color=label.colour,
        arrowprops=leader if abs(up) > LEADER else None,
        annotation_clip=False,
    ).set_in_layout(False)
