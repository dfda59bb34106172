"""ComfyUI: the graph of nodes that a picture carries -> what it says.

The graph is what was sent to be drawn (``prompt``: by id a node's class and inputs; a link is ``[id, slot]``). It is
walked from the node that saves back to the sampler that began with an empty latent, and from there to texts, model and
LoRAs. A value that a link brings is taken from nodes that hold a constant; what any other node computed is not stored,
and cannot be told. The editor's ``workflow`` holds values by their position alone and is not read.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from bench import documents
from bench.pictures.values import FIELDS, KINDS, both, facts, misread, real, size_of, whole
from bench.records import Hires, PictureFacts, PictureLora

MOST_NODES = 5_000
SAVES = ("SaveImage", "PreviewImage", "SaveImageWebsocket", "SaveAnimatedWEBP", "SaveAnimatedPNG")
PIXEL_INPUTS = ("images", "image", "pixels", "samples", "latent", "latent_image")
"""Inputs by which a picture, or its latent, comes to a node."""
KSAMPLER_INPUTS = {"seed", "steps", "cfg", "sampler_name", "scheduler", "positive", "negative", "model", "latent_image"}
"""A node with all of these draws as KSampler does, whatever pack it is of."""
LITERALS: Mapping[str, tuple[str, ...]] = {
    "PrimitiveNode": ("value",), "String Literal": ("string",), "StringConstant": ("string",),
    "StringConstantMultiline": ("string",), "Text Multiline": ("text",), "CR Text": ("text",), "Text box": ("text",),
    "FloatConstant": ("value",), "Seed (rgthree)": ("seed",), "easy seed": ("seed",), "ImpactInt": ("value",),
    "ImpactWildcardProcessor": ("populated_text",), "ImpactWildcardEncode": ("populated_text",), "CR Seed": ("seed",),
    "Int Literal": ("int",), "easy positive": ("positive",), "easy negative": ("negative",), "INTConstant": ("value",),
}  # fmt: skip
"""Nodes that hold a constant, and the input that it stands in; so does every class that begins with ``Primitive``."""
ONE_TEXT = (
    "ConditioningSetArea", "ConditioningSetAreaPercentage", "ConditioningSetAreaStrength", "ConditioningSetMask",
    "ConditioningSetTimestepRange", "ControlNetApply", "ControlNetApplyAdvanced", "ControlNetApplySD3", "FluxGuidance",
    "unCLIPConditioning", "ReferenceLatent",
)  # fmt: skip
"""Nodes that change a conditioning of one text and keep its words."""
SEVERAL_TEXTS = ("ConditioningCombine", "ConditioningConcat", "ConditioningAverage")
CHECKPOINTS = {
    "CheckpointLoaderSimple": "ckpt_name", "CheckpointLoader": "ckpt_name", "unCLIPCheckpointLoader": "ckpt_name",
    "UNETLoader": "unet_name", "ImageOnlyCheckpointLoader": "ckpt_name", "DiffusersLoader": "model_path",
}  # fmt: skip
LORA_LOADERS = ("LoraLoader", "LoraLoaderModelOnly")
POWER_LORA = "Power Lora Loader (rgthree)"
MODEL_CHANGES = (
    "FreeU", "FreeU_V2", "ModelSamplingDiscrete", "ModelSamplingContinuousEDM", "ModelSamplingSD3", "ModelSamplingFlux",
    "RescaleCFG", "PerturbedAttentionGuidance", "SelfAttentionGuidance", "PatchModelAddDownscale", "HyperTile",
    "TomePatchModel", "ModelComputeDtype", "TorchCompileModel", "EpsilonScaling",
)  # fmt: skip
"""Nodes between checkpoint and sampler that add no LoRA; the graph's digest holds them."""
SCHEDULERS = {
    "KarrasScheduler": "karras", "ExponentialScheduler": "exponential", "AlignYourStepsScheduler": "ays",
    "PolyexponentialScheduler": "polyexponential", "SDTurboScheduler": "turbo",
}  # fmt: skip

Node = dict[str, Any]
Link = tuple[str, int]
Number = TypeVar("Number", int | None, float | None)


