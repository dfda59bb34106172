"""LoRA files: parsed, applied to weights, undone, audited."""
