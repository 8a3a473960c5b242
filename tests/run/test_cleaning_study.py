"""A cleaning study at a tiny size, through the real command: pairs of runs, each step left out, one report."""

import json
import subprocess
import sys
from collections import Counter

import pytest

import jaxlm
from jaxlm.data.corpus import CorpusConfig
from jaxlm.data.deduplication import DeduplicationConfig, RepeatsConfig
from jaxlm.evals.paired import paired_difference
from jaxlm.run import cleaning_study
from jaxlm.run.cleaning_arms import Cleaned, apply_cleaning, precision_recall, tally, words_of
from jaxlm.run.cleaning_config import Cleaning, CleaningStudyConfig, JunkConfig
from jaxlm.run.cleaning_data import Planted, make_mixture
from jaxlm.run.cli import run_main
from jaxlm.text.rules.repetition import Repetition
from jaxlm.text.tokenizer import TokenizerConfig
from tests.run.commands import REPO, environment

CONFIG = '''
"""Tiny."""
from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.cleaning_config import CleaningStudyConfig
from jaxlm.run.generations_config import TrainedConfig
from jaxlm.text.edits.boilerplate import DropBoilerplate
from jaxlm.text.edits.markup import StripMarkup
from jaxlm.text.rules.badwords import BadWords
from jaxlm.text.rules.gopher import GopherQuality
from jaxlm.text.tokenizer import TokenizerConfig


def config():
    return CleaningStudyConfig(
        corpus=CorpusConfig(source="text", paths=("FOLDER/good.txt",), document="line"),
        document_characters=400,
        held_out_bytes=800,
        pages=("FOLDER/pages",),
        recipe=(StripMarkup(), DropBoilerplate(), GopherQuality(min_words=10), BadWords(("neverseen",))),
        num_seeds=2,
        ablation_seeds=1,
        tokenizer=TokenizerConfig(kind="byte"),
        proxy=TrainedConfig(
            DecoderConfig(max_seq_len=32, num_layers=1, model_dim=16, num_heads=2),
            DataConfig(seq_len=32),
            OptimizerConfig(peak_lr=0.02, schedule="constant", warmup_steps=0),
            num_steps=20,
            global_batch_size=8,
        ),
    )
'''
PAGE = """<html><head><title>Page {n}</title><style>body {{
  margin: 0;
}}</style></head><body><ul>{menu}</ul><article><p>{text}</p><p>{text}</p></article><footer>© 2020 All rights
reserved</footer></body></html>"""


def _sentence(i: int, j: int) -> str:
    names = ("river", "mountain", "village", "harbour", "forest", "meadow", "castle", "bridge")
    first, second = names[(i * 7 + j) % 8], names[(i * 3 + j * 5) % 8]
    return f"The {first} that they have seen in year {1000 + i * 7 + j} is to the north of the {second} number {i}-{j}."


def _fill(folder):
    lines = [" ".join(_sentence(i, j) for j in range(5)) for i in range(160)]
    (folder / "good.txt").write_text("\n".join(lines) + "\n")
    (folder / "pages").mkdir()
    for n in range(6):
        menu = "".join(f"<li><a href='/{i}'>Item {n} {i}</a></li>" for i in range(12))
        text = f"Page {n} says at some length what is to be said of the thing that has number {n}, and of nothing else."
        (folder / "pages" / f"{n}.html").write_text(PAGE.format(n=n, menu=menu, text=text))


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cleaning")
    _fill(folder)
    config = folder / "tiny.py"
    config.write_text(CONFIG.replace("FOLDER", str(folder)))
    return config


@pytest.fixture(scope="module")
def study(config_file):
    """(config file, run directory, what it wrote to cleaning.json)."""
    config, folder = config_file, config_file.parent
    args = [sys.executable, "-m", "experiments.cleaning", str(config), "--run-dir", str(folder / "run")]
    done = subprocess.run(args, cwd=REPO, env=environment(1), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "run" / "cleaning.json").read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == cleaning_study.summary(results)
    return config, folder / "run", results


@pytest.mark.slow
def test_gains_are_paired_and_every_run_has_its_score(study):
    _, run_dir, results = study
    raw, cleaned = (results["arms"][name]["bits_per_byte"] for name in ("raw", "cleaned"))
    assert len(raw) == len(cleaned) == 2
    assert results["gain"] == pytest.approx(paired_difference(raw, cleaned)._asdict())
    scored = json.loads((run_dir / "raw" / "1" / "score.json").read_text())
    assert scored["bits_per_byte"] == raw[1]
    steps = ["strip_markup", "drop_boilerplate", "gopher_quality", "badwords", "copies", "repeated_lines"]
    assert list(results["ablation"]) == list(results["filters"]["alone"])
    assert len(results["ablation"]) == len(steps)
    same = {step for step, row in results["ablation"].items() if "same_text_as" in row}
    assert "bad_words" in same  # it removes nothing, so its run would be that of the whole cleaning
    assert not (run_dir / "without-bad_words" / "0").exists()
    without = results["ablation"]["copies"]
    assert without["num_pairs"] == 1
    assert without["difference"] == pytest.approx(results["arms"]["without-copies"]["bits_per_byte"][0] - cleaned[0])
    page = (run_dir / "report.html").read_text()
    assert "What each step adds to the rest" in page
    assert "pages/3.html" in page


@pytest.mark.slow
def test_held_out_text_is_in_no_arm_and_all_arms_share_one_tokenizer(study):
    _, run_dir, results = study

    def texts(path):
        return [json.loads(line)["text"] for line in path.read_text().splitlines()]

    held_out = " ".join(texts(run_dir / "held_out.jsonl")).split(".")
    sentences = {one.strip() for one in held_out if one.strip()}
    for name in results["arms"]:
        trained = "\n".join(texts(run_dir / name / "train.jsonl"))
        assert not [one for one in sentences if f"{one}." in trained]
    prints = {jaxlm.load(run_dir / name / "0").tokenizer.fingerprint for name in ("raw", "cleaned", "without-copies")}
    assert len(prints) == 1


