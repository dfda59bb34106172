"""Every kind of file that is read from elsewhere: a valid small one, and what reads it and uses what it says."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import drawn_pictures as pictures
import msgspec
import numpy as np
import tiny
import torch
from fake_gates import make_gate, make_verdict
from fake_sets import SETS, fakes, folder_of
from fakes import make_run, write_run
from gate_runs import make_folder
from grid_runs import make_grid_runs, write_grid
from PIL import Image
from safetensors.numpy import load_file, save_file
from suites import METRICS, write_suite
from tiny_checkpoints import tiny_state
from vote_runs import make_voted, panel

from bench import documents, weights_lock
from bench.baseline import freeze, read_baseline, read_session_noise, write_baseline
from bench.baseline.pictures import find_pictures, frozen_bytes, keep_pictures, read_index
from bench.calibrate import write_calibration
from bench.card.licences import Licensed, work_out
from bench.card.sources import find_sources
from bench.checkpoints.fingerprint import fingerprint
from bench.checkpoints.safetensors_files import read_header
from bench.compare import compare_run, compare_sets, metric_means, variant_pairs
from bench.compare.grid import compare_grid
from bench.compare.grid_view import grid_view
from bench.faces.boxes import DETECTOR
from bench.gate import check_limits, like_named
from bench.gate.ci import github_annotations, junit_xml
from bench.inspection import find_lora_file, open_any
from bench.ledger import files_of, files_text, new_entry, read_ledger
from bench.lora.parse import read_adapter
from bench.lora.peft import PEFT_CONFIG, PEFT_FILE
from bench.merge.load import open_checkpoint, open_named, open_recipe
from bench.metrics.blip import read_text_shape
from bench.mini import weights
from bench.pictures.folders import read_pictures
from bench.pictures.pairing import pair_pictures
from bench.pictures.read import read_file, read_texts
from bench.pipeline.build import build_pipeline
from bench.pipeline.embeddings import embedding_rows
from bench.records import (
    SCHEMA,
    Acceptance,
    Answer,
    Baseline,
    Calibration,
    Embedding,
    Face,
    FacesAsked,
    FoundFaces,
    Question,
    SessionNoise,
    Settings,
    Variant,
    VotesFile,
)
from bench.report import gate_of, html, markdown
from bench.report.page import build_view
from bench.score import score
from bench.score.external_images import probe_image
from bench.score.images import ImageFileError
from bench.store import RunFolder, gate_json, load_run
from bench.store.grid import load_grid
from bench.store.journal import append_records
from bench.suite import load_suite, plan_images, protocol_digest
from bench.suite.images_table import read_pairs
from bench.suite.prompt_files import read_prompts
from bench.suite.prompt_syntax import plain_text, read_segments
from bench.votes.read import add_votes, check_of

from .mutations import mutate


class Kind(NamedTuple):
    """A kind of file, where a valid one lies, and how it is read."""

    name: str
    form: str
    """Of ``mutations.mutate``."""
    path: Path
    read: Callable[[Path], object]
    valid: bytes
    finish: Callable[[random.Random, bytes], bytes] | None = None
    """What is done to the mutated bytes, so that the reader looks further."""
    slow: bool = False
    """Whether a reading takes a tenth of a second, not a hundredth."""


def make_kinds(place: Path) -> dict[str, Kind]:
    """Every kind by its name, its files written into a folder."""
    makers = (
        _folders,
        _weights,
        _embeddings,
        _suites,
        _weighted_prompts,
        _recipes,
        _runs,
        _votes,
        _sets,
        _grids,
        _baselines,
        _ledgers,
        _metrics,
        _images,
    )
    kinds = [kind for make in makers for kind in make(place)]
    for kind in kinds:
        kind.read(kind.path)  # what is mutated was right
    return {kind.name: kind for kind in kinds}


def _kind(
    name: str,
    form: str,
    path: Path,
    read: Callable[[Path], object],
    finish: Callable[[random.Random, bytes], bytes] | None = None,
    *,
    slow: bool = False,
) -> Kind:
    return Kind(name, form, path, read, path.read_bytes(), finish, slow)


# Diffusers folders, single files, LoRAs.

SETTINGS = Settings(width=64, height=64, steps=3, guidance_scale=3.0, sampler="ddim", batch=2)


def _folders(place: Path) -> list[Kind]:
    folder = Path(shutil.copytree(weights.pipeline_folder(), place / "pipeline"))
    variant = Variant(name="base", checkpoint=str(folder))

    def look(path: Path) -> None:
        fingerprint(variant)

    def load(path: Path) -> None:
        fingerprint(variant)
        pipe = build_pipeline(open_checkpoint(variant, None), SETTINGS, "cpu")
        pipe.scheduler.set_timesteps(3)

    def lone(path: Path) -> None:
        open_any(str(path.parent), None)

    parts = {part: folder / part / "config.json" for part in ("unet", "vae", "text_encoder", "text_encoder_2")}
    return [
        _kind("model-index", "json", folder / "model_index.json", look, slow=True),
        _kind("scheduler", "json", folder / "scheduler" / "scheduler_config.json", load, slow=True),
        _kind("tokenizer", "json", folder / "tokenizer" / "tokenizer.json", load, slow=True),
        _kind("tokenizer-config", "json", folder / "tokenizer" / "tokenizer_config.json", load, slow=True),
        _kind("loaded-unet-config", "json", parts["unet"], load, slow=True),
        _kind("loaded-text-config", "json", parts["text_encoder"], load, slow=True),
        *(_kind(f"{part}-config", "json", path, look, slow=True) for part, path in parts.items()),
        _kind("lone-unet-config", "json", parts["unet"], lone, slow=True),
        _kind("model-card", "text", _card(folder), look, slow=True),
        *_shards(place),
    ]


def _card(folder: Path) -> Path:
    path = folder / "README.md"
    path.write_text("---\nlicense: apache-2.0\ntags: [a, b]\n---\n# A model\n", encoding="utf-8")
    return path


def _shards(place: Path) -> list[Kind]:
    """A folder whose UNet lies in two files with an index of them."""
    folder = Path(shutil.copytree(weights.pipeline_folder(), place / "sharded"))
    unet = folder / "unet"
    whole = unet / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    names = sorted(tensors)
    halves = {number: names[number - 1 :: 2] for number in (1, 2)}
    where = {}
    for number, half in halves.items():
        file = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in half}, unet / file)
        where |= dict.fromkeys(half, file)
    index = {"metadata": {"total_size": 4}, "weight_map": where}
    path = unet / "diffusion_pytorch_model.safetensors.index.json"
    path.write_text(json.dumps(index), encoding="utf-8")
    first = unet / "diffusion_pytorch_model-00001-of-00002.safetensors"
    return [
        _kind("shard-index", "json", path, lambda path: open_named(str(folder), None, None)),
        _kind("shard-header", "safetensors", first, lambda path: open_named(str(folder), None, None)),
    ]


def _weights(place: Path) -> list[Kind]:
    base = open_named("mini", None, None).tensors

    def adapt(path: Path) -> None:
        found = find_lora_file(str(path), None)
        read_adapter(found or path, base)

    kohya, peft = place / "kohya.safetensors", place / "peft" / PEFT_FILE
    peft.parent.mkdir()
    module = "mid_block_attentions_0_proj_in"
    shape = base["unet.mid_block.attentions.0.proj_in.weight"].shape
    up, down = np.ones((shape[0], 4), np.float32), np.ones((4, shape[1]), np.float32)
    alpha = np.array(2.0, np.float32)
    named = {"lora_up.weight": up, "lora_down.weight": down, "alpha": alpha}
    save_file({f"lora_unet_{module}.{part}": value for part, value in named.items()}, kohya, {"ss_network_dim": "4"})
    prefix = "base_model.model.unet.mid_block.attentions.0.proj_in"
    save_file({f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up}, peft)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "alpha_pattern": {"proj_in": 2.0}, "rank_pattern": {}}
    (peft.parent / PEFT_CONFIG).write_text(json.dumps(config | {"use_dora": False}), encoding="utf-8")
    packed = place / "packed.safetensors"
    metadata = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in config.items()})}
    save_file({f"unet.{prefix[22:]}.lora_A.weight": down, f"unet.{prefix[22:]}.lora_B.weight": up}, packed, metadata)
    single = place / "single.safetensors"
    save_file({name: tensor.numpy() for name, tensor in tiny_state(0).items()}, single)
    return [
        _kind("kohya-lora", "safetensors", kohya, adapt),
        _kind("peft-lora", "safetensors", peft, adapt),
        _kind("peft-config", "json", peft.parent / PEFT_CONFIG, lambda path: adapt(peft)),
        _kind("packed-lora", "safetensors", packed, adapt, _repack),
        _kind("single-file", "safetensors", single, lambda path: open_any(str(path), None)),
        _kind("header", "safetensors", kohya, read_header),
    ]


def _embeddings(place: Path) -> list[Kind]:
    """Textual inversions: a file of SDXL, and a pickle of A1111."""

    def look(path: Path) -> None:
        widths = (64, 128) if path.suffix == ".safetensors" else (64,)
        embedding_rows(Embedding(name="x", path=str(path), sha256=documents.sha256_of(path)), widths)

    sdxl, a1111 = place / "ti.safetensors", place / "ti.pt"
    save_file({"clip_l": np.ones((2, 64), np.float32), "clip_g": np.ones((2, 128), np.float32)}, sdxl)
    torch.save({"string_to_param": {"*": torch.ones(2, 64)}, "name": "x"}, a1111)
    return [_kind("embedding", "safetensors", sdxl, look), _kind("embedding-pickle", "text", a1111, look)]


def _repack(rng: random.Random, data: bytes) -> bytes:
    """Half of the time the JSON within the metadata is what is mutated."""
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
        inner = header["__metadata__"]["lora_adapter_metadata"].encode()
        header["__metadata__"]["lora_adapter_metadata"] = mutate(rng, inner, "json").decode("utf-8", "replace")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return data
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


# Suites, prompts, tables of images, recipes.


def _suites(place: Path) -> list[Kind]:
    folder = place / "suite"
    folder.mkdir()
    suite = write_suite(folder)

    def plan(path: Path) -> None:
        found = load_suite(str(suite), known_metrics=METRICS)
        protocol_digest(found)
        plan_images(msgspec.structs.replace(found, samples=min(found.samples, 100)))

    rows = [("a fox", "animal", "blur"), ("a pier, at dawn", "place", ""), ('say "so"', "text", "x")]
    objects = [{"Prompt": text, "Category": tag, "negative_prompt": negative} for text, tag, negative in rows]
    (folder / "p.json").write_text(json.dumps(objects), encoding="utf-8")
    (folder / "p.csv").write_text("Prompt,Category\n" + "".join(f'"{a}",{b}\n' for a, b, _ in rows[:2]), "utf-8")
    (folder / "p.tsv").write_text("Prompt\tCategory\n" + "".join(f"{a}\t{b}\n" for a, b, _ in rows), "utf-8")
    (folder / "p.txt").write_text("\n".join(a for a, _, _ in rows), "utf-8")
    (folder / "images").mkdir()
    (folder / "images" / "1.png").write_bytes(_png())
    (folder / "t.csv").write_text("image,prompt,variant\n1.png,a fox,base\n1.png,a fox,spo\n", "utf-8")
    (folder / "t.jsonl").write_text('{"image": "1.png", "prompt": "a fox"}\n', "utf-8")
    images = folder / "images"
    return [
        *_questions(folder),
        _kind("suite", "toml", suite, plan),
        _kind("prompts-own", "lines", folder / "own.jsonl", plan),
        _kind("prompts-json", "json", folder / "p.json", read_prompts),
        _kind("prompts-csv", "text", folder / "p.csv", read_prompts),
        _kind("prompts-tsv", "text", folder / "p.tsv", read_prompts),
        _kind("prompts-txt", "text", folder / "p.txt", read_prompts),
        _kind("images-csv", "text", folder / "t.csv", lambda path: read_pairs(path, images)),
        _kind("images-jsonl", "lines", folder / "t.jsonl", lambda path: read_pairs(path, images)),
    ]


def _weighted_prompts(place: Path) -> list[Kind]:
    """Prompts in the syntax of other programs, read by a suite."""
    kinds = []
    for syntax, text in (
        ("a1111", "a (red:1.3) kite, [fog] BREAK ((sea)) # x"),
        ("comfyui", r"a (red:1.3) \(kite\), (fog)"),
    ):
        folder = place / syntax
        folder.mkdir()
        suite = write_suite(folder, "eta = 0.5", f'prompt_syntax = "{syntax}"\nprompt_loras = "ignore"')
        prompts = folder / "own.jsonl"
        prompts.write_text(json.dumps({"id": "a", "prompt": text, "negative": "(x:0.5) <lora:y:1>"}), "utf-8")

        def read(path: Path, suite: Path = suite) -> None:
            found = load_suite(str(suite))
            for prompt in found.prompts:
                plain_text(prompt.text, found.settings)
                list(read_segments(prompt.negative, found.settings))

        kinds.append(_kind(f"prompts-{syntax}", "lines", prompts, read))
    return kinds


def _questions(folder: Path) -> list[Kind]:
    """Question files of ours and of the field; each beside its prompts, or with them."""
    (folder / "q.jsonl").write_text('{"id": "a", "prompt": "two foxes"}\n{"id": "b", "prompt": "a pier"}\n', "utf-8")
    own = [
        {"id": "a", "question": "How many?", "answer": "two", "skill": "count"},
        {"id": "b", "question": "Which?", "answer": "oak", "choices": ["oak", "pine"]},
    ]
    (folder / "q.questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in own), "utf-8")
    pairs = {
        "prompt": "two foxes",
        "vqa_list": [["How many?", "two"], ["Is it?", "Yes"]],
        "skills": ["count", "object"],
    }
    (folder / "geneval2.jsonl").write_text(json.dumps(pairs) + "\n", "utf-8")
    tifa = {"id": "a", "caption": "two foxes", "question": "how many?", "choices": ["1", "2"], "answer": "2"}
    (folder / "tifa.json").write_text(json.dumps([{**tifa, "element_type": "counting"}]), "utf-8")
    head = "item_id,text,dependency,category_broad,question_natural_language\n"
    (folder / "dpg.csv").write_text(f'{head}7,"a fox, red",0,entity,Is there a fox?\n7,"a fox, red",1,attribute,Red?\n')
    return [
        _kind("questions", "lines", folder / "q.questions.jsonl", lambda path: read_prompts(folder / "q.jsonl")),
        _kind("questions-geneval2", "lines", folder / "geneval2.jsonl", read_prompts),
        _kind("questions-tifa", "json", folder / "tifa.json", read_prompts),
        _kind("questions-dpg", "text", folder / "dpg.csv", read_prompts),
    ]


def _recipes(place: Path) -> list[Kind]:
    path = place / "recipe.toml"
    tiny.write_lora(place / "own.safetensors", 1)
    path.write_text(
        'schema = 1\nmethod = "weighted_sum"\nmodels = ["mini", "mini"]\nalpha = 0.5\nblocks = { M00 = 0.25 }\n'
        'components = ["unet"]\nloras = [{ path = "own.safetensors", weight = 0.5 }]\ndtype = "float16"\n'
        'metadata = { title = "x" }\n',
        encoding="utf-8",
    )
    return [_kind("recipe", "toml", path, lambda path: open_recipe(path, None))]


# Run folders, gates, baselines, calibrations.


def _runs(place: Path) -> list[Kind]:
    folder, other = place / "run", place / "other"
    for path, seed in ((folder, 0), (other, 1)):
        make_folder(path, prompts=6, samples=1, seed=seed)
    reference = freeze(load_run(other))
    found = make_gate(make_verdict("pass"), make_verdict("fail", "mini-clip"))
    info = load_run(folder).info
    found = msgspec.structs.replace(found, run=str(folder), run_id=info.id, protocol_digest=info.protocol_digest)
    (folder / "gate.json").write_text(gate_json(found), encoding="utf-8")

    def use(path: Path) -> None:
        run = load_run(folder)
        deltas = compare_run(run)
        metric_means(run)
        gated(freeze(run), reference)
        view = build_view(run, deltas, gate_of(run))
        html(view)
        markdown(view)

    _answer(folder)
    _find_faces(folder)
    journals = (folder / f"{name}.jsonl" for name in ("renders", "scores", "timings", "answers", "faces"))
    return [
        _kind("run", "json", folder / "run.json", use, slow=True),
        _kind("gate", "json", folder / "gate.json", use, slow=True),
        *(_kind(path.stem, "lines", path, use, slow=True) for path in journals),
    ]


def _votes(place: Path) -> list[Kind]:
    """A voter's file with a check that fits, the key, and the journal that is made of both."""
    folder = place / "voted"
    folder.mkdir()
    run, _ = make_voted(folder, prompts=3, samples=1)
    files = panel(run, folder / "files", 2)
    with RunFolder.reopen(run) as opened:
        add_votes(opened, files)

    def add(path: Path) -> None:
        with RunFolder.reopen(run) as opened:
            add_votes(opened, files)

    def use(path: Path) -> None:
        found = load_run(run)
        freeze(found)
        view = build_view(found, compare_run(found))
        html(view)
        markdown(view)

    return [
        _kind("votes-file", "json", files[0], add, _checked),
        _kind("votes-key", "json", run / "votes.key.json", add),
        _kind("votes", "lines", run / "votes.jsonl", use, slow=True),
    ]


