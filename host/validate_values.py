"""Single values: coercion, range, choice, and whether two socket types fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .declarations import InputSpec, is_finite, unwrapped

MAX_ECHOED_CHOICES = 20


def check_value(inputs: dict[str, Any], spec: InputSpec, ranges: bool) -> dict[str, Any] | None:
    """Coerces `inputs[spec.name]` in place; returns the first thing that is wrong with it."""
    raw = inputs[spec.name]
    value = unwrapped(raw)
    try:
        value = _coerced(value, spec.type)
    except (TypeError, ValueError, OverflowError) as error:
        return {
            "type": "invalid_input_type",
            "message": f"Failed to convert an input value to a {spec.type} value",
            "details": f"{spec.name}, {value}, {error}",
            "extra_info": {
                "input_name": spec.name,
                "input_config": spec.config,
                "received_value": value,
                "exception_message": str(error),
            },
        }
    # A wrapped list stays wrapped: unwrapped in place it could be taken for a link.
    if not isinstance(value, list):
        inputs[spec.name] = value
    return _out_of_range(value, spec) or _not_a_choice(value, spec) if ranges else None


def _coerced(value: Any, kind: Any) -> Any:
    convert: dict[str, Callable[[Any], Any]] = {
        "INT": int,
        "FLOAT": float,
        "STRING": str,
        "BOOLEAN": bool,
    }
    if not isinstance(kind, str) or kind not in convert:
        return value
    coerced = convert[kind](value)
    if not is_finite(coerced):
        raise ValueError(f"{coerced} is not a finite number")
    return coerced


def _out_of_range(value: Any, spec: InputSpec) -> dict[str, Any] | None:
    if not isinstance(value, (int, float)):
        return None
    low, high = spec.options.get("min"), spec.options.get("max")
    if low is not None and value < low:
        kind, message = "value_smaller_than_min", f"Value {value} smaller than min of {low}"
    elif high is not None and value > high:
        kind, message = "value_bigger_than_max", f"Value {value} bigger than max of {high}"
    else:
        return None
    return {
        "type": kind,
        "message": message,
        "details": spec.name,
        "extra_info": {
            "input_name": spec.name,
            "input_config": spec.config,
            "received_value": value,
        },
    }


def _not_a_choice(value: Any, spec: InputSpec) -> dict[str, Any] | None:
    choices = spec.choices
    if choices is None:
        return None
    chosen = value if spec.options.get("multiselect") and isinstance(value, list) else [value]
    wrong = [one for one in chosen if one not in choices]
    if not wrong:
        return None
    long = len(choices) > MAX_ECHOED_CHOICES
    offered = f"(list of length {len(choices)})" if long else str(choices)
    return {
        "type": "value_not_in_list",
        "message": "Value not in list",
        "details": f"{spec.name}: {', '.join(map(repr, wrong))} not in {offered}",
        "extra_info": {
            "input_name": spec.name,
            "input_config": None if long else spec.config,
            "received_value": value,
        },
    }


def types_fit(offered: Any, wanted: Any) -> bool:
    """Whether an output may feed an input; "A,B" is a union and "*" fits everything."""
    # Some packs define a string whose __ne__ is always False as their "any" type, so the
    # comparison must be this way round.
    if not offered != wanted:  # noqa: SIM202
        return True
    if isinstance(offered, (list, tuple)) and wanted == "COMBO":
        return True
    if not isinstance(offered, str) or not isinstance(wanted, str):
        return offered == "*" or wanted == "*"
    offers = {kind.strip() for kind in offered.split(",")}
    wants = {kind.strip() for kind in wanted.split(",")}
    return "*" in offers | wants or bool(offers & wants)
