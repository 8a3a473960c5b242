"""Hashes of files that are kept: a file that has changed is read anew, others are not."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.corpora import hashes
from jaxlm.io.corpora.corpus import open_corpus
from jaxlm.io.corpora.hashes import hash_files


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def read(monkeypatch):
    """The names of the files that were read."""
    names, digest = [], hashlib.file_digest

    def noting(file, name):
        names.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(hashes.hashlib, "file_digest", noting)
    return names


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(hashes, "SETTLED_SECONDS", 0.0)
    paths = [tmp_path / name for name in ("a", "b", "missing")]
    paths[0].write_text("one")
    paths[1].write_text("two")
    time.sleep(0.02)
    return paths


def test_only_what_has_changed_is_read(tmp_path, files, read):
    keep = tmp_path / "kept"
    assert hash_files(files, keep) == [sha256("one"), sha256("two"), ""]
    assert hash_files(files, keep) == [sha256("one"), sha256("two"), ""]
    assert sorted(read) == ["a", "b"]
    stat = files[1].stat()
    files[1].write_text("ten")  # as long, and with its old time: the entry's own time tells
    os.utime(files[1], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    time.sleep(0.02)
    assert hash_files(files, keep) == [sha256("one"), sha256("ten"), ""]
    assert sorted(read) == ["a", "b", "b"]
    files[2].write_text("three")
    assert hash_files(files[::-1], keep)[0] == sha256("three")


def test_a_file_that_was_just_written_is_read_again(tmp_path, files, read, monkeypatch):
    monkeypatch.setattr(hashes, "SETTLED_SECONDS", 3600)
    for _ in range(2):
        hash_files(files[:1], tmp_path / "kept")
    assert read == ["a", "a"]


@pytest.mark.parametrize("damage", ["", "[1]", '[["x"], 3, null]', "{}"])
def test_a_damaged_record_is_no_hash(tmp_path, files, read, damage):
    keep = tmp_path / "kept"
    whole = hash_files(files, keep)
    (record,) = keep.iterdir()
    record.write_text(damage)
    assert hash_files(files, keep) == whole
    assert hash_files(files, None) == whole
    assert len(read) == 6


def test_a_corpus_that_is_there_is_not_read_again(tmp_path, files, read):
    config = CorpusConfig(source="text", paths=(str(files[0]), str(files[1])), validation_fraction=0.5)
    first = open_corpus(config, data_dir=tmp_path / "cache")
    again = open_corpus(config, data_dir=tmp_path / "cache")
    assert again.content_hash == first.content_hash == open_corpus(config, data_dir=None).content_hash
    assert sorted(read) == ["a", "a", "b", "b"]