def _checked(rng: random.Random, data: bytes) -> bytes:
    """A file of votes whose check fits what was changed, three times in four."""
    try:
        file = documents.convert(documents.loads(data.decode()), VotesFile)
    except (ValueError, TypeError, RecursionError):
        return data
    check = check_of(file.ballot, file.voter, file.name, file.votes)
    return msgspec.json.encode(msgspec.structs.replace(file, check=check)) if rng.random() < 0.75 else data


def _grids(place: Path) -> list[Kind]:
    found = make_grid_runs(place / "grid", axes={"guidance_scale": ("3", "5")}, prompts=3)
    folder = write_grid(found, place / "grid")

    def use(path: Path) -> None:
        read = load_grid(folder)
        grid_view(read, compare_grid(read, metrics=["mini-clip"]))

    return [_kind("grid", "json", folder / "grid.json", use, slow=True)]


def _answer(folder: Path) -> None:
    """Let a judge have answered a question about every image of a run."""
    info, question = load_run(folder).info, Question(text="Is it?", skill="object")
    prompts = tuple(msgspec.structs.replace(prompt, questions=(question,)) for prompt in info.suite.prompts)
    facts = msgspec.structs.replace(info.metrics[0], name="soft-tifa-am-toy", version="1; toy 1; questions 0123")
    suite = msgspec.structs.replace(info.suite, prompts=prompts)
    info = msgspec.structs.replace(info, suite=suite, metrics=(*info.metrics, facts))
    (folder / "run.json").write_text(documents.dumps(msgspec.to_builtins(info)), encoding="utf-8")
    append_records(
        folder / "answers.jsonl",
        [
            Answer(judge="toy", identity="toy 1", image_sha256=one.sha256, question=question, probability=0.5)
            for one in load_run(folder).renders
            if one.sha256 is not None
        ],
    )


