"""Damage of any kind ends in a note, never in a crash: every format and packing, cut and flipped at random places."""

import gzip
import random
import zipfile
from typing import Any

import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.source import ReadLimits
from tests.io.corpora.reading import read, zst
from tests.io.corpora.test_sources import _tar, _written

JSONL = _written("jsonl") * 20
SAMPLES: dict[str, Any] = {
    "a.jsonl": JSONL,
    "a.json": _written("json"),
    "a.csv": _written("csv") * 5,
    "a.tsv": _written("tsv") * 5,
    "a.parquet": _written("parquet"),
    "a.jsonl.gz": gzip.compress(JSONL),
    "a.jsonl.zst": lambda: zst(JSONL),
    "a.zip": b"",
    "a.tar": _tar({"in/a.jsonl": JSONL, "in/b.jsonl": JSONL}),
    "a.tar.gz": _tar({"in/a.jsonl": JSONL, "in/b.jsonl": JSONL}, "w:gz"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_damaged_files_are_noted_and_read_as_far_as_they_go(tmp_path, name):
    path = tmp_path / name
    sample = SAMPLES[name]
    content: Any = sample() if callable(sample) else sample
    if name == "a.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("in/a.jsonl", JSONL)
            archive.writestr("in/b.jsonl", JSONL)
        content = path.read_bytes()
    format = name.split(".")[1] if name.split(".")[1] not in ("zip", "tar") else "jsonl"
    chance = random.Random(0)
    limits = ReadLimits(max_document_bytes=4096, expansion_floor=1 << 20)
    path.write_bytes(content)
    assert read(tmp_path, format, limits=limits)[0]
    for _ in range(150):
        damaged = bytearray(bytes(content))
        if chance.random() < 0.3:
            del damaged[chance.randrange(len(damaged)) :]
        for _ in range(chance.choice((1, 1, 4, 20))):
            if damaged:
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            documents, bad = read(tmp_path, format, limits=limits)
        except UserError as error:
            if "has no file at" not in str(error):
                raise
            continue  # an archive of which nothing can be found
        assert documents or bad.count or bad.num_passed
        assert all(r.file.startswith(str(path)) and r.reason for r in bad.records)