@dataclass
class Graph:
    """A graph, and what reading it has found out."""

    nodes: dict[str, Node]
    why: dict[str, str] = field(default_factory=dict)
    """By field, why it cannot be told."""
    notes: list[str] = field(default_factory=list)

    def kind(self, node: str) -> str:
        """The class of a node."""
        return str(self.nodes[node]["class_type"])

    def inputs(self, node: str) -> Mapping[str, Any]:
        """The inputs of a node."""
        found: Mapping[str, Any] = self.nodes[node]["inputs"]
        return found

    def link(self, node: str, name: str) -> Link | None:
        """Where an input comes from; None where it is no link, or leads nowhere."""
        return self.as_link(self.inputs(node).get(name))

    def as_link(self, value: object) -> Link | None:
        """A value that is a link to a node that is there."""
        if isinstance(value, list) and len(value) == 2 and str(value[0]) in self.nodes and type(value[1]) is int:
            return str(value[0]), value[1]
        return None

    def value(self, node: str, name: str, about: str) -> Any:
        """An input's value, through links to constants; None, with the reason for the field ``about``, if not told."""
        return self.constant(self.inputs(node).get(name), about)

    def whole(self, node: str, name: str, about: str) -> int | None:
        """An input that is a whole number; None, with the reason, if it is not told or is none."""
        value = self.value(node, name, about)
        return self._read(whole(value), value, about)

    def real(self, node: str, name: str, about: str) -> float | None:
        """An input that is a number; None, likewise."""
        value = self.value(node, name, about)
        return self._read(real(value), value, about)

    def _read(self, number: Number, value: object, about: str) -> Number:
        if number is None and about in KINDS:
            self.why |= misread(**{about: value})
        return number

    def constant(self, value: object, about: str) -> Any:
        """A value, or that of the constant that it is a link to."""
        for _ in range(32):
            link = self.as_link(value)
            if link is None:
                return None if isinstance(value, list | dict) else value
            kind = self.kind(link[0])
            keys = LITERALS.get(kind) or (("value", "string", "text") if kind.startswith("Primitive") else ())
            key = next((one for one in keys if one in self.inputs(link[0])), None)
            if key is None:
                self.why[about] = f"it comes from a node {kind!r}, whose result is not stored"
                return None
            value = self.inputs(link[0])[key]
        return None


def read_graph(text: str) -> PictureFacts | None:
    """What the text of a graph says; None where it is none.

    Where several samplers end in pictures, a field is told only if it is the same for all of them.
    """
    graph = _parse(text)
    if graph is None:
        return None
    sinks = _sinks(graph)
    bases = list(dict.fromkeys(chain for sink in sinks for chain in _chains(graph, sink)))
    if not bases:
        drawn = "no node of its graph saves a picture" if not sinks else "no sampler of its graph is known"
        return facts("ComfyUI", dict.fromkeys(FIELDS, drawn))
    found = [_facts_of_chain(Graph(graph.nodes), sinks, chain) for chain in bases]
    return found[0] if len(found) == 1 else _agreed(found)


def _parse(text: str) -> Graph | None:
    try:
        value = documents.loads(text, finite=False)  # NaN stands in some graphs
    except ValueError:
        return None
    if not isinstance(value, dict) or not 0 < len(value) <= MOST_NODES:
        return None
    nodes = {
        key: node
        for key, node in value.items()
        if isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
    }
    return Graph(nodes) if nodes else None


def _sinks(graph: Graph) -> list[str]:
    """The nodes that save pictures; where none is known, those that take pictures and that nothing follows."""
    known = [node for node in graph.nodes if graph.kind(node) in SAVES]
    saves = [node for node in known if graph.kind(node) != "PreviewImage"]
    if known:
        return saves or known
    used = {link[0] for node in graph.nodes for name in graph.inputs(node) if (link := graph.link(node, name))}
    ends = [node for node in graph.nodes if node not in used]
    return [node for node in ends if graph.link(node, "images") or graph.link(node, "image")]


# From the saved picture to the samplers that drew it.

Chain = tuple[str, ...]
"""Samplers from the last pass to the first, which began with an empty latent or with another picture."""


