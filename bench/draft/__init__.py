"""A suite file from checkpoints and LoRAs alone: what flags name -> variants -> TOML. Imports no torch."""
