"""Palate's science: torch and numpy only, never ComfyUI."""