def _chains(graph: Graph, sink: str) -> list[Chain]:
    """The samplers behind a saved picture: one chain, or several where pictures or latents are put together."""
    chains: list[Chain] = []
    waiting: deque[tuple[str, Chain]] = deque([(sink, ())])
    seen = {sink}
    while waiting:
        node, chain = waiting.popleft()
        if is_sampler(graph, node):
            chain = (*chain, node)
        links = [link for name in PIXEL_INPUTS if (link := graph.link(node, name)) is not None]
        onward = [link[0] for link in links if link[0] not in seen]
        seen.update(onward)
        waiting.extend((one, chain) for one in onward)
        if not onward and chain:
            chains.append(chain)
    return list(dict.fromkeys(chains))


def is_sampler(graph: Graph, node: str) -> bool:
    """Whether a node draws: one of ComfyUI's samplers, or one that has all inputs of KSampler."""
    kind = graph.kind(node)
    if kind in ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"):
        return True
    return graph.inputs(node).keys() >= KSAMPLER_INPUTS


# What a sampler was told.


class Pass(NamedTuple):
    """One sampler's settings."""

    seed: int | None
    steps: int | None
    cfg: float | None
    sampler: str | None
    schedule: str | None
    denoise: float | None
    positive: Link | None
    negative: Link | None
    model: Link | None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _pass(graph: Graph, node: str) -> Pass:
    kind = graph.kind(node)
    if kind == "SamplerCustomAdvanced":
        return _custom_advanced(graph, node)
    if kind == "SamplerCustom":
        sampler, schedule, steps, denoise = _custom_schedule(graph, node)
        cfg = graph.real(node, "cfg", "cfg")
    else:
        if kind not in ("KSampler", "KSamplerAdvanced"):
            graph.notes.append(f"the node {kind!r} is read as a KSampler, whose inputs it has")
        sampler = _text(graph.value(node, "sampler_name", "sampler"))
        schedule = _text(graph.value(node, "scheduler", "schedule"))
        steps, cfg = graph.whole(node, "steps", "steps"), graph.real(node, "cfg", "cfg")
        denoise = graph.real(node, "denoise", "denoise")
    seed = graph.whole(node, "seed" if "seed" in graph.inputs(node) else "noise_seed", "seed")
    links = (graph.link(node, name) for name in ("positive", "negative", "model"))
    return Pass(seed, steps, cfg, sampler, schedule, denoise, *links)


def _custom_advanced(graph: Graph, node: str) -> Pass:
    sampler, schedule, steps, denoise = _custom_schedule(graph, node)
    noise, guider = graph.link(node, "noise"), graph.link(node, "guider")
    seed = None
    if noise is not None and graph.kind(noise[0]) == "RandomNoise":
        seed = graph.whole(noise[0], "noise_seed", "seed")
    cfg, positive, negative, model = None, None, None, None
    if guider is not None:
        model = graph.link(guider[0], "model")
        if graph.kind(guider[0]) == "CFGGuider":
            cfg = graph.real(guider[0], "cfg", "cfg")
            positive, negative = graph.link(guider[0], "positive"), graph.link(guider[0], "negative")
        elif graph.kind(guider[0]) == "BasicGuider":
            cfg, positive = 1.0, graph.link(guider[0], "conditioning")
    return Pass(seed, steps, cfg, sampler, schedule, denoise, positive, negative, model)


def _custom_schedule(graph: Graph, node: str) -> tuple[str | None, str | None, int | None, float | None]:
    """Sampler, schedule, steps and denoise of the nodes that a custom sampler gets them from."""
    chosen, sigmas = graph.link(node, "sampler"), graph.link(node, "sigmas")
    sampler = schedule = steps = denoise = None
    if chosen is not None and graph.kind(chosen[0]) == "KSamplerSelect":
        sampler = _text(graph.value(chosen[0], "sampler_name", "sampler"))
    if sigmas is not None:
        kind = graph.kind(sigmas[0])
        if kind == "BasicScheduler":
            schedule = _text(graph.value(sigmas[0], "scheduler", "schedule"))
        else:
            schedule = SCHEDULERS.get(kind)
        if schedule is not None:
            steps = graph.whole(sigmas[0], "steps", "steps")
            denoise = graph.real(sigmas[0], "denoise", "denoise")
    return sampler, schedule, steps, denoise


# Texts.