def _find_faces(folder: Path) -> None:
    """Let faces have been found in every image of a run."""
    append_records(
        folder / "faces.jsonl",
        [
            FoundFaces(
                variant=one.variant,
                prompt_id=one.prompt_id,
                sample=one.sample,
                image_sha256=one.sha256,
                detector=DETECTOR,
                asked=FacesAsked(least=2, most=None),
                faces=(Face(x1=1.0, y1=2.0, x2=30.5, y2=40.0, probability=0.95),),
            )
            for one in load_run(folder).renders
        ],
    )


def _sets(place: Path) -> list[Kind]:
    folder = place / "sets"
    with folder_of(folder, ("alignment", *SETS), prompts=6, samples=2) as opened:
        score(opened, registry=fakes().registry)

    def use(path: Path) -> None:
        run = load_run(folder)
        deltas = compare_run(run)
        compare_sets(run, variant_pairs(run.info.suite))
        view = build_view(run, deltas)
        html(view)
        markdown(view)

    return [_kind("sets", "lines", folder / "sets.jsonl", use, slow=True)]


def gated(ours: Baseline, theirs: Baseline) -> None:
    """Gate one side against the other, and write what is written of it."""
    found = check_limits(
        ours,
        theirs,
        like_named(ours, theirs),
        run="here",
        baseline="there",
        baseline_is_run=False,
        time="2025-02-03T04:05:06+00:00",
    )
    gate_json(found)
    junit_xml(found, inconclusive="fail")
    list(github_annotations(found))


