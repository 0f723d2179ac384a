"""Words beyond what a text encoder reads are found, and only those."""

import json
import shutil
from pathlib import Path

import pytest
from depth2video.generators.words import TOKENS, dropped_words, load_tokenizer


@pytest.fixture(scope="module")
def folders(animatediff_folders: dict[str, Path], wan_folder: Path) -> dict[str, dict[str, Path]]:
    return {"animatediff": animatediff_folders, "wan-vace": {"base": wan_folder}}


@pytest.mark.parametrize(("name", "ends"), [("animatediff", 2), ("wan-vace", 1)])
def test_what_is_read_and_what_is_dropped_make_the_prompt(
    name: str, ends: int, folders: dict[str, dict[str, Path]]
) -> None:
    """Each word is a token; those that begin and end a text count."""
    fits = TOKENS[name] - ends
    whole = " ".join(["fox"] * fits)
    texts = {"--prompt": f"{whole}  stone city", "--negative-prompt": whole, "none": None}
    assert dropped_words(name, folders[name], texts) == {"--prompt": "stone city"}
    tokenizer = load_tokenizer(name, folders[name])
    assert len(tokenizer(whole)["input_ids"]) == TOKENS[name]
    read = tokenizer(f"{whole} stone city", truncation=True, max_length=TOKENS[name])["input_ids"]
    assert read == tokenizer(whole)["input_ids"], "what the pipelines do"


def test_a_word_that_is_read_in_part_counts_as_dropped(folders: dict[str, dict[str, Path]]) -> None:
    """`qqq` is three letters, of which one is read."""
    words = " ".join(["fox"] * (TOKENS["animatediff"] - 3))
    assert dropped_words("animatediff", folders["animatediff"], {"p": f"{words} qqq fox"}) == {"p": "qqq fox"}


def test_a_tokenizer_without_a_limit_of_its_own_reads_no_more(
    folders: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    base = Path(shutil.copytree(folders["animatediff"]["base"], tmp_path / "base"))
    (base / "tokenizer" / "tokenizer_config.json").unlink()
    assert load_tokenizer("animatediff", {"base": base}).model_max_length == 77


def test_a_tokenizer_that_is_damaged_or_of_another_encoder_is_told(
    folders: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    base = Path(shutil.copytree(folders["animatediff"]["base"], tmp_path / "base"))
    config = base / "text_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "vocab_size": 20}))
    with pytest.raises(
        ValueError, match="--base: tokenizer and text encoder do not belong together: --prompt makes tok"
    ):
        dropped_words("animatediff", {"base": base}, {"--prompt": "a red fox"})
    for path in (base / "tokenizer").iterdir():
        path.write_text("{")
    with pytest.raises(ValueError, match="--base: the tokenizer in .*/base/tokenizer can't be read"):
        dropped_words("animatediff", {"base": base}, {"--prompt": "a red fox"})
