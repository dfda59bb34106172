"""Step by step: the predicted image at each denoising step, scored. Importing this imports no torch.

``paths`` draws and scores, ``predicted`` is what a sampler's step predicts, ``scorers`` are the metrics in memory,
``published`` declares SPO's and LPO's models (``preference``, ``latent_reward``), ``plan`` says what a run lacks and
what that costs.
"""
