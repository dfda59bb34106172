"""The metrics' published weights: where each lies, and what is known of its bytes. Imports no torch.

A sha256 stands here only where it is known from the publisher's own page or from others who measured the file as it is
published. A file without one is trusted at first sight: its hash is recorded in the user's lock file when the file is
first seen, and checked from then on (``bench.published_files``). A commit fixes what is downloaded, but not what lies
in a folder of local weights.
"""

from __future__ import annotations

from bench.errors import UsageError
from bench.formatting import did_you_mean
from bench.published_files import Entry, File

ENTRIES = (
    Entry(
        name="openai-vit-l14",
        what="OpenAI CLIP ViT-L/14, as open_clip takes it",
        host="hub",
        repository="timm/vit_large_patch14_clip_224.openai",
        files=(File(name="open_clip_model.safetensors", about_bytes=1_710_000_000),),
        flat=False,  # LAION's ViT-L/14 has a file of this name and these shapes, and other scores
    ),
    Entry(
        name="aesthetic-v2",
        what="LAION's improved aesthetic predictor",
        host="github",
        repository="christophschuhmann/improved-aesthetic-predictor",
        revision="6934dd81792f086e613a121dbce43082cb8be85e",
        files=(
            File(
                name="sac+logos+ava1-l14-linearMSE.pth",
                sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
                size_bytes=3_714_759,
            ),
        ),
    ),
    Entry(
        name="aesthetic-v1",
        what="LAION's first aesthetic predictor",
        host="github",
        repository="LAION-AI/aesthetic-predictor",
        revision="7e37768a02b0863eac390a702903aaa90ecf938e",
        files=(File(name="sa_0_4_vit_l_14_linear.pth", size_bytes=4_071),),
    ),
    Entry(
        name="nsfw-l14",
        what="LAION's NSFW classifier of ViT-L/14 embeddings",
        host="github",
        repository="LAION-AI/CLIP-based-NSFW-Detector",
        revision="d6bb8fe31fd4aecbfed7dfb62df4fe5858bfc014",
        files=(
            File(
                name="clip_autokeras_binary_nsfw.zip",
                sha256="905520bb0336accc73ee282c605d926aef90cf14248889d44b9cee50eef71f8a",
                size_bytes=1_094_585,
            ),
        ),
    ),
    Entry(
        name="q16-l14",
        what="Q16's two learnt prompts for ViT-L/14",
        host="github",
        repository="ml-research/Q16",
        revision="33de788767bbe33cf77a5f6df931cd86c71f294f",
        files=(
            File(
                name="data/ViT-L-14/prompts.p",
                sha256="9b6c411824c2f64e0f847aa3c9f2b15b8e3a6c75e0efd82f2f672670c97ccad5",
                size_bytes=3_231,
            ),
        ),
        flat=False,
    ),
    Entry(
        name="pickscore",
        what="PickScore v1",
        host="hub",
        repository="yuvalkirstain/PickScore_v1",
        files=(
            File(name="model.safetensors", instead="pytorch_model.bin", about_bytes=3_940_000_000),
            File(name="config.json", about_bytes=5_000),
        ),
        flat=False,
    ),
    Entry(
        name="hpsv2",
        what="Human Preference Score v2",
        host="hub",
        repository="xswu/HPSv2",
        files=(File(name="HPS_v2_compressed.pt", about_bytes=1_970_000_000),),
    ),
    Entry(
        name="hpsv2.1",
        what="Human Preference Score v2.1",
        host="hub",
        repository="xswu/HPSv2",
        files=(File(name="HPS_v2.1_compressed.pt", about_bytes=1_970_000_000),),
    ),
    Entry(
        name="imagereward",
        what="ImageReward",
        host="hub",
        repository="THUDM/ImageReward",
        files=(
            File(
                name="ImageReward.pt",
                sha256="d71dc8d4912bc633c06ab8ef1ef6a81e8199d4369f14b47b29baf1d19de561f6",
                about_bytes=1_790_000_000,
            ),
            File(name="med_config.json", about_bytes=1_000),
        ),
    ),
    Entry(
        name="facescore",
        what="FaceScore",
        host="hub",
        repository="AIGCer-OPPO/FaceScore",
        files=(File(name="FS_model.pt", about_bytes=1_790_000_000), File(name="med_config.json", about_bytes=1_000)),
        flat=False,  # ImageReward has a med_config.json too
    ),
    Entry(
        name="bert-base-uncased",
        what="the vocabulary of ImageReward and FaceScore",
        host="hub",
        repository="google-bert/bert-base-uncased",
        files=(
            File(
                name="vocab.txt",
                sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                size_bytes=231_508,
            ),
        ),
        flat=False,
    ),
    Entry(
        name="spo-step-aware-sdxl",
        what="SPO's step-aware preference model for SDXL",
        host="hub",
        repository="SPO-Diffusion-Models/Step-Aware_Preference_Models",
        files=(File(name="sdxl_step-aware_preference_model.bin", about_bytes=5_220_000_000),),
    ),
    Entry(
        name="spo-step-aware-sd15",
        what="SPO's step-aware preference model for SD 1.5",
        host="hub",
        repository="SPO-Diffusion-Models/Step-Aware_Preference_Models",
        files=(File(name="sd-v1-5_step-aware_preference_model.bin", about_bytes=5_220_000_000),),
    ),
    Entry(
        name="lpo-latent-reward-sdxl",
        what="LPO's latent reward model for SDXL",
        host="hub",
        repository="casiatao/LRM",
        files=tuple(
            File(name=f"lrm_sdxl/{name}")
            for name in (
                "state_dict.pt",
                "unet/config.json",
                "unet/diffusion_pytorch_model.safetensors",
                "text_encoder/config.json",
                "text_encoder/model.safetensors",
                "text_encoder_2/config.json",
                "text_encoder_2/model.safetensors",
            )
        ),
        flat=False,
    ),
    Entry(
        name="lpo-latent-reward-sd15",
        what="LPO's latent reward model for SD 1.5",
        host="hub",
        repository="casiatao/LRM",
        files=tuple(
            File(name=f"lrm_sd15/{name}")
            for name in (
                "state_dict.pt",
                "unet/config.json",
                "unet/diffusion_pytorch_model.safetensors",
                "text_encoder/config.json",
                "text_encoder/model.safetensors",
            )
        ),
        flat=False,
    ),
)
CATALOGUE = {entry.name: entry for entry in ENTRIES}


def find_entry(name: str) -> Entry:
    """The entry of that name.

    Raises:
        UsageError: there is none, since a plug-in's encoder or metric names weights that the catalogue does not have.
    """
    if name not in CATALOGUE:
        near = did_you_mean(name, sorted(CATALOGUE))
        raise UsageError(f"There are no weights {name!r}; there are: {', '.join(sorted(CATALOGUE))}{near}.")
    return CATALOGUE[name]
