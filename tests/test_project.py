"""The project's own files: what git tracks, the pins, the wheel, and that the documents say what is there."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from jaxlm.run import doctor

REPO = Path(__file__).resolve().parent.parent

LARGEST_FILE = 1_000_000
SOURCES = (".py", ".cc", ".h")

# Written so that this file does not hold what it looks for.
REGISTRY_HOSTS = re.compile(
    "|".join(
        host.replace(" ", re.escape("."))
        for host in ("pypi org", "pythonhosted org", "registry npmjs", "registry yarnpkg", "deb debian", "crates io")
    )
)
INDEX_FLAGS = re.compile(r"--(extra-)?index-(url)\b|--find-(links)\b|index[-_](url)\s*=")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:[w]ork|[r]oot|[f]arm|home/(?!user\b|USER\b)\w+|Users/\w+|tmp/tmp\w+)/")


def _listed() -> list[Path]:
    """What git tracks or would track; without git (an unpacked archive), the files of the source folders."""
    if (REPO / ".git").exists() and shutil.which("git"):
        command = ["git", "-C", str(REPO), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
        return sorted(REPO / name for name in names if name and (REPO / name).is_file())
    folders = ("jaxlm", "configs", "experiments", "tools", "tests", "docs", "notebooks")
    return sorted(p for f in folders for p in (REPO / f).rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def _text(path: Path) -> str:
    """A file's text; "" for what is not text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def _lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(REPO)}:{number}: {line.strip()[:100]}"
        for path in _listed()
        for number, line in enumerate(_text(path).splitlines(), 1)
        if pattern.search(line)
    ]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def pins() -> dict[str, Requirement]:
    lines = (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    found = {str(canonicalize_name(requirement.name)): requirement for requirement in requirements}
    assert len(found) == len(requirements), "a package is pinned twice"
    return found


@pytest.mark.parametrize("pattern", [REGISTRY_HOSTS, INDEX_FLAGS, MACHINE_PATHS], ids=["hosts", "index", "paths"])
def test_no_address_of_a_registry_or_path_of_a_machine(pattern):
    found = _lines_with(pattern)
    assert not found, "\n" + "\n".join(found)


def test_the_patterns_find_what_they_should():
    assert REGISTRY_HOSTS.search("https://files." + "pythonhosted" + ".org/x")
    assert INDEX_FLAGS.search("pip install --extra-" + "index-url x")
    assert MACHINE_PATHS.search("open('/" + "work/a')")
    assert not MACHINE_PATHS.search("a/workshop/b ../network/x")


def test_no_large_file():
    found = [
        f"{path.relative_to(REPO)}: {path.stat().st_size}" for path in _listed() if path.stat().st_size > LARGEST_FILE
    ]
    assert not found, found


def test_every_dependency_is_pinned_inside_its_bounds(project, pins):
    groups = project["optional-dependencies"]
    tested = [text for name in ("dev", "clean", "ray") for text in groups[name] if not text.startswith("jaxlm[")]
    for text in [*project["dependencies"], *tested]:
        requirement = Requirement(text)
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} is not in constraints.txt"
        (specifier,) = pin.specifier
        assert specifier.operator == "==", f"{pin} pins nothing"
        assert requirement.specifier.contains(specifier.version), f"{pin} is outside {requirement}"


def test_pins_are_bare_versions(pins):
    for pin in pins.values():
        assert pin.url is None
        assert len(pin.specifier) == 1
        Version(next(iter(pin.specifier)).version)


def test_every_dependency_has_bounds(project):
    groups = project["optional-dependencies"].values()
    extras = [text for group in groups for text in group if not text.startswith("jaxlm[")]  # an extra of our own
    for text in [*project["dependencies"], *extras]:
        assert any(s.operator in (">=", "==") for s in Requirement(text).specifier), f"{text} has no lower bound"
    for text in extras:
        assert any(s.operator in ("<", "==") for s in Requirement(text).specifier), f"{text} has no upper bound"


def test_extras_and_command(project):
    assert set(project["optional-dependencies"]) == set(doctor.EXTRAS)
    assert project["scripts"] == {"jaxlm": "jaxlm.run.cli:main"}


def test_changelog_has_an_unreleased_part_and_this_version(project):
    text = (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[?Unreleased\]?", text, re.MULTILINE)
    assert project["version"] in text


def test_readme_opens_with_the_two_commands():
    text = (REPO / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^make (\S+)", text, re.MULTILINE)[:2] == ["quickstart", "test"]
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    if "-m 'not slow'" in makefile:
        assert "runs every test" not in text
        assert "make test-slow" in text.partition("## ")[0], "say where the tests are that `make test` leaves out"


def test_make_targets_in_documents_exist():
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert {"install", "quickstart", "test", "test-slow", "fmt", "lint", "type", "bench"} <= targets
    for path in (REPO / "README.md", *(REPO / "docs").glob("*.md")):
        said = set(re.findall(r"(?:^|`)make ([a-z][a-z -]*[a-z])", path.read_text(encoding="utf-8"), re.MULTILINE))
        unknown = {word for words in said for word in words.split()} - targets
        assert not unknown, f"{path.name} names make targets that do not exist: {unknown}"


def test_modules_named_in_documents_exist():
    for path in (REPO / "README.md", *(REPO / "docs").glob("*.md")):
        for folder, name in re.findall(r"python -m (experiments|tools)\.([a-z]\w*)", path.read_text(encoding="utf-8")):
            module = REPO / folder / name
            there = module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()
            assert there, f"{path.name}: there is no {folder}/{name}.py"


def test_links_in_documents_lead_somewhere():
    found = []
    for path in (REPO / "README.md", REPO / "CHANGELOG.md", *(REPO / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            if not target.startswith(("http://", "https://", "#", "mailto:")):
                file = path.parent / target.partition("#")[0]
                if not file.exists():
                    found.append(f"{path.relative_to(REPO)} -> {target}")
    assert not found, found


def test_every_page_is_linked_from_the_index():
    index = (REPO / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {path.relative_to(REPO / "docs").as_posix() for path in (REPO / "docs").rglob("*.md")} - {"index.md"}
    missing = {page for page in pages if f"]({page}" not in index}
    assert not missing, f"link them from docs/index.md: {missing}"


def test_notebooks_hold_no_outputs():
    for path in (REPO / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs"), f"{path.name} holds outputs: clear them"
            assert cell.get("execution_count") is None, f"{path.name} holds execution counts: clear them"


def test_wheel_ships_the_package_alone(tmp_path, project):
    """Built in this environment (no download); what it needs is the dependencies and nothing of the repository."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel: make install")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(REPO)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    info = f"jaxlm-{project['version']}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert {name.split("/")[0] for name in names} == {"jaxlm", info}
        assert not [name for name in names if "__pycache__" in name]
        assert "jaxlm = jaxlm.run.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
        assert any(name.endswith("/LICENSE") for name in names)
        shipped = {name for name in names if name.startswith("jaxlm/") and name.endswith(SOURCES)}
    sources = {path.relative_to(REPO).as_posix() for end in SOURCES for path in (REPO / "jaxlm").rglob(f"*{end}")}
    assert "jaxlm/run/kernels/recurrent.cc" in sources
    assert shipped == sources
