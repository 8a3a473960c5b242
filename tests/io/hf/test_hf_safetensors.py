"""Our safetensors against the format's own library, and files that are not whole."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlm.core.errors import UserError
from jaxlm.io.hf.safetensors import INDEX_FILE, Planned, read_header, read_tensors, write_tensors

ARRAYS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.arange(5, dtype=np.int64),
    "half": np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16),
    "none": np.zeros((0, 4), np.float16),
    "one": np.array(3.5, np.float32),
}


def write(directory, arrays, max_file_bytes=1 << 30):
    plan = [Planned(name, array.shape, array.dtype) for name, array in arrays.items()]
    rows = lambda array: iter([array] if array.ndim == 0 else [array[i : i + 1] for i in range(len(array))])  # noqa: E731
    return write_tensors(directory, plan, lambda tensor: rows(arrays[tensor.name]), max_file_bytes=max_file_bytes)


def assert_holds(directory):
    tensors = read_tensors(directory)
    assert tensors.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        read = tensors[name].read()
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)


def test_reads_what_the_library_writes(tmp_path):
    save_file(ARRAYS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_holds(tmp_path)


@pytest.mark.parametrize(("most", "files"), [(1 << 30, 1), (60, 2), (1, 5)])
def test_the_library_reads_what_is_written(tmp_path, most, files):
    paths = write(tmp_path, ARRAYS, most)
    assert len(paths) == files
    assert_holds(tmp_path)
    found = {name: array for path in paths for name, array in load_file(path).items()}
    for name, array in ARRAYS.items():
        assert found[name].tobytes() == array.tobytes()


def test_every_truncation_is_found(tmp_path):
    (path,) = write(tmp_path, ARRAYS)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"truncated|not a safetensors file"):
            read_header(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(UserError, match="damaged"):
        read_header(path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"shape": [3, 5]}, "gives tensor a 48 bytes, and F32 .3, 5. has 60"),
        ({"data_offsets": [4, 52]}, "gap or overlap"),
        ({"shape": None}, "names no tensors"),
        ({"data_offsets": [0.0, 48.0]}, "names no tensors"),
    ],
)
def test_headers_that_lie(tmp_path, change, match):
    header = {"a": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]} | change}
    text = json.dumps(header).encode()
    (tmp_path / "x").write_bytes(len(text).to_bytes(8, "little") + text + bytes(52))
    with pytest.raises(UserError, match=match):
        read_header(tmp_path / "x")


def test_index_and_files_agree(tmp_path):
    paths = write(tmp_path, ARRAYS, 60)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    for weight_map, match in (
        (index["weight_map"] | {"more": paths[0].name}, "puts tensor more into"),
        ({k: v for k, v in index["weight_map"].items() if k != "half"}, "holds tensor half, which"),
        (index["weight_map"] | {"a": "../a"}, "names the file"),
        (index["weight_map"] | {"a": "absent.safetensors"}, "cannot read"),
    ):
        (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(UserError, match=match):
            read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"weight_map": ["a"]}, "has no weight_map"),
        ({"weight_map": None}, "has no weight_map"),
        ({}, "has no weight_map"),
        ([], "holds no JSON object"),
        ({"weight_map": {"a": ["model.safetensors"]}}, "names the file"),
        ({"weight_map": {"a": "x.safetensors", "b": 3}}, "names the file 3"),
    ],
)
def test_an_index_of_other_types(tmp_path, content, match):
    (tmp_path / INDEX_FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match=match):
        read_tensors(tmp_path)


def test_other_formats_are_named(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"it has pytorch_model.bin"):
        read_tensors(tmp_path)
