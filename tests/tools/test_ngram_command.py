"""``python -m tools.ngram``: published perplexities, files that open again, one line for what is wrong."""

import json
import subprocess
import sys

import numpy as np
import pytest

import jaxlm
from jaxlm.core.errors import UserError
from jaxlm.io.ngram.sentences import PIECE
from jaxlm.io.tokenizers import ByteTokenizer
from jaxlm.models.ngram_fit import fit_ngram
from jaxlm.run.cli import run_main
from jaxlm.run.ngram_lm import NgramLM
from jaxlm.run.ngram_runs import new_run, write_run
from tools.ngram import main

TEXT = "the cat sat\n\nthe cat ran\n  \t\nthe <unk> sat on the cat\n"


@pytest.fixture
def run(capsys):
    """Runs the command in this process: (exit code, last line of stdout as JSON, stderr)."""

    def run(*argv):
        code = run_main(main, [str(arg) for arg in argv])
        out, err = capsys.readouterr()
        return code, json.loads(out.splitlines()[-1]) if out else None, err

    return run


@pytest.fixture
def fitted(run, tmp_path):
    (tmp_path / "train").write_text(TEXT)
    code, figures, _ = run("fit", "--order", 3, "--text", tmp_path / "train", "--out", tmp_path / "run")
    assert code == 0
    return tmp_path / "run", figures


@pytest.mark.parametrize(
    ("order", "options", "perplexity"),
    [
        (3, (), 247.65619940271102),
        (5, (), 239.98394435644792),
        (5, ("--prune", 0, 0, 1), 248.25636937976196),
    ],
)
def test_wikitext_2_as_kenlm_has_it(run, shared_data, tmp_path, order, options, perplexity):
    """The raw files: empty lines dropped, <unk> an ordinary word. The figures are those of KenLM's lmplz and query."""
    folder = shared_data / "text" / "wikitext-2"
    code, figures, _ = run(
        "fit", "--order", order, "--text", folder / "train.recovered.txt.gz", "--out", tmp_path / "run", *options
    )
    assert (code, figures["num_tokens"]) == (0, 2_075_677)
    code, figures, err = run("score", tmp_path / "run", "--text", folder / "valid.txt")
    assert (code, err) == (0, "")
    assert (figures["num_tokens"], figures["num_unknown"], figures["num_sentences"]) == (216_347, 0, 2_461)
    assert figures["perplexity"] == pytest.approx(perplexity, rel=1e-6)


def test_a_pruned_run_is_smaller_and_says_how_it_was_pruned(run, fitted, tmp_path):
    _, figures = fitted
    argv = ("fit", "--order", 3, "--text", tmp_path / "train", "--out", tmp_path / "small", "--prune-entropy", 1e-2)
    code, pruned, err = run(*argv, "--arpa", tmp_path / "a.arpa", "--memory", "1K")
    assert code == 0
    assert sum(pruned["num_grams"]) < sum(figures["num_grams"])
    assert f"pruning leaves {pruned['num_grams'][0]}, {pruned['num_grams'][1]}, " in err
    assert jaxlm.load(tmp_path / "small").config.prune_entropy == 1e-2
    assert f"ngram 3={pruned['num_grams'][2]}" in (tmp_path / "a.arpa").read_text()


def test_empty_lines_are_left_out_and_unknown_words_counted(run, fitted, tmp_path):
    path, figures = fitted
    assert (figures["num_tokens"], figures["vocab_size"]) == (3 + 3 + 6 + 3, 3 + 6)
    (tmp_path / "a").write_text("\n\nthe <unk> nix\n\t \n")
    (tmp_path / "b").write_text("the UNKNOWNWORD nought")
    scores = [run("score", path, "--text", tmp_path / name)[1] for name in "ab"]
    assert [(s["num_tokens"], s["num_unknown"], s["num_sentences"]) for s in scores] == [(4, 1, 1)] * 2
    assert scores[0]["perplexity"] == scores[1]["perplexity"]
    assert scores[0]["seconds"] >= 0


