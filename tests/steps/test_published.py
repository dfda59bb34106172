"""The published step metrics against the official code's scores on seeded weights in the published layouts."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import published_models as published
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.errors import WeightsError
from bench.metrics.declare import Place
from bench.metrics.registry import installed
from bench.steps.latent_reward import SD15, SDXL, load_latent_reward
from bench.steps.preference import load_step_aware

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "step_metrics.json").read_text())
PROMPTS = {
    "fox": "a red fox in the snow",
    "over77": "an oil painting of a harbour at dawn, "
    + ", ".join(
        f"{what} {where}"
        for what in ("boats", "gulls", "nets", "masts", "ropes", "lamps")
        for where in ("in the mist", "near the pier", "under a pale sky")
    )
    + ", highly detailed",
    "empty": "",
}
KINDS = {"sdxl": SDXL, "sd15": SD15}


def cases(name: str) -> list[tuple[str, str, float, float]]:
    return [(*key.split("|")[:2], float(key.split("|")[2]), value) for key, value in GOLDEN["scores"][name].items()]


def largest_error(model, name: str, seen) -> float:
    errors = []
    for what, prompt, timestep, wanted in cases(name):
        found = model.score(torch.from_numpy(seen(what))[None], torch.tensor([timestep]), [PROMPTS[prompt]])
        errors.append(abs(float(found) - wanted))
    return max(errors)


# SPO's step-aware preference model.


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published.write_spm(tmp_path_factory.mktemp("spm"))


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return published.tensors(published.spm_state())


def test_spm_scores_as_the_official_code(spm):
    model = load_step_aware(spm, Place())
    assert largest_error(model, "spm", published.picture) <= GOLDEN["tolerance"]["spm"]


def test_spm_scores_a_batch_as_one_by_one(spm):
    model = load_step_aware(spm, Place())
    pictures = torch.stack([torch.from_numpy(published.picture("noise_320x320"))] * 3)
    times, prompts = torch.tensor([101.0, 501.0, 901.0]), list(PROMPTS.values())
    together = model.score(pictures, times, prompts)
    alone = [float(model.score(pictures[:1], times[n : n + 1], prompts[n : n + 1])) for n in range(3)]
    assert together.tolist() == pytest.approx(alone, abs=1e-4)
    assert list(model.truncated(prompts)) == [False, True, False]


def test_spm_in_other_layouts_scores_the_same(spm, state, tmp_path):
    ids = torch.arange(77)[None]
    old = published.write_spm(tmp_path / "old", {**state, "model.text_model.embeddings.position_ids": ids})
    plain = published.write_spm(tmp_path / "plain", {k.removeprefix("model."): v for k, v in state.items()})
    safe = tmp_path / "safe" / "model.safetensors"
    safe.parent.mkdir()
    save_file(state, safe)
    (safe.parent / "config.json").write_text(json.dumps(published.clip_config()))
    for file in (old, plain, safe):
        assert largest_error(load_step_aware(file, Place()), "spm", published.picture) <= GOLDEN["tolerance"]["spm"]


class RunsCode:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle ran code')",)


BROKEN = {
    "no adaLN": lambda state: state.pop("model.vision_model.encoder.layers.1.adaLN_modulation.1.bias"),
    "no time": lambda state: state.pop("model.t_embedder.mlp.2.weight"),
    "narrow": lambda state: state.update(
        {(key := "model.vision_model.encoder.layers.2.adaLN_modulation.1.weight"): state[key][:, :48].clone()}
    ),
    "other places": lambda state: state.update(
        {"model.text_model.embeddings.position_ids": torch.arange(77).flip(0)[None]}
    ),
    "a fourth layer": lambda state: state.update(
        {"model.vision_model.encoder.layers.3.adaLN_modulation.1.bias": torch.zeros(384)}
    ),
    "unknown": lambda state: state.update({"model.extra.weight": torch.ones(2, 2)}),
    "nan": lambda state: state.update({"model.t_embedder.mlp.0.bias": torch.full((64,), float("nan"))}),
    "inf": lambda state: state.update({"model.t_embedder.mlp.0.bias": torch.full((64,), float("inf"))}),
    "code": lambda state: state.update({"hook": RunsCode()}),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_spm_that_is_not_whole_is_refused(fault, state, tmp_path):
    broken = dict(state)
    BROKEN[fault](broken)
    with pytest.raises(WeightsError, match=published.SPM_FILE):
        load_step_aware(published.write_spm(tmp_path, broken), Place())


def test_spm_files_that_are_none_are_refused(spm, tmp_path):
    whole = spm.read_bytes()
    plain_clip = published.tensors({f"model.{key}": value for key, value in published.clip_state().items()})
    for data in (whole[: len(whole) // 2], b"", b"version https://git-lfs", pickle.dumps({"x": RunsCode()})):
        file = published.write_spm(tmp_path)
        file.write_bytes(data)
        with pytest.raises(WeightsError):
            load_step_aware(file, Place())
    with pytest.raises(WeightsError, match="adaLN"):
        load_step_aware(published.write_spm(tmp_path, plain_clip), Place())
    config = published.clip_config()
    config["vision_config"]["hidden_size"] = 96
    with pytest.raises(WeightsError, match="another shape"):
        load_step_aware(published.write_spm(tmp_path, config=config), Place())


# LPO's latent reward models.


@pytest.fixture(scope="module", params=KINDS)
def lrm(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, published.write_lrm(tmp_path_factory.mktemp("lrm") / request.param, request.param)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_lrm_scores_as_the_official_code(lrm, dtype):
    kind, folder = lrm
    name = f"lrm_{kind}" + ("_fp16" if dtype == "float16" else "")
    model = load_latent_reward(folder, KINDS[kind], Place(dtype=dtype))
    assert largest_error(model, name, lambda _: published.latent()) <= GOLDEN["tolerance"][name]


def test_lrm_with_a_plain_number_for_its_scale_scores_the_same(lrm, tmp_path):
    kind, folder = lrm
    state = torch.load(folder / "state_dict.pt", weights_only=True)
    copy = tmp_path / "copy"
    copy.mkdir()
    for part in folder.iterdir():
        if part.is_dir():
            (copy / part.name).symlink_to(part)
    torch.save({**state, "logit_scale": 4.25}, copy / "state_dict.pt")
    model = load_latent_reward(copy, KINDS[kind], Place())
    assert largest_error(model, f"lrm_{kind}", lambda _: published.latent()) <= GOLDEN["tolerance"][f"lrm_{kind}"]


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published.write_lrm(tmp_path_factory.mktemp("whole") / "lrm", "sdxl")


def heads_without(name):
    return lambda state: state.pop(name)


def weight_with(edit):
    def change(state):
        state["visual_projection"] = {"weight": edit(state["visual_projection"]["weight"].clone())}

    return change


def with_nan(weight):
    weight[3, 7] = float("nan")
    return weight


HEADS = {
    "no projection": heads_without("visual_projection"),
    "no scale": heads_without("logit_scale"),
    "one scale alone": weight_with(lambda weight: weight[:, -96:].contiguous()),
    "wider": weight_with(lambda weight: torch.cat([weight, weight[:, :32]], dim=1)),
    "nan": weight_with(with_nan),
    "nan scale": lambda state: state.update(logit_scale=float("nan")),
    "code": lambda state: state.update(hook=RunsCode()),
    "of SD 1.5": lambda state: state.update(text_projection={"weight": torch.zeros(48, 48)}),
}


def linked(folder: Path, into: Path) -> Path:
    """A copy whose parts are links, so that one can be taken out."""
    into.mkdir()
    for path in folder.iterdir():
        (into / path.name).symlink_to(path)
    return into


@pytest.mark.parametrize("fault", HEADS)
def test_lrm_with_broken_heads_is_refused(fault, sdxl, tmp_path):
    copy = linked(sdxl, tmp_path / "copy")
    state = torch.load(copy / "state_dict.pt", weights_only=True)
    (copy / "state_dict.pt").unlink()
    HEADS[fault](state)
    torch.save(state, copy / "state_dict.pt")
    with pytest.raises(WeightsError):
        load_latent_reward(copy, SDXL, Place())


@pytest.mark.parametrize("part", ["state_dict.pt", "text_encoder", "text_encoder_2", "unet"])
def test_lrm_without_a_part_is_refused(part, sdxl, tmp_path):
    copy = linked(sdxl, tmp_path / "copy")
    (copy / part).unlink()
    with pytest.raises(WeightsError):
        load_latent_reward(copy, SDXL, Place())


@pytest.mark.parametrize(
    ("part", "edit"),
    [
        ("unet/diffusion_pytorch_model", lambda state: state.pop("mid_block.attentions.0.proj_in.weight")),
        ("unet/diffusion_pytorch_model", lambda state: state["mid_block.resnets.0.conv1.bias"].fill_(float("nan"))),
        ("unet/diffusion_pytorch_model", lambda state: state.update({"extra.weight": torch.ones(2)})),
        ("text_encoder/model", lambda state: state.pop("text_model.encoder.layers.1.mlp.fc2.weight")),
    ],
)
def test_lrm_with_a_broken_network_is_refused(part, edit, sdxl, tmp_path):
    folder, name = part.split("/")
    copy = linked(sdxl, tmp_path / "copy")
    (copy / folder).unlink()
    linked(sdxl / folder, copy / folder)
    file = copy / folder / f"{name}.safetensors"
    state = load_file(file)
    file.unlink()
    edit(state)
    save_file(state, file)
    with pytest.raises(WeightsError):
        load_latent_reward(copy, SDXL, Place())


# As they are declared.


def test_every_published_model_is_found_where_its_files_lie(spm, sdxl, tmp_path):
    spo = tmp_path / "SPO-Diffusion-Models" / "Step-Aware_Preference_Models"
    spo.mkdir(parents=True)
    (spo / spm.name).symlink_to(spm)
    (spo / "config.json").symlink_to(spm.with_name("config.json"))
    (tmp_path / "casiatao").mkdir()
    linked(sdxl.parent, tmp_path / "casiatao" / "LRM")
    (tmp_path / "casiatao" / "LRM" / "lrm").rename(tmp_path / "casiatao" / "LRM" / "lrm_sdxl")
    for name, seen in (
        ("spo-step-aware-sdxl", published.picture("noise_320x320")),
        ("lpo-latent-reward-sdxl", published.latent()),
    ):
        metric = installed().step_metrics[name]
        model = metric.load(Place(weights_dir=tmp_path))
        score = model.score(torch.from_numpy(seen)[None], torch.tensor([101.0]), ["a red fox in the snow"])
        assert score.isfinite().all()
        assert metric.families == ("sdxl",)
