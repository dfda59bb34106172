"""How numbers, names and foreign text are written: rounding, units, escapes, near matches."""

from __future__ import annotations

import difflib
import json
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from string import ascii_lowercase
from typing import Any

from bench.records import Delta, GridValue, Interval, Lora, Suite, Unit

NAME_RULE = (
    "1 to 100 of the characters A-Z a-z 0-9 . _ -, the first a letter or digit, "
    "without '..', no dot at the end, and none of Windows' device names (con, nul, com1, ...)"
)
"""What a variant, a prompt or a suite may be called: images live in folders and files of these names."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def is_good_name(name: str) -> bool:
    """Whether ``name`` keeps ``NAME_RULE``, so that it is one and the same file name on every system."""
    if _NAME.fullmatch(name) is None or ".." in name or name.endswith("."):
        return False
    return _DEVICE.fullmatch(name) is None


def argument(text: object) -> str:
    """A path, name or URL as one word of a command in a hint: quoted for a shell, and never taken for a flag."""
    word = str(text)
    return shlex.quote(f"./{word}" if word.startswith("-") else word)


def making(suite: Suite) -> str:
    """The command that makes a run of a suite, a sweep, an attribution or external images, up to further flags.

    Of a run of a grid it makes a grid of this one setting; ``continuing`` goes on in the folder that is there.
    """
    external, sweep, attribution = suite.external_images, suite.sweep, suite.attribution
    if external is not None:
        table = f" --prompts {argument(external.prompts)}" if external.prompts else ""
        chosen = f" --variants {','.join(external.variants)}" if external.variants else ""
        return f"hotart-bench score --images {argument(external.images)}{table}{chosen}"
    source = argument(suite.source or suite.name)
    if attribution is not None:
        windows = sum(window.kind == "only" for window in attribution.windows)
        if attribution.lora is None:
            return f"hotart-bench steps {source} --attribute {argument(attribution.variant)} --windows {windows}"
        metric = f" --metric {attribution.gain}" if attribution.gain else ""
        return f"hotart-bench sweep {source} --lora {argument(attribution.lora)} --windows {windows}{metric}"
    if suite.grid_setting:
        flags = (f"--{axis.replace('_', '-')} {value_text(value)}" for axis, value in suite.grid_setting.items())
        return f"hotart-bench grid {source} {' '.join(flags)}"
    if sweep is None:
        return f"hotart-bench run {source}"
    weights = ",".join(map(value_text, sweep.weights))
    return f"hotart-bench sweep {source} --lora {argument(sweep.lora)} --lora-weights {weights}"


def value_text(value: GridValue) -> str:
    """A value of a grid as a flag takes it: ``7.5``, ``3`` for 3.0, ``ddim``."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def continuing(suite: Suite, path: object) -> str:
    """The command that makes a run in its folder, or goes on with one there."""
    if suite.grid_setting:
        return f"hotart-bench render {argument(path)}"
    return f"{making(suite)} -o {argument(path)}"


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """The end of an error sentence, " (did you mean 'steps'?)", or "" where nothing is near, or nothing but the word.

    Nearness is ``difflib``'s ratio of matching characters, at least 0.6, ignoring case. No name is as long as 200
    characters, where ``difflib`` takes minutes.
    """
    if len(word) > 200:
        return ""
    by_folded = {name.casefold(): name for name in allowed}
    near = difflib.get_close_matches(word.casefold(), list(by_folded), n=1, cutoff=0.6)
    return f" (did you mean {by_folded[near[0]]!r}?)" if near and by_folded[near[0]] != word else ""


def quoted(text: str) -> str:
    """A text of a user as Python quotes it, cut after 60 characters: for names that may be anything."""
    return repr(text if len(text) <= 60 else f"{text[:59]}…")


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names sorted, at most so many, the rest counted: ``a, b, c and 4 more``; ``joined`` keeps the order and all."""
    ordered = sorted(names)
    rest = len(ordered) - most
    return ", ".join(ordered[:most]) + (f" and {rest} more" if rest > 0 else "")


def joined(words: Sequence[str]) -> str:
    """Words in their order as a sentence lists them: ``a``, ``a and b``, ``a, b and c``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


