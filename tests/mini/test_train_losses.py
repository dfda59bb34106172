"""The losses of the training stages, each against its formula written anew."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from bench.mini import models
from bench.mini.train import clip, dpo, spo, step_aware, vae
from bench.mini.train.diffusion import add_noise, alphas_cumprod, predict_guided, predicted_x0
from bench.mini.train.loop import Recipe, dice
from bench.mini.train.preference import pair_loss

FLOATS = st.floats(-3, 3, width=32)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- diffusion -----------------------------------------------------------------------------


def test_adding_noise_and_taking_it_away_are_diffusers_own() -> None:
    scheduler, x0, eps = models.build_scheduler(), noise(3, 16, 8, 8), noise(3, 16, 8, 8, seed=1)
    t, alphas = torch.tensor([1, 500, 999]), alphas_cumprod()
    x = add_noise(x0, eps, t, alphas)
    torch.testing.assert_close(x, scheduler.add_noise(x0, eps, t))
    torch.testing.assert_close(predicted_x0(x, eps, t, alphas), x0, rtol=1e-3, atol=1e-4)


def test_guidance_goes_from_the_zero_embedding_past_the_conditional_prediction() -> None:
    def unet(x: Tensor, t: Tensor, states: Tensor, added_cond_kwargs: dict[str, Tensor], return_dict: bool) -> object:
        assert added_cond_kwargs["time_ids"].shape == (len(x), 6)
        told = states.mean((1, 2)) + 10 * added_cond_kwargs["text_embeds"].mean(1)
        return (x * 0 + told.view(-1, 1, 1, 1) + t.view(-1, 1, 1, 1) / 1000,)

    x, states, pooled = noise(2, 16, 8, 8), torch.ones(2, 24, 192), torch.ones(2, 128)
    found = predict_guided(unet, x, torch.tensor([500, 0]), states, pooled, 3.0)  # type: ignore[arg-type]
    expected = torch.tensor([0.5 + 3 * 11, 3 * 11]).view(-1, 1, 1, 1).expand_as(x)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=0)


# --- dpo -----------------------------------------------------------------------------------


def test_dpo_loss_is_log_2_where_policy_and_reference_agree() -> None:
    errors = noise(8).abs()
    assert float(dpo.loss(errors, errors)) == pytest.approx(math.log(2), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(*[arrays.arrays(np.float64, 6, elements=st.floats(0.0, 2.0)) for _ in range(2)])
def test_dpo_loss_is_that_of_the_paper(policy: np.ndarray, reference: np.ndarray) -> None:
    """The loss of Diffusion-DPO, arXiv 2311.12908, with beta 2000 on mean squared errors; pairs (i, i + 3)."""
    terms = []
    for i in range(3):
        win, lose = policy[i] - reference[i], policy[i + 3] - reference[i + 3]
        z = -(2000 / 2) * (win - lose)
        terms.append(math.log1p(math.exp(-abs(z))) + max(-z, 0.0))
    found = float(dpo.loss(torch.from_numpy(policy), torch.from_numpy(reference)))
    assert found == pytest.approx(sum(terms) / 3, rel=1e-6, abs=1e-9)


def test_dpo_gradient_lowers_the_winners_error_and_raises_the_losers() -> None:
    reference = noise(8).abs()
    policy = reference.clone().requires_grad_()
    dpo.loss(policy, reference).backward()
    assert policy.grad is not None
    assert bool((policy.grad[:4] > 0).all())  # descent goes down in the winner's error
    assert bool((policy.grad[4:] < 0).all())
    torch.testing.assert_close(policy.grad, torch.tensor([1.0] * 4 + [-1.0] * 4) * 2000 / 2 / 2 / 4)


# --- spo -----------------------------------------------------------------------------------


def test_spo_loss_is_log_2_where_policy_and_reference_agree() -> None:
    densities = (noise(5), noise(5, seed=1))
    assert float(spo.loss(densities, densities)) == pytest.approx(math.log(2), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float64, (4, 3), elements=FLOATS))
def test_spo_loss_is_the_clipped_step_wise_one(values: np.ndarray) -> None:
    """The loss of SPO, arXiv 2406.04314, with beta 10, each ratio of densities held to [0.9, 1.1]."""
    win, lose, win_reference, lose_reference = values
    terms = []
    for i in range(3):
        ratios = [
            min(max(math.exp(p - r), 0.9), 1.1) for p, r in ((win[i], win_reference[i]), (lose[i], lose_reference[i]))
        ]
        terms.append(math.log1p(math.exp(-10 * (math.log(ratios[0]) - math.log(ratios[1])))))
    policy, reference = (
        (torch.from_numpy(a), torch.from_numpy(b)) for a, b in ((win, lose), (win_reference, lose_reference))
    )
    assert float(spo.loss(policy, reference)) == pytest.approx(sum(terms) / 3, rel=1e-6)


def test_spo_loss_is_bounded_by_its_clip() -> None:
    far, near = torch.tensor([50.0]), torch.tensor([-50.0])
    best = float(spo.loss((far, near), (near, far)))
    worst = float(spo.loss((near, far), (far, near)))
    ratio = 10 * math.log(1.1 / 0.9)
    assert best == pytest.approx(math.log1p(math.exp(-ratio)), rel=1e-5)
    assert worst == pytest.approx(math.log1p(math.exp(ratio)), rel=1e-5)


@pytest.mark.parametrize(("gap", "moves"), [(0.0, True), (0.05, True), (0.2, False), (-0.2, False)])
def test_spo_gradient_raises_the_winner_and_stops_at_the_clip(gap: float, moves: bool) -> None:
    win, lose = torch.full((1,), gap, requires_grad=True), torch.full((1,), -gap, requires_grad=True)
    spo.loss((win, lose), (torch.zeros(1), torch.zeros(1))).backward()
    assert win.grad is not None
    assert lose.grad is not None
    if moves:
        assert float(win.grad) < 0 < float(lose.grad)
    else:
        assert float(win.grad) == float(lose.grad) == 0


def test_spo_steps_are_diffusers_ddim_with_eta_1() -> None:
    scheduler: DDIMScheduler = models.build_scheduler()
    scheduler.set_timesteps(20)
    steps = spo.schedule(alphas_cumprod())
    assert [step.t for step in steps] == scheduler.timesteps.tolist()
    x, eps, fresh = noise(2, 16, 8, 8), noise(2, 16, 8, 8, seed=1), noise(2, 16, 8, 8, seed=2)
    for step in steps:
        expected = scheduler.step(eps, step.t, x, eta=1.0, variance_noise=fresh).prev_sample
        torch.testing.assert_close(step.mean(x, eps) + step.sigma() * fresh, expected, rtol=1e-4, atol=1e-4)
        middle = scheduler.step(eps, step.t, x, eta=1.0, variance_noise=torch.zeros_like(x)).prev_sample
        torch.testing.assert_close(step.mean(x, eps), middle, rtol=1e-4, atol=1e-4)


def test_log_density_is_that_of_a_normal_averaged_without_its_constant() -> None:
    x, mean, sigma = noise(3, 16, 8, 8), noise(3, 16, 8, 8, seed=1), torch.tensor(0.3)
    normal = torch.distributions.Normal(mean, sigma).log_prob(x).mean((1, 2, 3))
    constant = -math.log(0.3) - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(spo.log_density(x, mean, sigma), normal - constant, rtol=1e-5, atol=1e-5)


def test_thinning_keeps_rows_together_and_about_as_many_as_wished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spo, "PAIRS_A_STEP", 100)
    step = spo.schedule(alphas_cumprod())[5]
    rows = torch.arange(400.0).view(-1, 1)
    kept = [(step, spo.StepPairs(rows, rows, rows + 1, rows + 2, rows + 3, rows + 4))] * 2
    recipe = Recipe(stage="test", iterations=1, batch=1, learning_rate=0.1)
    thinned = spo.thin(kept, dice(recipe, 0))
    assert 60 < sum(len(pairs.x) for _, pairs in thinned) < 140
    for _, pairs in thinned:
        for offset, field in enumerate((pairs.t, pairs.winner, pairs.loser, pairs.states, pairs.pooled)):
            torch.testing.assert_close(field, pairs.x + offset)
    few = [(step, spo.StepPairs(*(field[:5] for field in (rows,) * 6)))]
    assert torch.equal(spo.thin(few, dice(recipe, 1))[0][1].x, rows[:5])
    assert spo.thin([], dice(recipe, 2)) == []


# --- networks ------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float32, (2, 5), elements=FLOATS))
def test_labels_are_ties_within_a_tenth_of_probability(scores: np.ndarray) -> None:
    first, second = torch.from_numpy(scores)
    found = step_aware.labels(first, second).tolist()
    for one, two, label in zip(*scores.astype(float), found, strict=True):
        gap = math.exp(one) / (math.exp(one) + math.exp(two)) - math.exp(two) / (math.exp(one) + math.exp(two))
        if abs(abs(gap) - 0.1) > 1e-6:
            assert label == (0.5 if abs(gap) < 0.1 else float(gap > 0))


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.float64, (2, 4), elements=FLOATS),
    arrays.arrays(np.float64, 4, elements=st.sampled_from([0.0, 0.5, 1.0])),
)
def test_pair_loss_is_the_cross_entropy_of_the_two_way_softmax(scores: np.ndarray, wins: np.ndarray) -> None:
    terms = []
    for one, two, win in zip(*scores, wins, strict=True):
        total = math.exp(one) + math.exp(two)
        terms.append(-win * math.log(math.exp(one) / total) - (1 - win) * math.log(math.exp(two) / total))
    found = float(pair_loss(*(torch.from_numpy(values) for values in (*scores, wins))))
    assert found == pytest.approx(np.mean(terms), rel=1e-6, abs=1e-9)


def test_contrastive_loss_spreads_its_targets_over_all_that_fits() -> None:
    images, texts = (torch.nn.functional.normalize(noise(4, 8, seed=seed)) for seed in (0, 1))
    network = SimpleNamespace(
        embed_images=lambda x: x, embed_tokens=lambda ids: ids, logit_scale=torch.tensor(math.log(20.0))
    )
    fits = torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]])
    logits = 20 * texts.double().numpy() @ images.double().numpy().T

    def cross_entropy(rows: np.ndarray, targets: np.ndarray) -> float:
        terms = []
        for row, target in zip(rows, targets, strict=True):
            log_share = row - math.log(sum(math.exp(value) for value in row))
            terms.append(-(target / target.sum() * log_share).sum())
        return float(np.mean(terms))

    expected = (cross_entropy(logits, fits.numpy()) + cross_entropy(logits.T, fits.numpy().T)) / 2
    found = clip.contrastive(network, images, texts, fits)  # type: ignore[arg-type]
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_contrastive_temperature_is_held_at_100() -> None:
    images = torch.nn.functional.normalize(noise(3, 8))
    losses = [
        float(
            clip.contrastive(
                SimpleNamespace(  # type: ignore[arg-type]
                    embed_images=lambda x: x, embed_tokens=lambda ids: ids, logit_scale=torch.tensor(scale)
                ),
                images,
                images.flip(0),
                torch.eye(3),
            )
        )
        for scale in (4.6, 9.0)
    ]
    assert losses[0] == losses[1]


# --- the autoencoder -----------------------------------------------------------------------


@torch.no_grad()
def test_standardised_latents_have_mean_0_and_deviation_1_and_decode_as_before() -> None:
    torch.manual_seed(0)
    own = models.build_vae().eval()
    own.quant_conv.bias.normal_()
    own.quant_conv.weight.mul_(7)
    x = noise(8, 3, 64, 64, seed=3).clamp(-1, 1)
    before = own.encode(x).latent_dist
    z, decoded = before.mean, own.decode(before.mean).sample
    vae.standardise(own, z)
    after = own.encode(x).latent_dist
    mean, std = after.mean.mean((0, 2, 3)), after.mean.std((0, 2, 3))
    torch.testing.assert_close(mean, torch.zeros(16), rtol=0, atol=1e-4)
    torch.testing.assert_close(std, torch.ones(16), rtol=0, atol=1e-4)
    torch.testing.assert_close(own.decode(after.mean).sample, decoded, rtol=1e-3, atol=1e-4)
    scale = z.std((0, 2, 3)).view(1, -1, 1, 1)
    torch.testing.assert_close(after.std, before.std / scale, rtol=1e-3, atol=1e-6)


def test_vae_loss_is_the_sum_of_its_parts() -> None:
    """L1 + w MSE + 0.5 L1 of differences + 1e-6 KL, for a VAE that answers with fixed numbers."""
    x, y = noise(2, 3, 64, 64), noise(2, 3, 64, 64, seed=1)
    mean, logvar = noise(2, 16, 8, 8, seed=2), noise(2, 16, 8, 8, seed=3)
    posterior = SimpleNamespace(mean=mean, logvar=logvar, var=logvar.exp(), std=(logvar / 2).exp())
    seen: list[Tensor] = []

    def decode(z: Tensor) -> SimpleNamespace:
        seen.append(z)
        return SimpleNamespace(sample=y)

    own = SimpleNamespace(encode=lambda _: SimpleNamespace(latent_dist=posterior), decode=decode)
    recipe = Recipe(stage="test", iterations=1, batch=1, learning_rate=0.1)
    found = float(vae.loss(own, x, dice(recipe, 0), 8.0))  # type: ignore[arg-type]
    a, b = x.double().numpy(), y.double().numpy()
    error = b - a
    edges = (np.abs(np.diff(error, axis=2)).mean() + np.abs(np.diff(error, axis=3)).mean()) / 2
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(mean, posterior.std), normal(0.0, 1.0)).sum((1, 2, 3)).mean()
    expected = np.abs(error).mean() + 8 * (error**2).mean() + 0.5 * edges + 1e-6 * float(kl)
    assert found == pytest.approx(expected, rel=1e-4)
    drawn = torch.randn(2, 16, 8, 8, generator=dice(recipe, 0).torch)
    torch.testing.assert_close(seen[0], mean + posterior.std * drawn)
