"""hotart-bench."""
