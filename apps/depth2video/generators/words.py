"""What of a prompt a generator's text encoder reads: its tokenizer, and the words beyond its limit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from depth2video.generators.single_file import TOKENIZER, read_configs
from depth_engine.plain_data import read_json

# Tokens that a text encoder reads, those that begin and end a text included: as CLIP was trained, and as Wan's authors
# cut the words for UMT5.
TOKENS = {"animatediff": 77, "wan-vace": 512}


def load_tokenizer(name: str, folders: Mapping[str, Path]) -> Any:
    """The tokenizer of a generator that reads words.

    Args:
        name: One of `TOKENS`.
        folders: From `find_parts`.

    Raises:
        ValueError: Its files can't be read.
    """
    from transformers import AutoTokenizer, CLIPTokenizer

    from depth_engine.models.loading import quiet_libraries

    folder = folders.get(TOKENIZER, folders["base"] / "tokenizer")
    kind: Any = CLIPTokenizer if name == "animatediff" else AutoTokenizer
    try:
        with quiet_libraries():
            # Said here: a folder without a tokenizer's own config says nothing of a limit.
            return kind.from_pretrained(folder, local_files_only=True, model_max_length=TOKENS[name])
    except Exception as error:  # whatever a damaged file raises
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"--base: the tokenizer in {folder} can't be read ({why})") from error


def dropped_words(name: str, folders: Mapping[str, Path], texts: Mapping[str, str | None]) -> dict[str, str]:
    """What a generator will not read of some texts, since they are longer than its text encoder takes.

    Args:
        name: One of `TOKENS`.
        folders: From `find_parts`.
        texts: Option -> text.

    Returns:
        Option -> the words at the end that are dropped, for texts of which some are.

    Raises:
        ValueError: Tokenizer and text encoder do not belong together.
    """
    tokenizer, known = load_tokenizer(name, folders), _known_tokens(folders["base"])
    dropped = {}
    for option, text in texts.items():
        words = " ".join((text or "").split())
        tokens = tokenizer(words, return_offsets_mapping=True)
        highest = max(tokens["input_ids"], default=0)
        if known is not None and highest >= known:
            raise ValueError(
                f"--base: tokenizer and text encoder do not belong together: {option} makes token {highest}, the text "
                f"encoder knows {known}"
            )
        if len(tokens["input_ids"]) > TOKENS[name]:
            # The last token that is read ends the text.
            cut = tokens["offset_mapping"][TOKENS[name] - 1][0]
            dropped[option] = words[words.rfind(" ", 0, cut + 1) + 1 :]
    return dropped


def _known_tokens(base: Path) -> int | None:
    if base.is_file():
        return read_configs(base)["text_encoder"]["vocab_size"]
    return read_json(base / "text_encoder" / "config.json").get("vocab_size")
