"""Checkpoints from the hub: what is cached and whole is taken, what is missing is fetched."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from depth_engine.models.weight_files import ModelPlace, check_model, wanted_files


@dataclass(frozen=True)
class HubFiles:
    """What is taken of a hub repository.

    Attributes:
        models: Models, of each one set of weights.
        others: Patterns of further files, such as `scheduler/*`.
        needed: Those of them that must be there: names, between which `|` means that one of them is enough.
    """

    models: tuple[ModelPlace, ...] = ()
    others: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()

    def check(self, folder: Path) -> None:
        """See that a folder holds all of it.

        Raises:
            ValueError: Names the first file that is missing.
        """
        for place in self.models:
            check_model(folder, place)
        for names in self.needed:
            if not any((folder / name).is_file() for name in names.split("|")):
                raise ValueError(f"model: {names.replace('|', ' or ')} is missing in {folder}")


def is_hub_id(name: str) -> bool:
    """Whether a name that is no folder can be a hub id: `owner/name`, or `owner/name@revision`."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).parent.is_dir()


def fetch(hub_id: str, files: HubFiles, *, check: Callable[[Path], object], argument: str = "model") -> Path:
    """Folder of a hub repository in the local cache; what is missing there is downloaded.

    Args:
        hub_id: `owner/name`, or `owner/name@revision`.
        files: Which files are taken.
        check: Raises ValueError where a folder lacks something. A cached folder that passes is taken as it is, without
            asking the hub; one that was just downloaded is left for the caller to check.
        argument: Name of the caller's argument, for errors.

    Raises:
        FileNotFoundError: Something is neither cached nor reachable; says which command fetches it.
    """
    from huggingface_hub import HfApi, snapshot_download

    repo, _, revision = hub_id.partition("@")
    lack = "is not in the local cache"
    try:
        cached = Path(snapshot_download(repo, revision=revision or None, local_files_only=True, allow_patterns=[]))
    except Exception:  # not cached: whatever the hub's client calls it, the next lines say more
        pass
    else:
        try:
            check(cached)
            return cached
        except ValueError as error:
            lack = f"is not whole in the local cache ({str(error).partition(': ')[2]})"
    try:
        names = HfApi().list_repo_files(repo, revision=revision or None)
        wanted = chosen_files(names, files)
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=wanted))
    except Exception as error:
        at = f" --revision {revision}" if revision else ""
        raise FileNotFoundError(
            f"{argument}: {hub_id} {lack} and can't be fetched ({type(error).__name__}); where there is "
            f"a network, run: hf download {repo}{at} --local-dir FOLDER, and give that folder"
        ) from error


def chosen_files(names: Collection[str], files: HubFiles) -> list[str]:
    """The files of a repository that are taken, of all its `names`."""
    others = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in files.others)]
    return sorted({*others, *wanted_files(names, files.models)})
