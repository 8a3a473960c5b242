"""``python -m tools.pictures RUN_DIR``: draws docs/pictures/*.svg from the library itself and from a finished run.

RUN_DIR is a finished run of ``quickstart``, for its metrics. Every other picture calls the code that it shows.
"""

import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.core.masks import attention_mask
from jaxlm.data.batches import DataConfig, make_batch, pack_rows, train_plan
from jaxlm.data.corpus import CorpusConfig
from jaxlm.data.rows import ArraySource
from jaxlm.generate.sampling import SamplingConfig, filter_logits
from jaxlm.io.checkpoints import CheckpointConfig, Checkpointer
from jaxlm.io.corpora.corpus import open_corpus
from jaxlm.io.metrics import read_lines
from jaxlm.io.tokenizers import train_tokenizer
from jaxlm.io.writing import check_directory
from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.run.cli import run_main
from jaxlm.run.devices import cache_root
from jaxlm.run.parsers import tool_parser
from jaxlm.run.plan_scaling import draw_plan
from jaxlm.sharding.mesh import MeshConfig, make_mesh
from jaxlm.sharding.rules import match_rules, named_shardings
from jaxlm.text.tokenizer import TokenizerConfig

Axes = Any
"""Matplotlib's Axes: a list of them where a picture has several panels."""

INK, PALE = "#2563eb", "#e5e7eb"