def _baselines(place: Path) -> list[Kind]:
    folder = make_folder(place / "accepted", prompts=6, samples=1)
    run = load_run(folder)
    noise = (SessionNoise(name="end_to_end", sd_log_ratio=0.01, sessions=3),)
    accepted = Acceptance(by="Ada", time="2025-01-01T00:00:00+00:00")
    path, calibration = place / "baseline.json", place / "calibration.json"
    write_baseline(freeze(run, acceptance=accepted, session_noise=noise), path)
    ours = freeze(load_run(make_folder(place / "candidate", prompts=6, samples=1, seed=1)))
    write_calibration(
        Calibration(
            schema=SCHEMA,
            kind="hotart-bench calibration",
            suite=run.info.suite.name,
            protocol_digest=run.info.protocol_digest,
            prompts=6,
            samples=1,
            machine=run.info.machine,
            packages=run.info.packages,
            noise=(),
            session_noise=noise,
            notes=(),
            time="2025-01-01T00:00:00+00:00",
        ),
        calibration,
    )
    return [
        _kind("baseline", "json", path, lambda path: gated(ours, read_baseline(path)), _signed),
        _kind("calibration", "json", calibration, lambda path: read_session_noise(path, run.info)),
    ]


def _ledgers(place: Path) -> list[Kind]:
    """A ledger of two entries, the index of a baseline's pictures, and a merged file's recipe as a card reads it."""
    path = place / "ledger.jsonl"
    variants = load_run(place / "accepted").info.variants
    for number in (1, 2):
        append_records(path, [new_entry("tried", f"Number {number}.", files_of(variants), {"run": "r"}, by="Ada")])

    def read(path: Path) -> None:
        for one in read_ledger(path).entries:
            files_text(one)

    pictured = write_run(make_run(place / "pictured", prompts=2, samples=1, variants=("base",)), place / "pictured")
    pictures = keep_pictures(load_run(pictured), ["base"], place / "b.json").folder / "pictures.json"

    def look(path: Path) -> None:
        for file, sha256 in find_pictures(str(place / "b.json"), "fake-0000").files.values():
            with contextlib.suppress(OSError, ImageFileError):
                frozen_bytes(file, sha256)
        read_index(path.parent)

    merged = place / "merged.safetensors"
    recipe = {
        "models": [{"source": "a.safetensors", "files": [{"component": "unet", "sha256": "0" * 64}]}],
        "vae": None,
    }
    recipe |= {"loras": [{"path": "b.safetensors", "sha256": "1" * 64, "weight": 0.5}]}
    save_file({"x": np.zeros(1, np.float32)}, merged, {"hotart.recipe": json.dumps(recipe), "modelspec.license": "mit"})

    def tell(path: Path) -> None:
        variant = Variant(name="v", checkpoint=str(path))
        found = find_sources(variant, msgspec.structs.replace(variants[0], name="v", files=()), None, {})
        work_out([Licensed(one.name, one.licence) for one in found])

    return [
        _kind("ledger", "lines", path, read, _with_id),
        _kind("baseline-pictures", "json", pictures, look),
        _kind("merged-header", "safetensors", merged, tell),
    ]


