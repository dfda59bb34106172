"""Changes of a valid file: values of other types and sizes, other keys, another structure, other bytes."""

from __future__ import annotations

import copy
import json
import random
import tomllib
from collections.abc import Callable
from typing import Any

DEEP = 5000
"""Levels of a nested value: more than any parser's recursion takes."""
VALUES: tuple[Any, ...] = (
    [], [[]], ["x"], [1, 2, 3], {}, {"x": 1}, {"": None}, None, True, False, "", "x", "\0", "\n", "a\u202eb", "../../x",
    "/dev/zero", "x" * 300, "x" * 100_000, ["x" * 1000] * 100, -1, 0, 1, 7, 65, 2**31, 10**9, 2**63, 2**64, 10**400,
    -(10**9), 0.5, -0.0, 1e9, 1e-320, 1e300, float("nan"), float("inf"), float("-inf"), "1e9", "NaN", "\ud800",
)  # fmt: skip
"""What stands in the place of a value."""


def _value(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(VALUES))


def mutate(rng: random.Random, data: bytes, form: str) -> bytes:
    """One changed file of a ``form``: json, lines (of JSON), toml, safetensors or text."""
    changes = {"json": _json, "lines": _lines, "toml": _toml, "safetensors": _safetensors, "text": _bytes}
    return changes[form](rng, data) if rng.random() < 0.85 else _bytes(rng, data)


def resized(rng: random.Random, value: int | float) -> Any:
    """A number near another one, or of another size."""
    return rng.choice((value + 1, value - 1, -value, value * 2, value * 10**6, 0, float(value), str(value)))


def changed(rng: random.Random, tree: Any) -> Any:
    """A decoded document with one to three things changed in it, in place where it is a table or list."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places or rng.random() < 0.02:
            tree = _value(rng)
            continue
        holder, key = rng.choice(places)
        rng.choice(_CHANGES)(rng, holder, key)
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        found += [(node, key) for key in keys]
        waiting += [node[key] for key in keys]
    return found


def _replace(rng: random.Random, holder: Any, key: Any) -> None:
    holder[key] = _value(rng)


def _resize(rng: random.Random, holder: Any, key: Any) -> None:
    value = holder[key]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    holder[key] = resized(rng, value) if is_number else _value(rng)


def _delete(rng: random.Random, holder: Any, key: Any) -> None:
    del holder[key]


def _add(rng: random.Random, holder: Any, key: Any) -> None:
    if isinstance(holder, dict):
        holder[rng.choice(("x", "", "\0", f"{key} ", str(key).upper(), "__class__", "é"))] = _value(rng)
    else:
        holder.insert(key, rng.choice((copy.deepcopy(holder[key]), _value(rng))))


def _wrap(rng: random.Random, holder: Any, key: Any) -> None:
    holder[key] = rng.choice(
        ([holder[key]], {"x": holder[key]}, str(holder[key]), [copy.deepcopy(holder[key]), holder[key]])
    )


def _move(rng: random.Random, holder: Any, key: Any) -> None:
    other = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    holder[key], holder[other] = holder[other], holder[key]


_CHANGES: tuple[Callable[[random.Random, Any, Any], None], ...] = (
    _replace, _replace, _replace, _resize, _resize, _delete, _add, _wrap, _move,
)  # fmt: skip


def _json(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.03:
        return b"[" * DEEP + b"]" * DEEP
    text = json.dumps(changed(rng, json.loads(data)), ensure_ascii=rng.random() < 0.5)
    return _spoilt(rng, text).encode("utf-8", "surrogatepass")


def _spoilt(rng: random.Random, text: str) -> str:
    """Now and then what no tree can hold: a key given twice, a number too large, a string's half, deep nesting."""
    at = text.find(":", rng.randrange(max(1, len(text)))) + 1
    if at == 0 or rng.random() < 0.85:
        return text
    spoilt = ("1e400", "NaN", "-Infinity", "0123", '"\\ud800"', '{"a":1,"a":2}', "[" * DEEP + "]" * DEEP, "'x'", "")
    return text[:at] + rng.choice(spoilt) + "," * rng.randrange(2) + text[at:]


def _lines(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    number = rng.randrange(max(1, len(lines) - 1))
    lines[number] = _json(rng, lines[number]) if lines[number] else b"{}"
    if rng.random() < 0.2:
        lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return b"\n".join(lines)


def _toml(rng: random.Random, data: bytes) -> bytes:
    tree = changed(rng, tomllib.loads(data.decode()))
    pairs = tree.items() if isinstance(tree, dict) else [("x", tree)]
    text = "".join(f"{_toml_value(str(key))} = {_toml_value(value)}\n" for key, value in pairs)
    return _spoilt(rng, text).encode("utf-8", "surrogatepass")


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_value(str(key))} = {_toml_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    if isinstance(value, float):
        return repr(value)  # nan and inf are TOML's own words
    return json.dumps(value)


def _safetensors(rng: random.Random, data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size]
    if rng.random() < 0.7:
        header = _json(rng, header)
        if rng.random() < 0.8:  # the library counts the bytes of the header, which it pads
            header += b" " * (-len(header) % 8)
    length = rng.choice((0, 1, size + 1, 10**9, 2**63, 2**64 - 1)) if rng.random() < 0.15 else len(header)
    return length.to_bytes(8, "little") + header + data[8 + size :]


def _bytes(rng: random.Random, data: bytes) -> bytes:
    """The same file cut short, with flipped bits, of another encoding, or with bytes put in or taken out."""
    if not data:
        return rng.choice((b"\0", b"x", b"\xff\xfe"))
    at, other = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    odd = (b"", b"\0", b"\xff", b"\xff\xfe", b"\xed\xa0\x80", b"\r\n", b"\n", b'"', b"{", b"]", b"x" * 3000, b"," * 200)
    kind = rng.randrange(7)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[other:]
    if kind == 2:
        return data[:at] + rng.choice(odd) + data[at:]
    if kind == 3:
        return data.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")), "replace")
    if kind == 4:
        return data[:other] + data[at:]
    flipped = bytearray(data)
    head = min(len(data), 4096)  # what a reader looks at; the rest of a file of weights is numbers
    for _ in range(rng.choice((1, 1, 3, 10))):
        flipped[rng.randrange(head)] ^= 1 << rng.randrange(8)
    return bytes(flipped)
