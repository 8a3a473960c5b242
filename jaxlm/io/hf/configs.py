"""config.json as a config of ours and back, by the tables of `families`. What is not understood is refused by name."""

import dataclasses
import math
import typing
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.io.config_json import config_to_dict, diff_configs
from jaxlm.io.hf.families import FAMILIES, NO_MATTER, Family
from jaxlm.models.decoder import DecoderConfig, MoeConfig, RopeConfig
from jaxlm.models.encoder_config import EncoderConfig

_ROPE_NAMES = {
    "none": (),
    "one": ("rope_parameters", "rope_theta", "rope_scaling"),
    "two": ("rope_parameters", "rope_theta", "rope_scaling", "rope_local_base_freq"),
}
"""`Family.rope` -> what config.json calls it: transformers 5 reads the first, 4.x the others."""
_WINDOW_NAMES = (
    "sliding_window", "use_sliding_window", "layer_types", "max_window_layers", "sliding_window_pattern",
    "_sliding_window_pattern",
)  # fmt: skip
_SCALINGS: dict[str, dict[str, tuple[str, Any]]] = {
    "default": {},
    "linear": {"factor": ("factor", ...)},
    "llama3": {
        "factor": ("factor", ...),
        "original_max_position_embeddings": ("original_max_seq_len", ...),
        "low_freq_factor": ("low_freq_factor", ...),
        "high_freq_factor": ("high_freq_factor", ...),
    },
    "yarn": {
        "factor": ("factor", ...),
        "original_max_position_embeddings": ("original_max_seq_len", ...),
        "beta_fast": ("beta_fast", 32.0),
        "beta_slow": ("beta_slow", 1.0),
        "attention_factor": ("attention_factor", None),
    },
}
"""Their rope_type -> its names, each (our field, default; ... = it must say)."""
_FREE = (
    "vocab_multiple", "dropout", "zero_init_outputs", "zero_init_head", "init_std", "param_dtype", "compute_dtype",
    "scan_layers", "remat_policy", "attention", "kernels", "logits_dtype", "quantization",
)  # fmt: skip
"""Fields of ours that do not alter a trained model's logits."""
_MOST = 10**8
"""No vocabulary, width or context is larger; what is larger would take all memory before its tensors are compared."""
_RECORDS: dict[str, Any] = {"decoder": DecoderConfig, "encoder": EncoderConfig}


def find_family(hf: dict[str, Any]) -> Family:
    """The family that config.json names. Raises UserError for one that jaxlm does not have."""
    named = hf.get("architectures")
    named = named[0] if isinstance(named, list) and named else named
    for family in FAMILIES:
        if family.architecture == named or (named is None and family.model_type == hf.get("model_type")):
            return family
    known = ", ".join(family.architecture for family in FAMILIES)
    raise UserError(f"architecture {named or hf.get('model_type')!r} is not supported: jaxlm reads {known}")


def read_config(family: Family, hf: dict[str, Any]) -> Any:
    """Our config for config.json. Raises UserError for a setting that is missing, unknown or not computed here."""
    try:
        return _read(family, hf)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:  # values of other types
        raise UserError(f"config.json cannot be read as {family.architecture}: {error}") from error


