"""The commands that fit scores and show them."""

import json

import pytest

from jaxlm.core.errors import UserError
from tools.text_scores import main

GOOD = [f"The river number {i} runs from the hills to the sea, and the villages along it are old." for i in range(60)]
BAD = [f"buy cheap {i} now click {i} buy buy now cheap click here" for i in range(60)]


def _write(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def test_fits_shows_and_refuses(tmp_path, capsys):
    good, bad = _write(tmp_path / "good.jsonl", GOOD), _write(tmp_path / "bad.jsonl", BAD)
    quality = str(tmp_path / "quality")
    assert main(["quality", "--good", good, "--bad", bad, "--out", quality]) == 0
    capsys.readouterr()
    assert main(["show", quality, "--text", good, bad]) == 0
    shown = capsys.readouterr()
    figures = json.loads(shown.out.splitlines()[-1])
    assert figures["num_texts"] == 120
    assert figures["quantiles"]["0.05"] < 0.5 < figures["quantiles"]["0.95"]
    lowest, highest = shown.err.split("highest")
    assert "buy cheap" in lowest
    assert "river" in highest
    with pytest.raises(UserError, match="is there already"):
        main(["quality", "--good", good, "--bad", bad, "--out", quality])
    with pytest.raises(UserError, match="does not exist"):
        main(["show", quality, "--text", str(tmp_path / "none.jsonl")])