def draw(path: Path, paint: Callable[[Any], None], *, panels: int = 1, size: tuple[float, float] = (7.2, 2.6)) -> None:
    """One SVG file; ``paint`` gets the array of axes."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "jaxlm",
        "font.family": "sans-serif",
        "font.size": 9,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        canvas = FigureCanvasSVG(figure)
        paint(figure.subplots(1, panels, squeeze=False)[0])
        out = io.StringIO()
        canvas.print_svg(out, metadata={"Date": None, "Creator": None})
    path.write_text("\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n", encoding="utf-8")


def data(axes: Axes) -> None:
    corpus = open_corpus(CorpusConfig(source="stdlib", stdlib_part="docstrings"), data_dir=cache_root())
    bins = np.logspace(1.5, 5.5, 40)
    for label, documents in (("to train on", corpus.train()), ("held out", corpus.validation())):
        axes[0].hist([len(d.text) for d in documents], bins=bins, alpha=0.7, label=label)
    axes[0].set(xscale="log", xlabel="characters of docstrings in a module", ylabel="modules")
    axes[0].legend(frameon=False)


def tokenizers(axes: Axes) -> None:
    corpus = open_corpus(CorpusConfig(source="stdlib", stdlib_part="docstrings"), data_dir=cache_root())
    texts = {"to train on": [d.text for d in corpus.train()], "held out": [d.text for d in corpus.validation()]}
    sizes = [512, 1024, 2048, 4096, 8192]
    made = [train_tokenizer(TokenizerConfig(kind="bpe", vocab_size=size), texts["to train on"]) for size in sizes]
    for label, some in texts.items():
        num_bytes = sum(len(text.encode()) for text in some)
        axes[0].plot(sizes, [num_bytes / sum(len(t.encode(x)) for x in some) for t in made], marker="o", label=label)
    axes[0].set(xscale="log", xticks=sizes, xticklabels=sizes, xlabel="BPE vocabulary", ylabel="bytes a token")
    axes[0].minorticks_off()
    axes[0].legend(frameon=False)


def batches(axes: Axes) -> None:
    lengths = np.random.default_rng(0).geometric(1 / 30, size=24) + 2
    documents = np.repeat(np.arange(len(lengths)), lengths) % 10 + 1  # a token is its document's colour
    source = ArraySource(documents, np.concatenate([[0], np.cumsum(lengths)]))
    for one, packing in zip(axes, ("best_fit", "concat"), strict=True):
        config = DataConfig(seq_len=64, packing=packing, shuffle=False)
        plan = train_plan(source, config, global_batch_size=pack_rows(source, config, batch_size=1).num_rows, seed=0)
        batch = make_batch(source, plan, plan.row_ids(0), pad_id=0)
        shown = np.where(batch["loss_mask"] > 0, batch["tokens"] - 1.0, np.nan)
        one.imshow(shown, cmap="tab10", aspect="auto", vmin=0, vmax=9, interpolation="none")
        one.set(title=f"{packing}: a colour a document", xlabel="place in the row", ylabel="row")


def model(axes: Axes) -> None:
    positions = jnp.arange(24)[None]
    segments = jnp.repeat(jnp.array([1, 2, 3]), 8)[None]
    inner = positions % 8
    masks = {
        "causal": attention_mask(positions, positions),
        "window 6": attention_mask(positions, positions, window=6),
        "three segments": attention_mask(inner, inner, segments, segments),
    }
    for one, (title, mask) in zip(axes, masks.items(), strict=True):
        one.imshow(np.asarray(mask[0]), cmap="Blues", vmin=0, vmax=1.3)
        one.set(title=title, xlabel="key", ylabel="query")


def sharding(axes: Axes) -> None:
    made = make_decoder(DecoderConfig(vocab_size=64, model_dim=32, num_heads=4, mlp_dim=64, scan_layers=False))
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, model=2), jax.devices())
    shapes = jax.eval_shape(made.init, jax.random.key(0))
    layout = named_shardings(mesh, match_rules(made.rules, shapes))
    table, where = shapes["embed"]["table"], layout["embed"]["table"]
    owners: dict[tuple[int, int], list[int]] = {}
    for device, (rows, columns) in where.devices_indices_map(table.shape).items():
        owners.setdefault((rows.start or 0, columns.start or 0), []).append(device.id)
    blocks = where.shard_shape(table.shape)
    for at, ((row, column), devices) in enumerate(sorted(owners.items())):
        axes[0].add_patch(_block((column, row), blocks[1], blocks[0], f"C{at}"))
        middle = (column + blocks[1] / 2, row + blocks[0] / 2)
        axes[0].annotate(f"devices {', '.join(map(str, devices))}", middle, ha="center", va="center")
    axes[0].set(xlim=(0, table.shape[1]), ylim=(table.shape[0], 0), xlabel="width: fsdp", ylabel="vocabulary: model")
    axes[0].set_title("embed/table on data=2, fsdp=2, model=2")


def _block(corner: tuple[int, int], width: int, height: int, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, facecolor=colour, alpha=0.45, edgecolor="white")


def checkpoints(axes: Axes) -> None:
    config = CheckpointConfig(save_every=1, keep_last=3, keep_every=5)
    kept = np.zeros((17, 17))
    with tempfile.TemporaryDirectory() as folder, Checkpointer(Path(folder), config) as checkpointer:
        for step in range(1, 17):
            checkpointer.save(step, {"x": jnp.zeros(2)}, {})
            checkpointer.wait()
            kept[step, checkpointer.steps()] = 1
    axes[0].imshow(
        kept[1:, 1:].T, cmap="Blues", vmin=0, vmax=1.3, origin="lower", extent=(0.5, 16.5, 0.5, 16.5), aspect=0.5
    )
    axes[0].set(title="keep_last=3, keep_every=5", xlabel="step reached", ylabel="steps on disk")


def generation(axes: Axes) -> None:
    logits = jnp.sort(jax.random.normal(jax.random.key(0), (1, 24)) * 2)[:, ::-1]
    ways = {
        "temperature 0.7": (0.7, SamplingConfig()),
        "top_k 5": (1.0, SamplingConfig(top_k=5)),
        "top_p 0.95": (1.0, SamplingConfig(top_p=0.95)),
        "min_p 0.05": (1.0, SamplingConfig(min_p=0.05)),
    }
    for one, (title, (temperature, config)) in zip(axes, ways.items(), strict=True):
        one.bar(range(24), np.asarray(jax.nn.softmax(logits))[0], color=PALE, width=1.0, label="model")
        one.step(
            range(24),
            np.asarray(jax.nn.softmax(filter_logits(logits / temperature, config)))[0],
            where="mid",
            color=INK,
        )
        one.set(title=title, xlabel="token by rank")
    axes[0].set_ylabel("probability (pale: the model's)")


def run_pictures(run_dir: Path) -> dict[str, Callable[[Axes], None]]:
    """Pictures of one run: its loss, and its score beside the compressor's."""
    lines = list(read_lines(run_dir / "metrics.jsonl"))
    final = json.loads((run_dir / "done.json").read_text(encoding="utf-8"))

    def series(key: str) -> tuple[list[int], list[float]]:
        found = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
        return [step for step, _ in found], [value for _, value in found]

    def pretraining(axes: Axes) -> None:
        axes[0].plot(*series("train/loss"), color=INK, linewidth=1)
        axes[0].set(xlabel="step", ylabel="training loss, nats a token", ylim=(3, None))
        axes[1].plot(*series("train/learning_rate"), color=INK)
        axes[1].set(xlabel="step", ylabel="learning rate")

    def evaluation(axes: Axes) -> None:
        axes[0].plot(*series("eval/bits_per_byte"), color=INK, marker="o", label="the model")
        axes[0].axhline(final["eval/xz_bits_per_byte"], color="#ea580c", linestyle="--", label="xz -9e, primed")
        axes[0].set(xlabel="step", ylabel="bits per byte, held out")
        axes[0].legend(frameon=False)

    return {"pretraining": pretraining, "evaluation": evaluation}


def main(argv: list[str]) -> int:
    """Draws them all."""
    parser = tool_parser("python -m tools.pictures", __doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a finished run of quickstart")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), metavar="DIR", help="default %(default)s")
    args = parser.parse_args(argv)
    if not (args.run_dir / "done.json").exists():
        parser.error(f"{args.run_dir} is no finished run: give the directory of a quickstart run that has ended")
    check_directory(args.out)
    jax.config.update("jax_num_cpu_devices", 8)
    args.out.mkdir(parents=True, exist_ok=True)
    panels = {"batches": 2, "model": 3, "generation": 4, "pretraining": 2}
    general = [data, tokenizers, batches, model, sharding, checkpoints, generation]
    for name, paint in ({f.__name__: f for f in general} | run_pictures(args.run_dir)).items():
        draw(args.out / f"{name}.svg", paint, panels=panels.get(name, 1))
    (args.out / "scaling.svg").write_text(draw_plan(5.76e23, None), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