def _read(family: Family, hf: dict[str, Any]) -> Any:
    known = {*family.fields, *family.fixed, *_ROPE_NAMES[family.rope], *_WINDOW_NAMES, *NO_MATTER}
    # Files written by newer transformers name the experts of every family alike.
    if "num_local_experts" in hf and "num_experts" in family.fields:
        hf = {"num_experts": hf["num_local_experts"]} | {k: v for k, v in hf.items() if k != "num_local_experts"}
    for name, value in hf.items():
        if name not in known and value not in (None, False, [], {}):
            raise UserError(
                f"config.json has {name}={value!r:.80}, which jaxlm does not know for {family.architecture}: "
                "take it out if it alters nothing"
            )
    for name, values in family.fixed.items():
        if name in hf and hf[name] not in values:
            raise UserError(
                f"config.json has {name}={hf[name]!r}, and jaxlm computes {family.architecture} with {values[0]!r} only"
            )
    ours: dict[str, Any] = dict(family.ours)
    for name, (field, default) in family.fields.items():
        value = hf.get(name, default)
        if value is ... or (value is None and (default is ... or field == "vocab_size")):
            raise UserError(f"config.json lacks {name}: get the file again")
        if isinstance(value, int) and abs(value) > _MOST:
            raise UserError(f"config.json has {name}={value:.3g}, which is no size: get the file again")
        ours[field] = value
    num_layers = ours["num_layers"]
    if not isinstance(num_layers, int) or not 1 <= num_layers <= 10_000:
        raise UserError(f"config.json gives {num_layers!r} layers: it needs a whole number from 1")
    if family.rope != "none":
        ours["rope"] = _read_rope(family, hf)
    if family.record == "decoder":
        ours["window_pattern"] = _read_windows(family, hf, num_layers)
    return _build(_RECORDS[family.record], ours)


def _build(record: Any, ours: dict[str, Any]) -> Any:
    moe = {field.partition(".")[2]: value for field, value in ours.items() if field.startswith("moe.")}
    plain = {field: value for field, value in ours.items() if "." not in field}
    try:
        _check_types(MoeConfig, moe)
        _check_types(record, plain)
        return record(**plain, **({"moe": MoeConfig(**moe)} if "num_experts" in moe else {}))
    except (ValueError, TypeError) as error:
        raise UserError(f"config.json: {error}") from error


def _check_types(record: Any, values: dict[str, Any]) -> None:
    """Whole numbers, numbers and truth values where fields have them: JSON promises nothing."""
    hints = typing.get_type_hints(record)
    for name, value in values.items():
        kinds = set(typing.get_args(hints[name])) or {hints[name]}
        for kind, good in ((int, int), (float, (int, float)), (bool, bool)):
            wrong = not isinstance(value, good) or (kind is not bool and isinstance(value, bool))
            if kind in kinds and wrong and not (value is None and type(None) in kinds):
                raise ValueError(f"{name}={value!r} is not of type {kind.__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name}={value} is no number to compute with")
        if float in kinds and isinstance(value, int):
            values[name] = float(value)


def _read_rope(family: Family, hf: dict[str, Any]) -> RopeConfig:
    """The rotation, by the names of transformers 5 or 4.x. Raises UserError where a file has both and they differ."""
    said = {name: hf[name] for name in _ROPE_NAMES[family.rope] if hf.get(name) not in (None, {})}
    theta = said.get("rope_theta", family.theta)
    old = {"rope_theta": theta} | said.get("rope_scaling", {})
    new = said.get("rope_parameters")
    if family.rope == "one":
        rope = _rope_of(old if new is None else new, theta)
    else:
        both = {"full_attention": old} if new is None else new
        if others := sorted(both.keys() - {"full_attention", "sliding_attention"}):
            raise UserError(f"config.json has rope_parameters for {others[0]}: jaxlm knows full and sliding_attention")
        local = both.get("sliding_attention") or {}
        near = _rope_of(local, said.get("rope_local_base_freq", 10000.0))
        if near.scaling != "none":
            raise UserError(f"config.json rescales the rope of its local layers ({local!r:.80}), which jaxlm does not")
        rope = dataclasses.replace(_rope_of(both.get("full_attention") or {}, theta), local_theta=near.theta)
    scaled = _rope_of({"rope_theta": rope.theta} | said.get("rope_scaling", {}), rope.theta)
    differ = {
        "rope_theta": said.get("rope_theta", rope.theta) != rope.theta,
        "rope_scaling": "rope_scaling" in said and scaled != dataclasses.replace(rope, local_theta=None),
        "rope_local_base_freq": said.get("rope_local_base_freq", rope.local_theta) != rope.local_theta,
    }
    for name in said:
        if differ.get(name):
            raise UserError(
                f"config.json has {name}={said[name]!r:.80}, and {'rope_scaling' if new is None else 'rope_parameters'}"
                " says otherwise: take out what is wrong"
            )
    return rope