@pytest.mark.slow
def test_begun_again_it_trains_nothing(study, capsys):
    config, run_dir, results = study
    (run_dir / "cleaning.json").unlink()
    (run_dir / "cleaned" / "1" / "score.json").unlink()
    assert run_main(cleaning_study.main, [str(config), "--run-dir", str(run_dir)]) == 0
    out, err = capsys.readouterr()
    assert "compiling the train step" not in err
    assert json.loads(out)["gain"] == pytest.approx(results["gain"], rel=1e-4)
    assert run_main(cleaning_study.main, [str(config), "--run-dir", str(run_dir), "--seed", "1"]) == 2
    assert "holds another config" in capsys.readouterr().err


def test_without_a_page_it_says_so_and_filters_alone_train_nothing(config_file, tmp_path, capsys):
    argv = [
        str(config_file),
        "--run-dir",
        str(tmp_path / "run"),
        "--pages",
        str(tmp_path / "nowhere"),
        "--filters-only",
    ]
    assert run_main(cleaning_study.main, argv) == 0
    out, err = capsys.readouterr()
    assert "no HTML page found under" in err
    kinds = json.loads(out)["mixture"]["kinds"]
    assert "spam" in kinds
    assert "navigation" not in kinds
    assert not (tmp_path / "run" / "raw").exists()
    assert "No HTML page was found" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--corpus.paths", "/nowhere.txt"), "/nowhere.txt"),
        (("--tokenizer.kind", "bpe", "--tokenizer.vocab-size", "100000"), "vocab_size"),
        (("--proxy.model.vocab-size", "10"), "model.vocab_size=10 is less than the tokenizer's"),
    ],
)
def test_a_refused_start_leaves_the_directory_to_the_mended_command(config_file, tmp_path, capsys, argv, message):
    assert run_main(cleaning_study.main, [str(config_file), "--run-dir", str(tmp_path / "run"), *argv]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run" / "config.json").exists()
    assert not (tmp_path / "run" / "tokenizer").exists()


def test_shares_come_out_as_asked_for(config_file):
    folder = config_file.parent
    config = CleaningStudyConfig(
        corpus=CorpusConfig(source="text", paths=(f"{folder}/good.txt",), document="line"),
        document_characters=200,
        held_out_bytes=800,
        pages=(),
        junk=JunkConfig(0, 0, 0, spam=0.2, numbers=0.1, copies=0.1, near_copies=0, framed=0, mojibake=0.2, tagged=0),
        tokenizer=TokenizerConfig(kind="byte"),
    )
    mixture = make_mixture(config)
    sizes = Counter()
    for one in mixture.documents:
        sizes[one.kind] += len(one.text.encode())
    total = sizes.total()
    wanted = {"untouched": 0.4, "spam": 0.2, "numbers": 0.1, "copies": 0.1, "mojibake": 0.2}
    assert {kind: size / total for kind, size in sizes.items()} == pytest.approx(wanted, abs=0.04)
    assert [one.text for one in mixture.documents] == [one.text for one in make_mixture(config).documents]


def test_copies_go_and_originals_stay_and_each_kind_has_its_account():
    good = [" ".join(_sentence(i, j) for j in range(5)) for i in range(20)]
    copies = [text.upper() for text in good[:5]]
    near = [text.replace("north", "south", 1) for text in good[5:8]]
    lists = ["7 7 7 7 " * 40]
    documents = [Planted(text, "untouched", text) for text in good]
    documents += [Planted(text, "copies", "") for text in [*copies, *near]] + [Planted(lists[0], "numbers", "")]
    texts = [one.text for one in documents]
    cleaning = Cleaning((Repetition(),), DeduplicationConfig(), RepeatsConfig())
    cleaned = apply_cleaning(texts, cleaning)
    assert cleaned.texts[:20] == good
    assert Counter(cleaned.removed_by) == {"": 20, "copies": 8, "repetition": 1}
    rows = tally(documents, [words_of(one) for one in documents], cleaned)
    assert rows["copies"].steps == {"copies": 8}
    assert precision_recall(rows.values()) == {"precision": 1.0, "recall": 1.0, "good_lost": 0.0}
    nothing = tally(documents, [words_of(one) for one in documents], Cleaned(texts, [""] * len(texts)))
    assert precision_recall(nothing.values()) == {"precision": None, "recall": 0.0, "good_lost": 0.0}
    untouched = apply_cleaning(texts, Cleaning((), None, None))
    assert untouched == Cleaned(texts, [""] * len(texts))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--num-seeds", "1"), "has no spread"),
        (("--ablation-seeds", "3"), "outside 0 .. num_seeds=2"),
        (("--junk.spam", "0.9"), "the sum below 1"),
        (("--junk.copies", "0.35"), "more copies than good text"),
        (("--tokenizer.kind", "char"), "has no bits per byte"),
        (("--document-characters", "0"), "document_characters=0"),
    ],
)
def test_bad_values_are_one_line(config_file, capsys, argv, message):
    assert run_main(cleaning_study.main, [str(config_file), *argv]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_a_recipe_names_each_step_once():
    with pytest.raises(ValueError, match="two steps of the recipe have one name"):
        CleaningStudyConfig(recipe=(Repetition(), Repetition()))
    with pytest.raises(ValueError, match="is no cleaning step"):
        CleaningStudyConfig(recipe=("repetition",))
