from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from depth_train.scenes.models.builder import Builder
from depth_train.scenes.models.catalog import Model, is_held_out, read_catalog, role_of
from depth_train.scenes.models.meshes import load_model
from PIL import Image

from tests.depth_train.conftest import write_model


def test_catalogued_models_have_their_size_role_and_credit(assets: Path) -> None:
    models = {model.path.stem: model for model in read_catalog(assets).models}
    assert models["man"].size_m == (0.5, 1.8, 0.3)
    assert {name: models[name].role for name in ("man", "sedan", "oak", "cup", "chair", "bench")} == {
        "man": "person",
        "sedan": "car",
        "oak": "tree",
        "cup": "prop",
        "chair": "furniture",
        "bench": "street",
    }
    assert models["man"].creator == "Somebody" and models["man"].licence == "CC0"
    assert models["thing3"].size_m is None


def test_what_the_catalogue_names_and_nobody_has_is_listed(assets: Path) -> None:
    assert [line for line in read_catalog(assets).left_out if "lost.obj" in line]


def test_pictures_are_sorted_by_name(assets: Path) -> None:
    roles = {picture.path.stem: picture.role for picture in read_catalog(assets).pictures}
    assert roles == {
        "wall": "wall",
        "brick": "wall",
        "floor": "floor",
        "grass": "ground",
        "roof": "roof",
        "sky": "sky",
        "tree1": "tree",
        "house-facade": "facade",
    }


def test_the_halves_share_nothing_and_hang_on_names_alone(assets: Path) -> None:
    catalog = read_catalog(assets)
    train, held_out = catalog.part(False), catalog.part(True)
    assert not {m.name for m in train.models} & {m.name for m in held_out.models}
    assert len(train.models) + len(held_out.models) == len(catalog.models)
    share = np.mean([is_held_out(f"models/{number}.obj") for number in range(3000)])
    assert 0.12 < share < 0.22


def test_a_toy_car_is_no_car() -> None:
    assert role_of("Car model", "", "", (0.2, 0.1, 0.3)) == "prop"
    assert role_of("Car", "", "", (1.8, 1.5, 4.2)) == "car"


def test_models_come_in_true_size_upright_on_the_ground(assets: Path, tmp_path: Path) -> None:
    (man,) = [model for model in read_catalog(assets).models if model.path.stem == "man"]
    for _ in range(2):  # the second time from the prepared file
        mesh = load_model(man, tmp_path)
        assert np.allclose(mesh.bounds, [[-0.25, -1.8, -0.15], [0.25, 0, 0.15]], atol=1e-5)
        assert np.allclose(mesh.surfaces[0].color, [0.604, 0.033, 0.033], atol=0.01)  # linear of 0.8, 0.2
    assert len(list(tmp_path.glob("*.npz"))) == 1
    # The file's y axis points up: its corner at y = 10 is the highest point, which has the least y here.
    top = mesh.corners.reshape(-1, 3)[mesh.corners.reshape(-1, 3)[:, 1].argmin()]
    assert np.allclose(top, [-0.25, -1.8, 0.15], atol=1e-5)


def test_impossible_sizes_become_the_role_s_own(tmp_path: Path) -> None:
    write_model(tmp_path, "thing")
    big = (tmp_path / "thing.obj").read_text().replace("10", "8000")
    (tmp_path / "thing.obj").write_text(big)
    mesh = load_model(Model("thing", tmp_path / "thing.obj", "car"), tmp_path / "cache")
    assert np.isclose((mesh.bounds[1] - mesh.bounds[0]).max(), 4.4)


@pytest.mark.parametrize("content", ["", "nonsense", "v 0 0 0\nv 1 0 0\n"])
def test_a_file_that_is_no_mesh_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.obj"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"bad\.obj: "):
        load_model(Model("bad", path, "prop"), tmp_path / "cache")


def test_the_builder_goes_on_without_what_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "bad.obj").write_text("nonsense")
    write_model(tmp_path, "good")
    (tmp_path / "wall.png").write_bytes(b"no picture")
    catalog = read_catalog(tmp_path)
    builder = Builder(np.random.default_rng(0), catalog, tmp_path / "cache")
    found = [builder.model(("prop", "furniture")) for _ in range(30)]
    assert any(part is not None for part in found)
    for _ in range(30):
        builder.surface("wall", plain=0.0)
    assert set(builder.bad) == {"bad.obj", "wall.png"}


def test_a_missing_texture_leaves_the_model_in_its_colour(tmp_path: Path) -> None:
    write_model(tmp_path, "thing", "Kd 0.5 0.5 0.5\nmap_Kd missing.png")
    mesh = load_model(Model("thing", tmp_path / "thing.obj", "prop"), tmp_path / "cache")
    assert mesh.surfaces[0].texture is None


def test_a_texture_is_kept_with_its_alpha(tmp_path: Path) -> None:
    write_model(tmp_path, "leaf", "Kd 1 1 1\nmap_Kd leaf.png")
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[:4] = (10, 200, 30, 255)
    Image.fromarray(pixels).save(tmp_path / "leaf.png")
    text = "mtllib leaf.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nf 1/1 2/2 3/3\n"
    (tmp_path / "leaf.obj").write_text(text)
    mesh = load_model(Model("leaf", tmp_path / "leaf.obj", "prop"), tmp_path / "cache")
    texture = mesh.surfaces[0].texture
    assert texture is not None and texture[0, 0].tolist() == [10, 200, 30, 255] and texture[7, 0, 3] == 0
    # v grows downwards here, upwards in the file.
    assert np.allclose(sorted(mesh.uv[0, :, 1].tolist()), [0, 1, 1])


def test_an_empty_folder_and_a_missing_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no models"):
        read_catalog(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        read_catalog(tmp_path / "nothing")