def _with_id(rng: random.Random, data: bytes) -> bytes:
    """A ledger whose ids fit what was changed in its lines, so that the fields are looked at."""
    lines = []
    for line in data.split(b"\n"):
        try:
            table = documents.loads(line.decode())
            table["id"] = documents.sha256_of(documents.canonical({**table, "id": ""}))
            line = documents.dumps(table).encode()
        except (ValueError, TypeError, RecursionError):
            pass
        lines.append(line)
    return b"\n".join(lines)


def _signed(rng: random.Random, data: bytes) -> bytes:
    """A baseline whose checksum fits what was changed, three times in four: else the checksum is all that is tried."""
    try:
        table = documents.loads(data.decode())
        table["checksum"] = documents.sha256_of(documents.canonical({**table, "checksum": ""}))
    except (ValueError, TypeError, RecursionError):
        return data
    return documents.canonical(table) if rng.random() < 0.75 else data


# What metrics keep, and images.


def _metrics(place: Path) -> list[Kind]:
    lock = weights_lock.lock_path()
    lock.parent.mkdir(parents=True, exist_ok=True)
    digest = {"sha256": "0" * 64, "size_bytes": 3, "recorded": "2025-01-01T00:00:00+00:00"}
    table = {"schema": 1, "files": {"a/b@main/x": digest}, "hashed": {"/x": {**digest, "mtime_ns": 1, "inode": 2}}}
    lock.write_text(json.dumps(table), encoding="utf-8")
    shape = {"vocab_size": 30524, "hidden_size": 768, "encoder_width": 768, "add_cross_attention": True}
    shape |= {"num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu"}
    shape |= {"max_position_embeddings": 512, "layer_norm_eps": 1e-12, "type_vocab_size": 2, "pad_token_id": 0}
    config = place / "med_config.json"
    config.write_text(json.dumps(shape), encoding="utf-8")
    return [
        _kind("lock", "json", lock, lambda path: weights_lock.read_lock()),
        _kind("med-config", "json", config, read_text_shape),
    ]