class Words(NamedTuple):
    """The text of a conditioning."""

    text: str | None
    text_l: str | None = None
    """SDXL's second text, where it is another one."""
    clip: Link | None = None


def _words(graph: Graph, link: Link | None, about: str) -> Words:
    """The one text of a conditioning, or why there is none."""
    for _ in range(MOST_NODES):
        if link is None:
            return Words(None)
        node, kind = link[0], graph.kind(link[0])
        clip = graph.link(node, "clip")
        if kind == "CLIPTextEncode":
            return Words(_text(graph.value(node, "text", about)), None, clip)
        if kind == "CLIPTextEncodeSDXL":
            text, text_l = (_text(graph.value(node, name, about)) for name in ("text_g", "text_l"))
            return Words(text, None if text_l == text else text_l, clip)
        if kind == "ConditioningZeroOut":
            return Words("")
        if kind in SEVERAL_TEXTS:
            graph.why[about] = "several texts are combined"
            return Words(None)
        if kind not in ONE_TEXT:
            graph.why[about] = f"it comes from a node {kind!r}, which is not known"
            return Words(None)
        name = "negative" if link[1] == 1 and graph.link(node, "negative") else "positive"
        link = graph.link(node, "conditioning") or graph.link(node, name)
    return Words(None)


def _clip_skip(graph: Graph, link: Link | None) -> int | None:
    """How many of the last layers are skipped, as A1111 counts: 1 is none."""
    for _ in range(MOST_NODES):
        if link is None:
            break
        node, kind = link[0], graph.kind(link[0])
        if kind == "CLIPSetLastLayer":
            stop = graph.real(node, "stop_at_clip_layer", "clip_skip")
            return None if stop is None or not -100 <= stop < 0 else -int(stop)
        if kind not in LORA_LOADERS and kind != POWER_LORA:
            break
        link = graph.link(node, "clip")
    graph.why.setdefault("clip_skip", "the graph leaves it to the model")
    return None


# Model and LoRAs.


def _model(graph: Graph, link: Link | None) -> tuple[str | None, tuple[PictureLora, ...] | None]:
    """The checkpoint's name and the LoRAs, in the order in which they are applied."""
    loras: list[PictureLora] | None = []
    for _ in range(MOST_NODES):
        if link is None:
            return None, None
        node, kind = link[0], graph.kind(link[0])
        if kind in CHECKPOINTS:
            name = _text(graph.value(node, CHECKPOINTS[kind], "model"))
            return name, None if loras is None else tuple(reversed(loras))
        if kind in LORA_LOADERS or kind == POWER_LORA:
            found = list(_loras_of(graph, node))
            loras = None if loras is None else [*loras, *reversed(found)]
        elif kind.startswith("ModelMerge") or graph.link(node, "model1") is not None:
            graph.why["model"] = f"the graph merges models ({kind}); their merge is no file"
            return None, None
        elif kind not in MODEL_CHANGES:
            loras = None
            graph.why["loras"] = f"a node {kind!r}, which is not known, changes the model"
        link = graph.link(node, "model")
    return None, None


def _loras_of(graph: Graph, node: str) -> Iterator[PictureLora]:
    if graph.kind(node) == POWER_LORA:
        for value in graph.inputs(node).values():
            if isinstance(value, dict) and value.get("on") is True and isinstance(value.get("lora"), str):
                unet = real(value.get("strength"))
                text = real(value.get("strengthTwo")) if value.get("strengthTwo") is not None else unet
                yield PictureLora(name=value["lora"], text_weight=text, unet_weight=unet)
        return
    name = _text(graph.value(node, "lora_name", "loras"))
    alone = graph.kind(node) == "LoraLoaderModelOnly"
    yield PictureLora(
        name=name or "a LoRA whose name is not stored",
        text_weight=0.0 if alone else graph.real(node, "strength_clip", "loras"),
        unet_weight=graph.real(node, "strength_model", "loras"),
    )


# All of it.


