"""The models and pictures that scenes are made of: what lies in the asset folders, how large it is, whose it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

MESH_SUFFIXES = (".obj", ".glb", ".gltf", ".ply", ".stl", ".off", ".dae")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
CATALOG_NAMES = ("PluginFurnitureCatalog.properties", "DefaultFurnitureCatalog.properties")
TEXTURE_CATALOG_NAMES = ("PluginTexturesCatalog.properties", "DefaultTexturesCatalog.properties")
# Every sixth model or picture, by its name, is kept out of training.
_HELD_OUT_EVERY = 6
# Models outside these sides are taken for a mistake of units.
SMALLEST_M, LARGEST_M = 0.01, 60.0

# What a model is used for. The first word that its name or tags contain decides; then its category.
_ROLE_WORDS = (
    ("person", "male female boy girl man woman mannequin people person"),
    ("animal", "chicken horse bulldog cat dog rabbit deer cow sheep goat"),
    ("car", "sedan ford focus beetle bus chevrolet peugeot renault suv leon smart van truck car taxi"),
    ("bike", "motorbike bike bicycle scooter tricycle yamaha"),
    (
        "tree",
        "acacia tree pine cypress poplar palm maple beech sycamore coconut bamboo peach",
    ),
    ("bush", "bush hedge"),
    ("street_lamp", "lamppost street park"),
    ("window", "window blind shutter"),
    ("door", "door elevator"),
    ("stairs", "staircase escalator"),
    ("ceiling", "chandelier pendant hanging ceiling fluorescent track"),
    ("rug", "rug carpet tatami bathmat doormat"),
    ("frame", "frame painting"),
    ("fence", "fence railing"),
    ("flat", "parking crossing arrow rails sidewalk pool rink socket switch plug bill"),
)
_ROLE_OF_CATEGORY = {"characters": "person", "vehicles": "car", "doors and windows": "window", "staircases": "stairs"}
_OUTDOOR_CATEGORIES = ("exterior",)
# A model without a catalogue gets the size of its role, metres along its longest side.
ROLE_SIZE_M = {"person": 1.7, "animal": 1.0, "car": 4.4, "bike": 1.8, "tree": 7.0, "bush": 1.5, "prop": 0.3}


@dataclass(frozen=True)
class Model:
    """A mesh that may be placed.

    Attributes:
        name: Unique: source folder and path of the mesh.
        path: The mesh file.
        role: `person`, `car`, `tree`, ...: what it is used for; `furniture` or `prop` (fits on a table) by default.
        category: The catalogue's, in lower case; empty without one.
        size_m: Width, height, depth in metres, or None where no catalogue says so.
        rotation: Rows of the turn that the catalogue wants before scaling.
        elevation_m: How high above the floor it hangs.
        top_m: Height of the surface that things stand on, or None.
        creator: Whom to credit.
        licence: As the catalogue states it.
        held_out: Kept for validation.
    """

    name: str
    path: Path
    role: str
    category: str = ""
    size_m: tuple[float, float, float] | None = None
    rotation: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1)
    elevation_m: float = 0.0
    top_m: float | None = None
    creator: str = ""
    licence: str = ""
    held_out: bool = False


@dataclass(frozen=True)
class Picture:
    """An image that may cover a surface or stand behind a scene.

    Attributes:
        name: Unique: source folder and path.
        path: The image file.
        role: `floor`, `wall`, `ground`, `roof`, `sky`, `photo`, `facade` (a whole front)
            or `tree` (cut out by its alpha).
        size_m: Width and height of one tile in metres, or None.
        creator: Whom to credit.
        licence: As its source states it.
        held_out: Kept for validation.
    """

    name: str
    path: Path
    role: str
    size_m: tuple[float, float] | None = None
    creator: str = ""
    licence: str = ""
    held_out: bool = False


@dataclass
class Catalog:
    """All that was found."""

    models: list[Model] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # one line each: what, and why

    def part(self, held_out: bool) -> Catalog:
        """The half for training, or the one for validation."""
        return Catalog(
            [model for model in self.models if model.held_out == held_out],
            [picture for picture in self.pictures if picture.held_out == held_out],
            self.left_out,
        )


def is_held_out(name: str) -> bool:
    """Whether a name belongs to validation: by its own letters, so that no list has to be kept."""
    total = 0
    for letter in name:
        total = (total * 31 + ord(letter)) % 1_000_003
    return total % _HELD_OUT_EVERY == 0


def read_catalog(folder: Path) -> Catalog:
    """Everything under a folder: catalogued models and textures, then loose meshes and images.

    Raises:
        ValueError: The folder does not exist, or holds neither models nor pictures.
    """
    if not folder.is_dir():
        raise ValueError(f"assets: no such folder: {folder}; `depth-train assets` makes it, or give a folder of models")
    catalog = Catalog()
    known: set[Path] = set()
    sized: set[Path] = set()
    for path in sorted(folder.rglob("*.properties")):
        if path.name in CATALOG_NAMES:
            _read_models(path, folder, catalog, known)
        elif path.name in TEXTURE_CATALOG_NAMES:
            _read_textures(path, folder, catalog, known)
    for path in sorted(folder.rglob("*")):
        suffix = path.suffix.lower()
        if path in known or not path.is_file():
            continue
        name = str(path.relative_to(folder))
        if suffix in MESH_SUFFIXES:
            role = role_of(path.stem, "", "", None)
            catalog.models.append(Model(name, path, role, held_out=is_held_out(name)))
        elif suffix in IMAGE_SUFFIXES and path.parent not in known:
            role = _picture_role(name)
            # Wallpapers come in a dozen sizes: one picture a folder of sizes is enough.
            if role == "photo" and re.fullmatch(r"\d+x\d+", path.stem):
                if path.parent in sized:
                    continue
                sized.add(path.parent)
            if role:
                catalog.pictures.append(Picture(name, path, role, held_out=is_held_out(name)))
    if not catalog.models and not catalog.pictures:
        raise ValueError(f"assets: {folder} holds no models ({' '.join(MESH_SUFFIXES)}) and no pictures")
    return catalog


def read_properties(path: Path) -> dict[str, dict[str, str]]:
    """Entries of a catalogue by number; general fields under ''.

    Args:
        path: Lines `key#number=value` in Latin-1, as Sweet Home 3D's libraries have them.
    """
    entries: dict[str, dict[str, str]] = {"": {}}
    for line in path.read_text("latin-1").splitlines():
        if "=" not in line or line.startswith("#"):
            continue
        key, value = line.split("=", 1)
        key, _, number = key.strip().partition("#")
        entries.setdefault(number, {})[key] = value.strip()
    return entries


def role_of(name: str, tags: str, category: str, size_m: tuple[float, float, float] | None) -> str:
    """What a model is used for; see `_ROLE_WORDS`."""
    words = set(re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", f"{name} {tags}").lower()))
    for role, keys in _ROLE_WORDS:
        if words & set(keys.split()):
            if role in ("person", "animal", "car", "bike") and size_m is not None and max(size_m) < 0.35:
                return "prop"  # a toy
            if role == "tree" and size_m is not None and size_m[1] < 1.2:
                continue
            return role
    if category in _ROLE_OF_CATEGORY:
        return _ROLE_OF_CATEGORY[category]
    if size_m is not None and max(size_m) < 0.6:
        return "prop"
    return "street" if category in _OUTDOOR_CATEGORIES else "furniture"


def _read_models(path: Path, root: Path, catalog: Catalog, known: set[Path]) -> None:
    entries = read_properties(path)
    licence = entries[""].get("license", "")
    for number, entry in entries.items():
        icon = _find(path.parent, entry["icon"]) if "icon" in entry else None
        if icon is not None:
            known.add(icon)
        if "model" not in entry:
            continue
        # Paths begin at the archive's root, which the catalogue may lie below.
        mesh = _find(path.parent, entry["model"])
        known.add(path.parent)
        if mesh is None:
            catalog.left_out.append(f"{path}: model {number} ({entry['model']}) is missing")
            continue
        known.add(mesh)
        known.add(mesh.parent)
        try:
            width, height, depth = (float(entry[key]) / 100 for key in ("width", "height", "depth"))
            size = width, height, depth
            rotation = tuple(float(value) for value in entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split())
        except (KeyError, ValueError):
            catalog.left_out.append(f"{path}: model {number} ({entry['model']}) has no size")
            continue
        name = str(mesh.relative_to(root))
        category = entry.get("category", "").lower()
        if entry.get("doorOrWindow") == "true" and "door" not in entry.get("name", "").lower():
            category = "doors and windows"
        top = float(entry["dropOnTopElevation"]) / 100 if "dropOnTopElevation" in entry else size[1]
        catalog.models.append(
            Model(
                name,
                mesh,
                role_of(entry.get("name", ""), entry.get("tags", ""), category, size),
                category,
                size,
                rotation if len(rotation) == 9 else (1, 0, 0, 0, 1, 0, 0, 0, 1),
                float(entry.get("elevation", 0)) / 100,
                top if top > 0 else None,
                entry.get("creator", ""),
                licence,
                is_held_out(name),
            )
        )


def _read_textures(path: Path, root: Path, catalog: Catalog, known: set[Path]) -> None:
    entries = read_properties(path)
    for number, entry in entries.items():
        if "image" not in entry:
            continue
        image = _find(path.parent, entry["image"])
        if image is None:
            catalog.left_out.append(f"{path}: texture {number} ({entry['image']}) is missing")
            continue
        known.add(image)
        category = entry.get("category", "").lower()
        role = {"floor": "floor", "wall": "wall", "sky": "sky", "roof": "roof"}.get(category, "ground")
        name = str(image.relative_to(root))
        size = float(entry.get("width", 100)) / 100, float(entry.get("height", 100)) / 100
        licence = entries[""].get("license", "")
        creator = entry.get("creator", "")
        catalog.pictures.append(Picture(name, image, role, size, creator, licence, is_held_out(name)))


def _find(folder: Path, inner: str) -> Path | None:
    """A path of an archive, seen from the catalogue's folder or one above it."""
    relative = inner.lstrip("/")
    for base in (folder, *folder.parents):
        if (base / relative).is_file():
            return base / relative
        if (base / ".git").exists() or base == base.parent:
            return None
    return None


def _picture_role(name: str) -> str | None:
    """What a loose image is used for, by its name (photographs: its folders); maps of other kinds are not used."""
    low, stem = name.lower(), Path(name).stem.lower()
    if any(word in low for word in ("icon", "screenshot", "preview", "/doc/", "/cars/", "/wheels/")):
        return None
    if any(word in stem for word in ("shadow", "alpha", "normal", "logo", "curb", "skid", "raceline")):
        return None
    if any(word in low for word in ("wallpaper", "background", "photo")):
        return "photo"
    for role, words in (
        ("tree", ("tree",)),
        ("facade", ("facade", "house", "cabin", "inn")),
        ("sky", ("sky", "cloud")),
        ("roof", ("roof",)),
        ("floor", ("floor", "parquet", "carpet", "tile")),
        ("wall", ("wall", "brick", "plaster", "concrete", "rock", "stone")),
        ("ground", ("grass", "sand", "road", "asphalt", "dirt", "gravel", "soil", "pav", "tarmac", "mud")),
    ):
        if any(stem.startswith(word) if role == "tree" else word in stem for word in words):
            return role
    return None