def _images(place: Path) -> list[Kind]:
    path = place / "picture.png"
    path.write_bytes(_png())
    return [_kind("image", "text", path, probe_image), *_pictures(place)]


def _pictures(place: Path) -> list[Kind]:
    """Pictures with what each program writes into them, and the texts themselves, where more goes wrong."""
    folder = place / "pictures"
    graph = json.dumps(pictures.graph())
    swarm = json.dumps({"sui_image_params": {"prompt": "a fox", "seed": "1", "loras": ["x"], "loraweights": ["1"]}})
    fooocus = json.dumps({"base_model": "x", "full_prompt": ["a"], "loras": [["a", 0.5, "b"]], "resolution": "(8, 8)"})
    invoke = json.dumps(
        {"positive_prompt": "a", "model": {"name": "x"}, "loras": [{"model": {"name": "y"}, "weight": 1}]}
    )
    infotext = pictures.infotext("a fox <lora:x:0.5>", Lora_hashes='"x: 0123456789ab"')
    files = {
        "a1111.png": pictures.a1111(1, infotext),
        "a1111.jpg": pictures.jpeg(pictures.exif(pictures.comment(infotext))),
        "a1111.webp": pictures.webp(pictures.exif(pictures.comment(infotext), big=False)),
    }
    texts = {"graph": ("prompt", graph), "swarm": ("parameters", swarm), "fooocus": ("parameters", fooocus)}
    texts |= {"invoke": ("invokeai_metadata", invoke)}

    def pair(path: Path) -> None:
        read_file(path)
        pair_pictures(read_pictures(path.parent), path.parent)

    def read_as(keyword: str) -> Callable[[Path], object]:
        return lambda path: read_texts({keyword: path.read_bytes().decode("utf-8", "replace")})

    kinds = [
        _kind(f"picture-{name}", "text", pictures.write(folder / name, data), pair) for name, data in files.items()
    ]
    for name, (keyword, text) in texts.items():
        path = pictures.write(folder / f"{name}.json", text.encode())
        kinds.append(_kind(f"picture-{name}", "json", path, read_as(keyword)))
    path = pictures.write(folder / "infotext.txt", infotext.encode())
    return [*kinds, _kind("picture-infotext", "text", path, read_as("parameters"))]


def _png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)).save(file, "PNG")
    return file.getvalue()
