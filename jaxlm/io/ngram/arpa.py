"""ARPA files: the text format of backoff models that KenLM, SRILM and others read and write.

Words are cut at ASCII spaces and tabs only. Log-probabilities are base 10 in the file, natural in the model. -99 or
less is log 0, as SRILM writes and reads it; ``<s>`` is never predicted and has probability 0 whatever its line says.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jaxlm.core.errors import UserError, is_full_disk
from jaxlm.io.ngram.word_vocab import BOS, EOS, SPECIAL_WORDS, UNK, WordVocab
from jaxlm.io.writing import check_new_file
from jaxlm.models.ngram import NgramModel
from jaxlm.models.ngram_estimate import BACKOFF_MODELS, MAX_ORDER
from jaxlm.models.ngram_fit import model_from_lists

LOG_ZERO = -99.0
_LN10 = math.log(10.0)
_LINES = 50_000
_UNK_TOO = b"<UNK>"
_TAB_TO_SPACE = bytes.maketrans(b"\t", b" ")
_ODD_BYTES = frozenset(b"\v\f\r\0")
"""They end a word in a text, and stand within one in a line here."""


def write_arpa(path: str | Path, model: NgramModel, words: list[bytes]) -> None:
    """Writes a model whole or not at all. Raises UserError for a smoothing that no ARPA file can hold, and where no
    file can be written."""
    if model.config.smoothing not in BACKOFF_MODELS:
        raise UserError(
            f"smoothing {model.config.smoothing!r} is no backoff model, which is all that ARPA holds: "
            "export 'kneser-ney' or 'ml'"
        )
    check_new_file(path)
    path = Path(os.path.realpath(path))  # a link stays, and what it points to is written
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            sizes = [model.vocab_size, *(model.num_rows_used(n) for n in range(2, model.order + 1))]
            file.write(b"\\data\\\n" + b"".join(b"ngram %d=%d\n" % pair for pair in enumerate(sizes, start=1)))
            for n in range(1, model.order + 1):
                file.write(b"\n\\%d-grams:\n" % n)
                for text in _section(model, n, words):
                    file.write(text)
            file.write(b"\n\\end\\\n")
        os.replace(temporary, path)
    except OSError as error:
        mend = ": free space" if is_full_disk(error) else ""
        raise UserError(f"cannot write {path}: {error.strerror or error}{mend}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _section(model: NgramModel, n: int, words: list[bytes]) -> Iterator[bytes]:
    ids, values = model.grams(n)
    spelled = [word.decode("utf-8", "surrogateescape") for word in words]
    for begin in range(0, len(ids), _LINES):
        part = ids[begin : begin + _LINES]
        logs = np.maximum(values[begin : begin + _LINES].astype(np.float64) / _LN10, LOG_ZERO)
        columns = [[spelled[i] for i in part[:, j].tolist()] for j in range(n)]
        grams = map(" ".join, zip(*columns, strict=True))
        if n == model.order:
            lines = [f"{p:.8g}\t{gram}\n" for p, gram in zip(logs[:, 0].tolist(), grams, strict=True)]
        else:
            lines = [f"{p:.8g}\t{gram}\t{b:.8g}\n" for (p, b), gram in zip(logs.tolist(), grams, strict=True)]
        yield "".join(lines).encode("utf-8", "surrogateescape")


def read_arpa(path: str | Path) -> tuple[NgramModel, WordVocab]:
    """The model and the vocabulary of an ARPA file, ``<unk>``, ``<s>`` and ``</s>`` first.

    Raises UserError, the line named, for a file that is malformed, whose sections do not hold what they announce, or
    that lacks ``<unk>``, ``<s>`` or ``</s>``.
    """
    try:
        with open(path, "rb") as file:
            return _Reader(file, str(path)).read()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _number(field: bytes) -> float:
    """Raises ValueError also for what Python alone reads as a number: ``1_0``, and white space around one."""
    if b"_" in field or field != field.strip():
        raise ValueError(field)
    return float(field)


class _Reader:
    """One pass over the lines of an ARPA file."""

    def __init__(self, file: BinaryIO, name: str):
        self.file, self.name, self.number = file, name, 0
        self.num_bytes = os.fstat(file.fileno()).st_size

    def read(self) -> tuple[NgramModel, WordVocab]:
        sizes = self._header()
        self._expect(b"\\1-grams:")
        words, values = self._unigrams(sizes[0], highest=len(sizes) == 1)
        unigrams = np.zeros((len(words), 2), np.float32)
        order = [words.index(word) for word in SPECIAL_WORDS]
        special = set(order)
        order += [i for i in range(len(words)) if i not in special]
        words = [words[i] for i in order]
        unigrams[:] = np.array(values, np.float64)[order] * _LN10
        unigrams[BOS, 0] = -np.inf
        ids = {word: i for i, word in enumerate(words)}
        ids.setdefault(_UNK_TOO, UNK)
        lists = []
        for n in range(2, len(sizes) + 1):
            self._expect(b"\\%d-grams:" % n)
            lists.append(self._grams(n, sizes[n - 1], ids, highest=n == len(sizes)))
        self._expect(b"\\end\\")
        return model_from_lists(unigrams, lists, bos_id=BOS, eos_id=EOS, unk_id=UNK), WordVocab(words)

    def _refuse(self, why: str) -> UserError:
        return UserError(f"{self.name}, line {self.number}: {why}")

    def _line(self) -> bytes | None:
        """The next line that is not blank, without white space around it."""
        for line in self.file:
            self.number += 1
            line = line.strip(b" \t\r\n")
            if line:
                return line
        return None

    def _expect(self, wanted: bytes) -> None:
        line = self._line()
        if line != wanted:
            found = "the end of the file" if line is None else repr(line[:60].decode("utf-8", "replace"))
            raise self._refuse(f"{wanted.decode()} should stand here, not {found}")

    def _header(self) -> list[int]:
        self._expect(b"\\data\\")
        sizes: list[int] = []
        while True:
            place, number = self.file.tell(), self.number
            line = self._line()
            if line is None or not line.startswith(b"ngram"):
                self.file.seek(place)
                self.number = number
                break
            name, equals, size = line[5:].partition(b"=")
            if not equals or name.strip() != b"%d" % (len(sizes) + 1) or not size.strip().isdigit():
                raise self._refuse(f"'ngram {len(sizes) + 1}=COUNT' should stand here")
            shortest = 2 * len(sizes) + 4  # bytes of a line: a digit, the words, white space after each
            if len(size) > 18 or int(size) * shortest > self.num_bytes:
                raise self._refuse(f"a file of {self.num_bytes:,} bytes does not hold so many n-grams: is it whole?")
            if len(sizes) == MAX_ORDER:
                raise self._refuse(f"n-grams of an order above {MAX_ORDER} are not read")
            sizes.append(int(size))
        if not sizes:
            raise self._refuse("no 'ngram 1=COUNT' follows \\data\\: this is no ARPA file")
        return sizes

    def _fields(self, n: int, size: int, seen: int, highest: bool) -> tuple[float, list[bytes], float]:
        """Log-probability, words and log backoff of the next line."""
        line = self._line()
        if line is None or (line.startswith(b"\\") and line.rstrip(b":").endswith((b"-grams", b"\\end\\"))):
            raise self._refuse(f"section {n}-grams ends after {seen} of the {size} lines that \\data\\ announces")
        fields = line.translate(_TAB_TO_SPACE).split(b" ")
        if b"" in fields:
            fields = [field for field in fields if field]
        if len(fields) not in (n + 1, n + 2):
            raise self._refuse(
                f"a {n}-gram is a log-probability, {n} words and perhaps a backoff, not {len(fields)} fields"
            )
        try:
            logprob = _number(fields[0])
            backoff = _number(fields[n + 1]) if len(fields) == n + 2 else 0.0
        except ValueError:
            raise self._refuse("the log-probability or the backoff is no number") from None
        if not logprob <= 0.0:
            raise self._refuse(f"log-probability {logprob} is above 0")
        if not backoff <= -LOG_ZERO:
            raise self._refuse(f"backoff {backoff} is no number, or above {-LOG_ZERO:g}")
        if highest and backoff:
            raise self._refuse(f"a {n}-gram, the longest here, has no backoff")
        logprob, backoff = (-math.inf if value <= LOG_ZERO else value for value in (logprob, backoff))
        return logprob, fields[1 : n + 1], backoff

    def _unigrams(self, size: int, highest: bool) -> tuple[list[bytes], list[tuple[float, float]]]:
        words: list[bytes] = []
        values: list[tuple[float, float]] = []
        known: set[bytes] = set()
        for seen in range(size):
            logprob, (word,), backoff = self._fields(1, size, seen, highest)
            word = SPECIAL_WORDS[UNK] if word == _UNK_TOO else word
            if not _ODD_BYTES.isdisjoint(word):
                raise self._refuse(
                    f"the word {word.decode('utf-8', 'replace')!r} holds white space or a zero byte, which end a "
                    "word in a text: take it out"
                )
            if word in known:
                raise self._refuse(f"the word {word.decode('utf-8', 'replace')!r} stands here a second time")
            known.add(word)
            words.append(word)
            values.append((logprob, backoff))
        for word in SPECIAL_WORDS:
            if word not in known:
                raise self._refuse(f"there is no {word.decode()} among the 1-grams: export the model with it")
        return words, values

    def _grams(self, n: int, size: int, ids: dict[bytes, int], highest: bool) -> tuple[np.ndarray, np.ndarray]:
        grams = np.empty((size, n), np.int64)
        values = np.empty((size, 2), np.float32)
        for seen in range(size):
            logprob, words, backoff = self._fields(n, size, seen, highest)
            try:
                grams[seen] = [ids[word] for word in words]
            except KeyError as error:
                raise self._refuse(f"{error.args[0].decode('utf-8', 'replace')!r} is not among the 1-grams") from None
            values[seen] = logprob * _LN10, backoff * _LN10
        order = np.lexsort(grams.T[::-1])
        same = (grams[order][1:] == grams[order][:-1]).all(axis=1)
        if same.any():
            self.number += int(max(order[1:][same][0], order[:-1][same][0])) - size + 1
            raise self._refuse(f"this {n}-gram stands here a second time")
        return grams, values