MINUS = "\N{MINUS SIGN}"

NONE = "–"
"""What stands where there is no number."""

_BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def decimals_for(resolution: float) -> int:
    """Decimals that show two figures of ``resolution``, from 0 to 6; 3 where it is zero or not finite."""
    if not math.isfinite(resolution) or resolution <= 0:
        return 3
    return min(6, max(0, 1 - math.floor(math.log10(resolution))))


def number(value: float | None, decimals: int) -> str:
    """``value`` with a true minus sign and no negative zero; a dash for None."""
    if value is None:
        return NONE
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        return text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float | None, decimals: int) -> str:
    """``value`` with its sign, ``+`` included; zero carries none."""
    text = number(value, decimals)
    return text if value is None or text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def interval(found: Interval | None, decimals: int, sign: bool = True) -> str:
    """``[low, high]``, a dash for None."""
    if found is None:
        return NONE
    write = signed if sign else number
    return f"[{write(found.low, decimals)}, {write(found.high, decimals)}]"


def ratio_and_interval(value: float, found: Interval | None) -> tuple[str, str]:
    """A ratio and its interval, "" for none, to two figures of what it is uncertain by; without one to three figures.

    A number x is uncertain by x ln(high / low) / 2, the half width on the logarithmic scale on which ratios are
    symmetric. Beyond a factor of e each number has decimals of its own: ``1.034 [1.010, 1.058]``, ``5 [0.02, 386]``.
    """
    if found is None:
        return number(value, decimals_for(value / 10)), ""
    spread = math.log(found.high / found.low) / 2
    scales = (value, value, value) if spread < 1 else (value, found.low, found.high)
    shown, low, high = (
        number(one, decimals_for(scale * spread))
        for one, scale in zip((value, found.low, found.high), scales, strict=True)
    )
    return shown, f"[{low}, {high}]"


def percent(share: float | None) -> str:
    """A share of 0 to 1 in whole per cent; never 0 % or 100 % for what is not quite."""
    if share is None:
        return NONE
    whole = round(100 * share)
    if whole == 0 and share > 0:
        return "<1 %"
    if whole == 100 and share < 1:
        return ">99 %"
    return f"{whole} %"


def percent_interval(found: Interval | None) -> str:
    """``[low, high]`` of a share in whole per cent."""
    if found is None:
        return NONE
    return f"[{round(100 * found.low)}, {round(100 * found.high)}]"


def p_value(p: float | None) -> str:
    """A p-value to three decimals under 0.1 and two above, ``<0.001`` where those were 0; a dash for None."""
    if p is None:
        return NONE
    if p < 0.001:
        return "<0.001"
    return f"{p:.2f}" if p >= 0.0995 else f"{p:.3f}"


def holds(delta: Delta) -> bool:
    """Whether a difference holds at 5 % after Holm's correction within its family (see ``Delta.p_holm``)."""
    return delta.p_holm is not None and delta.p_holm <= 0.05


