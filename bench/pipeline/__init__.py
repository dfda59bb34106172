"""From a checkpoint to a diffusers pipeline that is switched between variants, and from prompts to images."""