def test_threads_and_pieces_do_not_show(run, fitted, tmp_path):
    path, _ = fitted
    line = "the cat sat on nix the cat ran\n"
    (tmp_path / "long").write_text(line * (3 * PIECE // len(line)))
    one, four = (run("score", path, "--text", tmp_path / "long", "--threads", n)[1] for n in (1, 4))
    assert one.pop("seconds") >= 0
    assert four.pop("seconds") >= 0
    assert one == four
    (tmp_path / "short").write_text(line)
    short = run("score", path, "--text", tmp_path / "short")[1]
    assert one["perplexity"] == pytest.approx(short["perplexity"], rel=1e-9)


@pytest.mark.parametrize(
    "options", [("--smoothing", "add-k", "--k", 0.1), ("--smoothing", "backoff"), ("--smoothing", "ml")]
)
def test_other_smoothings(run, tmp_path, options):
    (tmp_path / "train").write_text(TEXT)
    assert run("fit", "--text", tmp_path / "train", "--out", tmp_path / "run", *options)[0] == 0
    code, figures, _ = run("score", tmp_path / "run", "--text", tmp_path / "train")
    assert code == 0
    assert figures["smoothing"] == options[1]
    assert 1 <= figures["perplexity"] < 9
    (tmp_path / "new").write_text("nix\n")
    figures = run("score", tmp_path / "run", "--text", tmp_path / "new")[1]
    assert (figures["perplexity"] is None) == (options[1] != "add-k")  # no probability at all: no number


def test_arpa_there_and_back(run, fitted, tmp_path):
    path, _ = fitted
    text, arpa = tmp_path / "train", tmp_path / "a.arpa"
    assert run("fit", "--order", 3, "--text", text, "--out", tmp_path / "two", "--arpa", arpa)[0] == 0
    assert run("export", path, "--arpa", tmp_path / "b.arpa")[0] == 0
    assert arpa.read_bytes() == (tmp_path / "b.arpa").read_bytes()
    assert run("import", arpa, "--out", tmp_path / "three")[0] == 0
    (tmp_path / "held").write_text("the cat sat on nix\n")
    ours, theirs = (run("score", tmp_path / name, "--text", tmp_path / "held")[1] for name in ("run", "three"))
    assert ours["perplexity"] == pytest.approx(theirs["perplexity"], rel=1e-6)


def test_a_memory_limit_changes_nothing(run, fitted, tmp_path):
    path, figures = fitted
    code, again, _ = run(
        "fit", "--order", 3, "--text", tmp_path / "train", "--out", tmp_path / "disk", "--memory", "1K"
    )
    assert code == 0
    assert {**again, "seconds": 0, "run_dir": ""} == {**figures, "seconds": 0, "run_dir": ""}
    for name in ("unigrams", "table_2", "table_3"):
        a, b = (np.load(where / "ngram" / f"{name}.npy") for where in (path, tmp_path / "disk"))
        used = slice(None) if name == "unigrams" else a[:, 0] != np.uint64(2**64 - 1)
        np.testing.assert_array_equal(a[used], b[used])
    assert sorted(p.name for p in (tmp_path / "disk").iterdir()) == ["config.json", "ngram", "tokenizer"]


def test_the_run_opens_by_its_handle(run, fitted, tmp_path):
    path, _ = fitted
    lm = jaxlm.load(path)
    assert isinstance(lm, NgramLM)
    assert (lm.family, lm.config.order) == ("ngram", 3)
    (score, empty) = lm.score(["the cat sat\nthe cat ran", ""])
    assert (score.num_tokens, score.num_bytes, score.bits_per_byte) == (8, 23, None)
    assert empty.num_tokens == 0
    (tmp_path / "held").write_text("the cat sat\nthe cat ran")
    assert np.exp(score.nats / 8) == pytest.approx(run("score", path, "--text", tmp_path / "held")[1]["perplexity"])
    with pytest.raises(UserError, match="lone surrogate"):
        lm.score(["\ud800"])
    logits = lm.logits([[1, 3, 4], [1, 0, 0]])
    assert logits.shape == (2, 3, 9)
    np.testing.assert_allclose(np.exp(logits).sum(-1), 1, rtol=1e-5)
    with pytest.raises(UserError, match="counted once"):
        jaxlm.load(path, step=3)


def test_generation_repeats_by_seed_and_is_scored_as_drawn(run, fitted):
    path, _ = fitted
    argv = ("generate", path, "--prompt", "the", "--max-new-tokens", 12, "--num-samples", 3, "--seed", 5)
    first, again, other = run(*argv)[1], run(*argv)[1], run(*argv[:-1], 6)[1]
    assert first == again != other
    lm = jaxlm.load(path)
    assert isinstance(lm, NgramLM)
    for one in first["completions"]:
        tokens = [1, *lm.tokenizer.encode("the"), *one["tokens"]]
        scored = lm.model.score(np.array(tokens))[2:]
        np.testing.assert_allclose(one["logprobs"], scored, rtol=1e-4, atol=1e-6)
        assert one["finish"] == ("stop" if tokens[-1] == 2 else "length")
        assert 0 not in tokens
    greedy = lm.generate(["the"], temperature=0, max_new_tokens=3)[0]
    assert greedy.tokens == lm.generate(["the"], top_k=1, max_new_tokens=3, seed=9)[0].tokens
    assert greedy.text.startswith(" ")
    stopped = lm.generate(["the"], temperature=0, stop=["sat"], max_new_tokens=5)[0]
    assert "sat" not in stopped.text


def test_byte_models_have_bits_per_byte(tmp_path):
    """Over a tokenizer that spells any text, the same files give a likelihood of any text."""
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode_batch(["to be or not to be", "天下"])
    with new_run(tmp_path / "run") as partial:
        model = fit_ngram(ids, tokenizer.vocab_size, 4, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
        write_run(partial, model, tokenizer, {})
    lm = jaxlm.load(tmp_path / "run")
    (known, strange) = lm.score(["to be", "\u00fc?"])
    assert (known.num_tokens, strange.num_tokens) == (5, 3)
    assert known.bits_per_byte is not None
    assert strange.bits_per_byte is not None
    assert known.bits_per_byte < 4 < strange.bits_per_byte
    assert lm.generate(["to "], seed=1, max_new_tokens=30)[0].prompt == "to "


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fit", "--order", "0", "--text", "TRAIN", "--out", "OUT"], "order=0 is outside"),
        (["fit", "--order", "two", "--text", "TRAIN", "--out", "OUT"], "invalid int value: 'two'"),
        (["fit", "--text", "NONE", "--out", "OUT"], "no text"),
        (["fit", "--text", "DIR", "--out", "OUT"], "it is a directory"),
        (["fit", "--text", "EMPTY", "--out", "OUT"], "holds no word"),
        (["fit", "--text", "BLANK", "--out", "OUT"], "holds no word"),
        (["fit", "--text", "TRAIN", "--out", "TRAIN"], "exists already"),
        (["fit", "--text", "TRAIN", "--out", "TRAIN/x"], "cannot write"),
        (["fit", "--text", "TRAIN", "--out", "DIR", "--overwrite"], "is no n-gram run"),
        (["fit", "--text", "TRAIN", "--out", "OUT", "--smoothing", "witten-bell"], "smoothing='witten-bell'"),
        (["fit", "--text", "TRAIN", "--out", "OUT", "--prune", "1"], "would drop words"),
        (["fit", "--text", "TRAIN", "--out", "OUT", "--prune-entropy", "-1"], "prune_entropy=-1.0"),
        (["fit", "--text", "TRAIN", "--out", "OUT", "--prune-entropy", "1", "--smoothing", "ml"], "needs smoothing"),
        (["fit", "--text", "TRAIN", "--out", "OUT", "--memory", "lots"], "'lots' is no size"),
        (["fit", "--text", "TRAIN", "--out", "OUT", "--unk-word", "a b"], "unk_word='a b'"),
        (["fit", "--text", "TRAIN", "--out", "OUT", "--smoothing", "add-k", "--arpa", "X"], "--arpa holds backoff"),
        (["fit", "--text", "TRAIN", "--out", "OUT", "--arpa", "NONE/x"], "NONE is no directory"),
        (["fit", "--text", "TRAIN", "--out", "OUT", "--arpa", "TRAIN/x"], "TRAIN is no directory"),
        (["fit", "--text", "TRAIN", "--out", "OUT", "--arpa", "DIR"], "it is a directory"),
        (["fit", "--text", "TRAIN", "--out", "OUT", "--smoothing", "imported"], "is none of kneser-ney, add-k"),
        (["fit", "--text", "MARKED", "--out", "OUT"], "line 2 holds <s>"),
        (["fit", "--text", "TRAIN"], "required: --out"),
        (["fit", "--text", "TRAIN", "--out", "OUT", "--ordre", "3"], "unrecognized arguments: --ordre"),
        (["import", "BADARPA", "--out", "OUT"], "line 1: "),
        (["import", "NONE", "--out", "OUT"], "no ARPA file"),
        (["score", "OUT", "--text", "TRAIN"], "no run directory"),
        (["score", "DIR", "--text", "TRAIN"], "no n-gram model in"),
        (["score", "OUT", "--text", "TRAIN", "--threads", "0"], "threads=0"),
        (["generate", "OUT"], "no run directory"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(run, tmp_path, argv, message):
    folder = tmp_path / "DIR"
    folder.mkdir()
    (folder / "kept").write_text("mine")
    for name, text in (
        ("TRAIN", TEXT),
        ("EMPTY", ""),
        ("BLANK", " \n\n"),
        ("MARKED", "a\n<s> b\n"),
        ("BADARPA", "x\n"),
    ):
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    code, figures, err = run(*(str(tmp_path / arg) if arg.isupper() or "/" in arg else arg for arg in argv))
    assert (code, figures) == (2, None)
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_overwritten_run_is_the_new_one(run, fitted, tmp_path):
    path, _ = fitted
    argv = ("fit", "--order", 2, "--text", tmp_path / "train", "--out", path)
    assert run(*argv)[0] == 2
    assert jaxlm.load(path).config.order == 3
    assert run(*argv, "--overwrite")[0] == 0
    assert jaxlm.load(path).config.order == 2


def test_overwriting_deletes_no_other_file(run, fitted, tmp_path):
    path, _ = fitted
    fit = ("fit", "--order", 2, "--out", path, "--overwrite", "--text")
    arpa = path / "model.arpa"
    code, _, err = run(*fit, tmp_path / "train", "--arpa", arpa)
    assert (code, "lies in --out" in err) == (2, True)
    assert run("export", path, "--arpa", arpa)[0] == 0
    assert run("export", path, "--arpa", arpa)[0] == 0
    for argv, message in (
        ((*fit, tmp_path / "train"), "holds model.arpa, which --overwrite would delete"),
        (("import", arpa, "--out", path, "--overwrite"), "lies in --out"),
        ((*fit, arpa), "lies in --out"),
        (("export", path, "--arpa", path / "config.json"), "config.json is a file of the run itself"),
        (("export", path, "--arpa", path / "ngram" / "model.json"), "model.json is a file of the run itself"),
    ):
        code, _, err = run(*argv)
        assert (code, message in err) == (2, True), err
    assert arpa.exists()
    assert jaxlm.load(path).config.order == 3


def test_what_cannot_be_exported_is_one_line(run, fitted, tmp_path, monkeypatch):
    path, _ = fitted
    monkeypatch.chdir(tmp_path)
    for argv, message in (
        (("export", path, "--arpa", "train/x"), "train is no directory"),
        (("fit", "--text", "train", "--out", ".", "--overwrite"), "no n-gram run"),
        (("fit", "--text", "train", "--out", "."), "exists already"),
    ):
        code, _, err = run(*argv)
        assert (code, message in err) == (2, True), err
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code, _, err = run("fit", "--text", "../train", "--out", ".")
    assert (code, "is the working directory" in err) == (2, True), err


def test_an_imported_model_says_so(run, fitted, tmp_path):
    """Of a word without any probability, as SRILM writes one, the perplexity of the known words is still a number."""
    path, _ = fitted
    assert run("export", path, "--arpa", tmp_path / "a.arpa")[0] == 0
    text = (tmp_path / "a.arpa").read_text()
    unk = next(line for line in text.splitlines() if "<unk>" in line)
    (tmp_path / "b.arpa").write_text(text.replace(unk, "-99\t<unk>"))
    assert run("import", tmp_path / "b.arpa", "--out", tmp_path / "two")[0] == 0
    config = json.loads((tmp_path / "two" / "config.json").read_text())["config"]
    assert (config["model"]["smoothing"], jaxlm.load(tmp_path / "two").config.smoothing) == ("imported", "imported")
    (tmp_path / "held").write_text("the cat nix\n")
    figures = run("score", tmp_path / "two", "--text", tmp_path / "held")[1]
    assert (figures["smoothing"], figures["perplexity"], figures["nats"]) == ("imported", None, None)
    assert figures["perplexity_known_words"] > 1


def test_scoring_imports_nothing_heavy(fitted, tmp_path, repo):
    """The whole process counts: no JAX, no SentencePiece, nothing of the training stack."""
    code = (
        "import sys; from jaxlm.run.cli import run_main; from tools.ngram import main;"
        f"code = run_main(main, ['score', {str(fitted[0])!r}, '--text', {str(tmp_path / 'train')!r}]);"
        "heavy = {'jax', 'flax', 'optax', 'orbax', 'sentencepiece', 'tqdm', 'rich', 'tyro', 'pandas', 'scipy'};"
        "sys.exit(code or ' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_arpa_file_is_not_written_over_the_text(run, tmp_path):
    (tmp_path / "train").write_text(TEXT)
    (tmp_path / "link").symlink_to("train")
    for arpa in ("train", "link"):
        argv = ("fit", "--text", tmp_path / "train", "--out", tmp_path / "run", "--arpa", tmp_path / arpa)
        code, figures, err = run(*argv)
        assert (code, figures, len(err.splitlines())) == (2, None, 1)
        assert "is the text itself" in err
    assert (tmp_path / "train").read_text() == TEXT
    assert not (tmp_path / "run").exists()


def test_a_continuation_over_a_line_may_be_greedy(run, tmp_path):
    """The start of a sentence is no prediction: it is neither scored nor asked for."""
    (tmp_path / "train").write_text("a b\n" * 20 + "b a\n")
    assert run("fit", "--order", 2, "--text", tmp_path / "train", "--out", tmp_path / "run")[0] == 0
    greedy, other = jaxlm.load(tmp_path / "run").likelihoods([("a b", "\na b"), ("a b", "\nb a")])
    assert (greedy.is_greedy, greedy.num_tokens) == (True, 3)
    assert (other.is_greedy, other.num_tokens) == (False, 3)