def _facts_of_chain(graph: Graph, sinks: list[str], chain: Chain) -> PictureFacts:
    first, last = chain[-1], chain[0]
    told = _pass(graph, first)
    words, against = _words(graph, told.positive, "prompt"), _words(graph, told.negative, "negative")
    model, loras = _model(graph, told.model)
    clip_skip = _clip_skip(graph, words.clip)
    size, batch = _latent(graph, graph.link(first, "latent_image"))
    other = {"graph": digest(graph, sinks)}
    if told.denoise is not None:
        other["denoise"] = str(told.denoise)
    if batch is not None and batch != 1:
        other["batch_size"] = str(batch)
    if words.text_l is not None:
        other["prompt_l"] = words.text_l
    if against.text_l is not None:
        other["negative_l"] = against.text_l
    hires = None
    if last != first:
        second = _pass(graph, last)
        hires = Hires(steps=second.steps, denoise=second.denoise)
        if len(chain) > 2:
            graph.notes.append(f"{len(chain)} samplers follow each other; the settings are those of the first")
        graph.why.pop("denoise", None)
    return facts(
        "ComfyUI",
        {"model_hash": "ComfyUI stores none", "version": "ComfyUI stores none", **graph.why},
        prompt=words.text,
        negative=against.text,
        seed=told.seed,
        steps=told.steps,
        sampler=told.sampler,
        schedule=told.schedule,
        cfg=told.cfg,
        size=size,
        model=model,
        loras=loras,
        clip_skip=clip_skip,
        rng="CPU",
        hires=hires,
        other=other,
        notes=tuple(graph.notes),
    )


def _latent(graph: Graph, link: Link | None) -> tuple[tuple[int, int] | None, int | None]:
    """Size and batch of the empty latent that the first pass began with; None where it began with something else."""
    if link is None:
        return None, None
    node = link[0]
    kind = graph.kind(node)
    if not (kind.startswith("Empty") and "Latent" in kind):
        graph.why["size"] = f"the first pass began with a node {kind!r}, not with an empty latent"
        return None, None
    width, height = (graph.value(node, name, "size") for name in ("width", "height"))
    size = size_of(width, height)
    if size is None:
        graph.why |= misread(size=both(width, height))
    return size, graph.whole(node, "batch_size", "batch_size")


def _agreed(found: list[PictureFacts]) -> PictureFacts:
    """What all samplers of a graph have in common."""
    why = f"{len(found)} samplers of the graph end in pictures, and which drew this one is not stored"
    fields = {
        name: getattr(found[0], name)
        for name in (*FIELDS, "hires")
        if all(getattr(one, name) == getattr(found[0], name) for one in found)
    }
    reasons = {name: found[0].unknown.get(name, why) if name in fields else why for name in FIELDS}
    return facts("ComfyUI", reasons, **fields, other={"graph": found[0].other["graph"]}, notes=(why,))


def digest(graph: Graph, sinks: list[str]) -> str:
    """A hash of the part of the graph that the saved pictures rest on, without names of models and without LoRAs.

    Nodes are counted in the order in which they are met, and constants stand where they are used, so that ids, titles
    and where a value is typed do not matter. Two pictures of equal digest differ in model and LoRAs at most.
    """
    order = {node: number for number, node in enumerate(sinks)}
    waiting = deque(sinks)
    lines = []
    while waiting:
        node = waiting.popleft()
        kind, inputs = graph.kind(node), {}
        for name, value in sorted(graph.inputs(node).items()):
            link = _behind_loras(graph, graph.as_link(value))
            if link is not None and (constant := Graph(graph.nodes).constant(list(link), "")) is not None:
                inputs[name] = repr(constant)
            elif link is not None:
                if link[0] not in order:
                    order[link[0]] = len(order)
                    waiting.append(link[0])
                inputs[name] = f"{order[link[0]]}:{link[1]}"
            elif node not in sinks and name != CHECKPOINTS.get(kind):
                inputs[name] = repr(value)
        lines.append(f"{kind} {inputs}")
    return hashlib.sha256("\n".join(lines).encode("utf-8", "replace")).hexdigest()[:16]


def _behind_loras(graph: Graph, link: Link | None) -> Link | None:
    for _ in range(MOST_NODES):
        if link is None or not (graph.kind(link[0]) in LORA_LOADERS or graph.kind(link[0]) == POWER_LORA):
            return link
        link = graph.link(link[0], "clip" if link[1] == 1 else "model")
    return None
