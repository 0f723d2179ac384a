from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# A tetrahedron that is no size a person could be: the catalogue's sizes must win.
TETRAHEDRON = "v 0 0 0\nv 10 0 0\nv 0 10 0\nv 0 0 10\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


def write_model(folder: Path, name: str, material: str = "Kd 0.8 0.2 0.2") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.mtl").write_text(f"newmtl m\n{material}\n")
    (folder / f"{name}.obj").write_text(f"mtllib {name}.mtl\nusemtl m\n{TETRAHEDRON}")


@pytest.fixture(scope="session")
def assets(tmp_path_factory) -> Path:
    """A folder with a catalogue of a few models, loose models, and pictures; some of each in either half."""
    root = tmp_path_factory.mktemp("assets")
    rows = ["license=CC0", "name=Test"]
    models = [
        ("Man", "Characters", (50, 30, 180)),
        ("Woman", "Characters", (50, 30, 170)),
        ("Table", "Living room", (120, 80, 75)),
        ("Chair", "Living room", (50, 50, 90)),
        ("Cup", "Kitchen", (8, 8, 10)),
        ("Sedan car", "Vehicles", (180, 420, 150)),
        ("Oak tree", "Exterior", (300, 300, 600)),
        ("Bench", "Exterior", (150, 50, 80)),
    ]
    for number, (name, category, (width, depth, height)) in enumerate(models, 1):
        stem = name.split()[0].lower()
        write_model(root / "library" / stem, stem)
        rows += [
            f"name#{number}={name}",
            f"category#{number}={category}",
            f"model#{number}=/{stem}/{stem}.obj",
            f"width#{number}={width}",
            f"depth#{number}={depth}",
            f"height#{number}={height}",
            f"creator#{number}=Somebody",
        ]
    rows += ["name#20=Lost", "model#20=/lost/lost.obj", "width#20=1", "depth#20=1", "height#20=1"]
    (root / "library" / "PluginFurnitureCatalog.properties").write_text("\n".join(rows))
    for number in range(8):
        write_model(root / "loose", f"thing{number}")
    rng = np.random.default_rng(0)
    for name in ("wall", "brick", "floor", "grass", "roof", "sky", "tree1", "house-facade"):
        pixels = rng.integers(0, 255, (32, 32, 4 if name == "tree1" else 3), dtype=np.uint8)
        (root / "pictures").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / "pictures" / f"{name}.png")
    return root