def _rope_of(params: dict[str, Any], theta: float) -> RopeConfig:
    kind = params.get("rope_type", params.get("type", "default"))
    if kind not in _SCALINGS:
        raise UserError(f"config.json has rope_type={kind!r}: jaxlm computes {', '.join(_SCALINGS)}")
    table = _SCALINGS[kind]
    for name, value in params.items():
        harmless = value is None or (name == "partial_rotary_factor" and value == 1)
        if name not in (*table, "rope_type", "type", "rope_theta") and not harmless:
            raise UserError(f"config.json has {name}={value!r} in its rope of type {kind!r}, which jaxlm does not know")
    fields: dict[str, Any] = {"theta": params.get("rope_theta", theta)}
    for name, (field, default) in table.items():
        value = params.get(name, default)
        if value is ...:
            raise UserError(f"config.json has rope_type={kind!r} without {name}: get the file again")
        fields[field] = value
    try:
        _check_types(RopeConfig, fields)
        return RopeConfig(scaling="none" if kind == "default" else kind, **fields)
    except (ValueError, TypeError) as error:
        raise UserError(f"config.json: {error}") from error


def _read_windows(family: Family, hf: dict[str, Any], num_layers: int) -> tuple[int | None, ...]:
    window = hf.get("sliding_window")
    if family.switched and not hf.get("use_sliding_window", False):
        window = None
    if family.windows == "none" or (family.switched and window is None):
        return (None,)
    if window is not None and (not isinstance(window, int) or isinstance(window, bool)):
        raise UserError(f"config.json says sliding_window={window!r:.80}, which is no whole number: get the file again")
    if family.windows == "one":
        return (window,)
    types = hf.get("layer_types")
    if types is None:
        period = hf.get("sliding_window_pattern", hf.get("_sliding_window_pattern", 6))
        first = hf.get("max_window_layers", 28)
        local = [i >= first if family.switched else bool((i + 1) % period) for i in range(num_layers)]
    else:
        if len(types) != num_layers or not set(types) <= {"full_attention", "sliding_attention"}:
            kinds = ", ".join(sorted(map(str, set(types))))
            raise UserError(
                f"config.json has {len(types)} layer_types ({kinds}) for {num_layers} "
                "layers: jaxlm computes full_attention and sliding_attention, one for each layer"
            )
        local = [kind == "sliding_attention" for kind in types]
    if any(local) and window is None:
        raise UserError("config.json has layers of sliding_attention without sliding_window: get the file again")
    windows = tuple(window if is_local else None for is_local in local)
    period = next(p for p in range(1, num_layers + 1) if all(windows[i] == windows[i % p] for i in range(num_layers)))
    return windows[:period]


def write_config(config: Any) -> tuple[Family, dict[str, Any]]:
    """The family whose model has the same logits, and its config.json.

    Where ours lacks gains or biases that the family has, they are to be written as ones and zeros. Raises UserError,
    naming what stands in the way in the nearest family, where there is none.
    """
    if config.family == "encoder" and config.num_token_types == 0:
        raise UserError(
            "model.num_token_types=0: BERT's form has a table of token types, and transformers opens none of 0 rows: "
            "train the encoder with model.num_token_types=1 or more to export it"
        )
    nearest: tuple[int, str] = (1 << 30, "")
    for family in FAMILIES:
        with_experts = "moe.top_k" in {field for field, _ in family.fields.values()}
        if family.record != config.family or with_experts != (getattr(config, "moe", None) is not None):
            continue
        hf = _render(family, config)
        try:
            back = read_config(family, hf)
        except UserError as error:
            nearest = min(nearest, (99, f"{family.architecture}: {error}"))
            continue
        differences = diff_configs(_canonical(config, like=back), _canonical(back))
        if not differences:
            return family, hf
        nearest = min(nearest, (len(differences), f"{family.architecture}, with {'; '.join(differences[:4])}"))
    near = f"; nearest is {nearest[1]}" if nearest[1] else ""
    raise UserError(f"no family of Hugging Face's that jaxlm writes computes this {config.family}{near}")


