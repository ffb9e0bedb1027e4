"""A small world of plain drawings, for tests of what pretrain/ makes of cut-outs: no package has to be fetched."""

import numpy as np

COLOURS = {"red": (205, 40, 40), "blue": (50, 90, 205), "green": (60, 145, 60)}
SIDE = 64


def drawn_world():
    """A world of nine named kinds, one held out, and one without a name; call with pretrain/ on the path."""
    from world.cutouts import Cutouts, Kind
    from world.scenes import World

    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    outlines = {
        "disc": np.hypot(rows, columns) < 1,
        "box": np.maximum(abs(rows), abs(columns)) < 0.9,
        "cross": np.minimum(abs(rows), abs(columns)) < 0.35,
        "bar": abs(rows) < 0.6,
        "column": abs(columns) < 0.6,
        "lozenge": abs(rows) + abs(columns) < 1,
        "wedge": rows > abs(columns) - 0.6,
        "arch": (np.hypot(rows, columns) > 0.4) & (rows < 0.7),
        "corner": (rows > -0.2) | (columns > -0.2),
        "wheel": abs(np.hypot(rows, columns) - 0.7) < 0.3,
    }
    also = {"disc": ("plate", "dish"), "box": ("case",)}
    families = dict.fromkeys(outlines, "shape") | {"wheel": "tool", "bar": "tool"}
    named = {name: [_looks(Kind(name, also.get(name, ()), families[name]), mask)] for name, mask in outlines.items()}
    kept_out = {"wheel": named.pop("wheel")}
    return World(Cutouts(named, kept_out, [_looks(Kind("tool", (), "tool"), outlines["disc"] & (rows < 0.2))]))


def _looks(kind, mask):
    from world.cutouts import Look

    return [
        Look(kind, kind.name, colour, np.dstack([np.full((SIDE, SIDE, 3), rgb, np.uint8), mask.astype(np.uint8) * 255]))
        for colour, rgb in COLOURS.items()
    ]
