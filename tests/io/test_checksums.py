"""Laws of manifests: what was sealed is intact; whatever changes afterwards is found and named."""

import json

import pytest
from etils import epath

from jaxlm.io.checksums import digest, find_damage, is_sealed, part_name, unseal, write_manifest


@pytest.fixture
def directory(tmp_path):
    path = epath.Path(tmp_path / "5")
    for name, content in {"a": b"one", "d/b": b"x" * 40, "d/e/c": b"", "meta": b"{}"}.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_sealed_when_all_parts_are_there_and_intact(directory, parts):
    for part in reversed(range(parts)):
        assert not is_sealed(directory)
        assert find_damage(directory) == ["the checksums are missing"]
        write_manifest(directory, part, parts)
    assert is_sealed(directory)
    assert find_damage(directory) == []
    listed = [json.loads((directory / part_name(part, parts)).read_text())["files"] for part in range(parts)]
    assert sorted(name for files in listed for name in files) == ["a", "d/b", "d/e/c", "meta"]
    (directory / part_name(parts - 1, parts)).unlink()
    assert not is_sealed(directory)


def test_a_digest_is_of_what_the_files_hold(directory):
    """The same before and after sealing, and of the manifest in any number of parts; no other byte has it."""
    bare = digest(directory)
    for part in range(3):
        write_manifest(directory, part, 3)
    assert digest(directory) == bare
    unseal(directory)
    (directory / "a").write_bytes(b"two")
    assert digest(directory) != bare


def test_a_part_that_another_process_is_writing_is_no_file(directory):
    """Seen with two processes under load: the half-written part was listed, and moved every share after it by one."""
    being_written = directory / f"{part_name(0, 2)}.partial"
    being_written.write_bytes(b"{")
    write_manifest(directory, 1, 2)
    being_written.unlink()
    write_manifest(directory, 0, 2)
    assert find_damage(directory) == []


def test_each_kind_of_damage_is_named(directory):
    write_manifest(directory, 0, 2)
    write_manifest(directory, 1, 2)
    (directory / "a").write_bytes(b"two")
    (directory / "d/b").write_bytes(b"x" * 12)
    (directory / "d/e/c").write_bytes(b"more")
    (directory / "meta").unlink()
    (directory / "d/new").write_bytes(b"")
    (directory / part_name(0, 3)).write_bytes(b"")
    assert find_damage(directory) == [
        "a: contents changed",
        f"{part_name(0, 3)}: not in the manifest",
        "d/b: truncated to 12 of 40 bytes",
        "d/e/c: grown from 0 to 4 bytes",
        "d/new: not in the manifest",
        "meta: missing",
    ]
    assert "a: contents changed" not in find_damage(directory, contents=False)
    unseal(directory)
    assert not is_sealed(directory)
    assert (directory / "a").exists()


def test_any_bit_and_any_length_of_the_manifest_counts(directory):
    write_manifest(directory)
    path = directory / part_name(0, 1)
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(changed))
        assert find_damage(directory, contents=False) == [f"{path.name}: contents changed"]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert find_damage(directory, contents=False) == [f"{path.name}: contents changed"]
    path.write_bytes(whole)
    assert find_damage(directory) == []


def test_a_part_in_the_place_of_another_is_found(directory):
    for part in range(2):
        write_manifest(directory, part, 2)
    (directory / part_name(0, 2)).write_bytes((directory / part_name(1, 2)).read_bytes())
    assert find_damage(directory) == [f"{part_name(0, 2)}: this is part 1 of 2, renamed"]


def test_sealing_again_after_a_cut_is_the_same(directory):
    write_manifest(directory)
    before = (directory / part_name(0, 1)).read_bytes()
    write_manifest(directory)
    assert (directory / part_name(0, 1)).read_bytes() == before
    assert find_damage(directory) == []


@pytest.mark.parametrize("shares", [1, 2, 5])
def test_shares_find_together_what_one_alone_does(directory, shares):
    for part in range(2):
        write_manifest(directory, part, 2)
    assert all(find_damage(directory, share=share, shares=shares) == [] for share in range(shares))
    paths = [directory / name for name in ("a", "d/b", "meta")]
    for path in paths:
        data = bytearray(path.read_bytes())
        data[0] ^= 1
        path.write_bytes(data)
    found = [set(find_damage(directory, share=share, shares=shares)) for share in range(shares)]
    assert sum(map(len, found)) == len(paths)
    assert sorted(set.union(*found)) == find_damage(directory)