def _render(family: Family, config: Any) -> dict[str, Any]:
    """config.json of a family with our values, fitting or not."""
    derived = _derived(config)

    def ours(field: str) -> Any:
        record: Any = config
        for name in field.split("."):
            record = getattr(record, name, None)
        value = derived.get(field, record)
        return int(value) if isinstance(value, float) and field == "query_pre_attn_scalar" and value % 1 == 0 else value

    hf: dict[str, Any] = {"architectures": [family.architecture], "model_type": family.model_type}
    hf |= {name: ours(field) for name, (field, _) in family.fields.items()}
    hf |= {name: values[0] for name, values in family.fixed.items()}
    if family.rope != "none":
        hf |= _render_ropes(family, config.rope)
    if family.record == "encoder":
        return hf
    windows = [config.pattern_window(i) for i in range(config.num_layers)]
    if family.windows != "none":
        hf["sliding_window"] = next((window for window in windows if window is not None), None)
    if family.windows == "types":
        hf["layer_types"] = ["full_attention" if window is None else "sliding_attention" for window in windows]
    if family.switched:
        hf["use_sliding_window"] = hf["sliding_window"] is not None
    return hf


def _render_ropes(family: Family, rope: RopeConfig) -> dict[str, Any]:
    """The rotation by its present names, and by those that transformers 4.x reads, which ignores the present ones."""
    whole = _render_rope(rope)
    scaling = {name: value for name, value in whole.items() if name != "rope_theta"}
    old = {"rope_theta": rope.theta, "rope_scaling": None if rope.scaling == "none" else scaling}
    if family.rope == "one":
        return {"rope_parameters": whole} | old
    near = rope if rope.local_theta is None else RopeConfig(theta=rope.local_theta)
    both = {"full_attention": whole, "sliding_attention": _render_rope(near)}
    return {"rope_parameters": both} | old | {"rope_local_base_freq": near.theta}


def _render_rope(rope: RopeConfig) -> dict[str, Any]:
    kind = "default" if rope.scaling == "none" else rope.scaling
    values = {name: getattr(rope, field) for name, (field, _) in _SCALINGS[kind].items()}
    return {"rope_type": kind, "rope_theta": rope.theta} | {k: v for k, v in values.items() if v is not None}


def _derived(config: Any) -> dict[str, Any]:
    """The sizes that a config may leave open."""
    sizes: dict[str, Any] = {"mlp_dim": config.mlp_width}
    if config.family == "decoder":
        sizes |= {"head_dim": config.head_width, "num_kv_heads": config.kv_heads}
        sizes["query_pre_attn_scalar"] = config.query_pre_attn_scalar or float(config.head_width)
    return sizes


def _canonical(config: Any, *, like: Any = None) -> dict[str, Any]:
    """What a config computes, each thing said in one way. ``like``: gains and biases that it has need not be here."""
    defaults = config_to_dict(_RECORDS[config.family]())
    record = config_to_dict(config) | {name: defaults[name] for name in _FREE if name in defaults} | _derived(config)
    if like is not None:
        record["bias"] = config.bias or like.bias
    if config.family == "encoder":
        # A pooler is no part of the masked objective, and is left out.
        return record | {"pooler": False, "rope": None if config.position != "rope" else record["rope"]}
    if like is not None and not config.norm_scale:
        record["norm_scale"], record["norm_offset"] = like.norm_scale, like.norm_offset
    windows = [config.pattern_window(i) for i in range(config.num_layers)]
    record["window_pattern"] = windows
    ropes = {} if config.position != "rope" else {str(w): config_to_dict(config.rope.of_window(w)) for w in windows}
    for rope in ropes.values():
        kind = "default" if rope["scaling"] == "none" else rope["scaling"]
        kept = {field for field, _ in _SCALINGS[kind].values()} | {"theta", "scaling"}
        for name in set(rope) - kept:
            del rope[name]
    record["rope"] = ropes
    if config.moe is not None:
        record["moe"] |= {"balance_coef": 0.0, "router_z_coef": 0.0}
    return record
