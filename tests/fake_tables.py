"""What ``fakes`` is made of: prompts, metrics, timings, and the effects planted in them."""

from __future__ import annotations

from bench.records import Category, TimingName, Unit

EFFECT: dict[str, dict[str, float]] = {
    "dpo": {"mini-aesthetic": 0.30, "mini-preference": 0.55, "saturation": 0.02, "contrast": 0.01},
    "spo": {"mini-aesthetic": 0.62, "mini-preference": 1.10, "saturation": 0.03, "contrast": 0.02},
}
"""What each variant adds to a metric's mean, in the metric's unit."""

PROMPTS = (
    ("a woman with red hair in a green coat, golden hour", ("portrait", "light")),
    ("a lake between mountains at dawn, thin fog", ("landscape",)),
    ("an old man by a window, light from the left", ("portrait",)),
    ("dunes under a full moon, long exposure", ("landscape", "light")),
    ("a dancer 💃 in <b>bold</b> & 'quoted' colours", ("portrait",)),
    ("a lighthouse in a storm, waves over the rocks", ("landscape",)),
    ("two hands holding a cup of tea, close-up", ("portrait", "hands")),
    ("a birch forest in autumn, low sun through the trunks", ("landscape", "light")),
    ("a boy with a straw hat, soft studio light", ("portrait",)),
    ("a village street after rain, neon signs", ("landscape",)),
    ("a violinist on stage, hard rim light, both hands on the instrument", ("portrait", "light", "hands")),
    ("terraced fields seen from above, harvest", ("landscape",)),
)

# name: (axis, higher is better, unit, low, high, mean, spread of prompts, spread of samples)
METRICS: dict[str, tuple[Category, bool | None, str, float | None, float | None, float, float, float]] = {
    "mini-clip": ("alignment", True, "cosine", -1.0, 1.0, 0.61, 0.06, 0.02),
    "mini-aesthetic": ("aesthetic", True, "points", None, None, 5.4, 0.5, 0.15),
    "mini-preference": ("preference", True, "logit", None, None, 18.2, 0.9, 0.3),
    "saturation": ("pixels", None, "share", 0.0, 1.0, 0.41, 0.05, 0.02),
    "contrast": ("pixels", None, "share", 0.0, 1.0, 0.22, 0.03, 0.01),
    "sharpness": ("pixels", None, "share", 0.0, 1.0, 0.08, 0.01, 0.004),
    "clipped": ("pixels", None, "share", 0.0, 1.0, 0.02, 0.004, 0.002),
    "ssim-to-base": ("distance", None, "ssim", -1.0, 1.0, 0.72, 0.05, 0.02),
}

# name: (unit, typical value on a small CPU machine)
TIMINGS: dict[TimingName, tuple[Unit, float]] = {
    "load": ("second", 1.3),
    "first_image": ("second", 0.9),
    "text_encode": ("second", 0.004),
    "denoise_step": ("second", 0.021),
    "vae_decode": ("second", 0.012),
    "end_to_end": ("second", 0.45),
    "peak_rss": ("byte", 612e6),
}
ONCE = ("load", "first_image", "peak_rss")
