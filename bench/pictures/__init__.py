"""Pictures and the settings that they carry: written into ours, and read from those of other programs."""
