"""What is wrong with a parameter file, in the words of the one who wrote it."""

import difflib
import reprlib
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from saliency_r1.params.sections import TAGS


def complaint(entry: dict[str, Any], model: type[BaseModel]) -> str:
    """One line for one validation error of a model: key, value, what was expected."""
    *parents, last = entry["loc"]
    key = ".".join(str(part) for part in entry["loc"] if part not in TAGS)
    match entry["type"]:
        case "extra_forbidden":
            known = list(_not_null(_annotation(parents, model)).model_fields)
            near = difflib.get_close_matches(str(last), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
            return f"unknown parameter {key} = {_shown(entry['input'])}; {hint}"
        case "missing":
            return f"missing parameter {key}, expected {_type_name(_annotation(entry['loc'], model))}"
        case "value_error":
            return f"{key}: {entry['ctx']['error']}"
        case _:
            expected = f"{key} = {_shown(entry['input'])}, expected {_type_name(_annotation(entry['loc'], model))}"
            only_the_type = entry["type"].endswith("_type") or entry["type"] == "literal_error"
            return expected if only_the_type else f"{expected}: {entry['msg'].lower()}"


def _shown(value: Any) -> str:
    """A value in one line of bearable length, whatever it holds."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 100, 100
    return short.repr(value)


def _annotation(loc: Any, model: type[BaseModel]) -> Any:
    """The annotated type that stands at a location such as ('cgpo', 'isr', 'every') of a model."""
    found: Any = model
    for part in loc:
        found = _not_null(found)
        if part in TAGS:
            found = TAGS[part]
        elif isinstance(found, type) and issubclass(found, BaseModel):
            found = found.model_fields[part].annotation
        elif isinstance(part, int):
            found = get_args(found)[0]
    return found


def _not_null(annotation: Any) -> Any:
    """What else a value may be that may be null."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    return next(kind for kind in get_args(annotation) if kind is not NoneType)


def _type_name(annotation: Any) -> str:
    """A type as a person would write it: `float`, `one of 'a', 'b'`, `list of str`, `str or null`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if origin in (Union, UnionType):
        return " or ".join(map(_type_name, arguments))
    if annotation is NoneType:
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"a section with {', '.join(annotation.model_fields)}"
    return str(getattr(annotation, "__name__", annotation))


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key of a model with the type it expects: `("cgpo.lr", "float")`, ..."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _type_name(kind)