def set_letters(name: str, tied_sets: Sequence[Sequence[str]]) -> str:
    """The letters of the sets that ``name`` is in: ``a`` for the first, ``b``, ..., after ``z`` ``a2``, ``b2``."""
    places = [place for place, members in enumerate(tied_sets) if name in members]
    return " ".join(ascii_lowercase[place % 26] + (str(place // 26 + 1) if place >= 26 else "") for place in places)


def quantity(value: float, unit: Unit) -> str:
    """A time, memory or energy to three figures in the unit that a reader expects (ms, GiB, J)."""
    if unit == "joule":
        return f"{_three(value)} J"
    steps = _BYTES if unit == "byte" else _SECONDS
    for size, name in steps:
        if abs(value) >= size:
            return f"{_three(value / size)} {name}"
    size, name = steps[-1]
    return f"{_three(value / size)} {name}"


def _three(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def plural(count: int, word: str, many: str = "") -> str:
    """``1 image``, ``1,200 images``."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"


def duration(seconds: float) -> str:
    """Seconds in words, to a tenth of what they are or finer: ``0.4 s``, ``39 s``, ``4 min 10 s``, ``2 h 05 min``.

    From ten minutes on without seconds: ``45 min``.
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    if minutes < 10:
        return f"{minutes} min {rest:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def lora(found: Lora) -> str:
    """``glow.safetensors × 0.8``, in brackets what components and blocks have of their own."""
    parts = {"UNet": found.unet, "text encoder": found.text_encoder, "text encoder 2": found.text_encoder_2}
    own = [f"{name} × {_weight(at)}" for name, at in (parts | found.blocks).items() if at is not None]
    own += [f"without {name}" for name in found.leave_out]
    own += [f"× {_weight(factor)} from {_share(start)} of the steps on" for start, factor in found.step_factors]
    return f"{found.path} × {_weight(found.weight)}" + (f" ({', '.join(own)})" if own else "")


def _share(fraction: float) -> str:
    return f"{100 * fraction:.6g}%"


def steps(numbers: Sequence[int]) -> str:
    """``step 3``, ``steps 1-8``, ``steps 1-3, 7``: rising numbers with runs of neighbours drawn together."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"{'step' if len(numbers) == 1 else 'steps'} {', '.join(words)}"


def _weight(weight: float) -> str:
    return f"{weight:g}".replace("-", MINUS)


def script_json(value: Any) -> str:
    """JSON that is inert inside ``<script type="application/json">``, whatever its strings hold.

    ``<``, ``>``, ``&`` and the line separators U+2028 and U+2029 are written as ``\\uXXXX``, so neither
    ``</script>`` nor ``<!--`` can occur. Raises ValueError on NaN and infinities, which JSON has not.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """``text`` with one space for each run of spaces, line ends, control and other characters that print nothing."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def plain(text: str) -> str:
    """``text`` with a replacement character (U+FFFD) for each that is no text: controls, surrogates, U+FFFE, U+FFFF.

    What stays is what XML 1.0 allows and UTF-8 can hold; tab and line ends stay.
    """
    return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)


_NO_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def markdown(text: str, limit: int | None = None) -> str:
    """``text`` as literal markdown on one line, also in a table cell: no markup, no link, no mention.

    Marks that mean something are escaped with a backslash, ``<``, ``>`` and ``&`` as entities; an empty
    comment after ``@`` and ``#`` keeps a forge from pinging people or linking issues. With ``limit``, cut at
    that many characters with an ellipsis.
    """
    line = " ".join(text.split())
    if limit is not None and len(line) > limit:
        line = line[: limit - 1].rstrip() + "…"
    line = re.sub(r"[\\`*_\[\]|~$]", r"\\\g<0>", line)
    line = re.sub(r"[<>&@#]", lambda found: _MARKS[found[0]], line)
    # An address becomes a link by itself, and a line may begin as a list, a rule or a heading does.
    line = re.sub(r":(?=//)|(?<=www)\.", r"\\\g<0>", line, flags=re.IGNORECASE)
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", line)


_MARKS = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "@<!-- -->", "#": "\\#<!-- -->"}


def scale_of(values: Iterable[float]) -> float:
    """Median of the positive finite ``values``, 0 when there is none: what rounding goes by."""
    found = sorted(value for value in values if math.isfinite(value) and value > 0)
    return found[len(found) // 2] if found else 0.0


def decimals_of_deltas(deltas: Iterable[Delta]) -> int:
    """Decimals for one metric's differences: two figures of the typical half width of their intervals.

    Where no delta has an interval, three figures of the typical difference.
    """
    found = list(deltas)
    widths = [(one.interval.high - one.interval.low) / 2 for one in found if one.interval is not None]
    return decimals_for(scale_of(widths) or scale_of(abs(one.mean) for one in found) / 10)
