"""A quality classifier in files: quality.json says what it is, weights.npz holds its numbers. Nothing in them runs."""

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.config_json import config_from_dict, config_to_dict
from jaxlm.io.run_dir import write_json
from jaxlm.io.writing import new_directory
from jaxlm.models.quality import QualityConfig, QualityModel

FORMAT_VERSION = 1
DEFINITION_FILE, WEIGHTS_FILE = "quality.json", "weights.npz"


def save_quality(directory: str | Path, model: QualityModel, *, replace: bool = False) -> None:
    """Writes the classifier as a new directory, whole or not at all. Raises UserError where the name is taken."""
    packed = io.BytesIO()
    np.savez_compressed(packed, weights=model.weights, bias=np.float64(model.bias))
    with new_directory(directory, replace=replace) as partial:
        (partial / WEIGHTS_FILE).write_bytes(packed.getvalue())
        write_json(
            partial / DEFINITION_FILE,
            {
                "format_version": FORMAT_VERSION,
                "config": config_to_dict(model.config),
                "facts": model.facts,
                "weights_sha256": hashlib.sha256(packed.getvalue()).hexdigest(),
            },
        )


def load_quality(directory: str | Path) -> QualityModel:
    """The classifier in ``directory``. Raises UserError where it is missing, damaged or of a newer format."""
    path = Path(directory)
    try:
        definition = json.loads((path / DEFINITION_FILE).read_bytes())
        weights = (path / WEIGHTS_FILE).read_bytes()
    except OSError as error:
        raise UserError(f"no quality classifier in {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path / DEFINITION_FILE} is damaged: fit the classifier again") from None
    if not isinstance(definition, dict) or definition.get("format_version") != FORMAT_VERSION:
        raise UserError(f"{path / DEFINITION_FILE} is not of format {FORMAT_VERSION}, which this jaxlm reads")
    if hashlib.sha256(weights).hexdigest() != definition.get("weights_sha256"):
        raise UserError(f"{path / WEIGHTS_FILE} is damaged: its hash is not the one stated, fit the classifier again")
    config = config_from_dict(QualityConfig, definition.get("config", {}), str(path / DEFINITION_FILE))
    try:
        with np.load(io.BytesIO(weights), allow_pickle=False) as arrays:
            weights_f, bias = arrays["weights"], float(arrays["bias"])
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path / WEIGHTS_FILE} holds no classifier: {error}") from None
    if weights_f.shape != (config.num_buckets,) or weights_f.dtype != np.float32:
        raise UserError(f"{path / WEIGHTS_FILE} has {weights_f.shape} weights, not {config.num_buckets}")
    return QualityModel(config, weights_f, bias, dict(definition.get("facts", {})))


@dataclasses.dataclass(frozen=True)
class QualityScore:
    """The classifier in a directory as a score: a plain value, opened where and when it is first used."""

    path: str

    @property
    def fingerprint(self) -> str:
        """Of the classifier that lies there now; it is another one when it is fitted again."""
        return hashlib.sha256((Path(self.path) / DEFINITION_FILE).read_bytes()).hexdigest()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """The probability of good, f32 [n]."""
        if self.path not in _OPENED:
            _OPENED[self.path] = load_quality(self.path)
        return _OPENED[self.path](texts)


_OPENED: dict[str, QualityModel] = {}
