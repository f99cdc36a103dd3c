"""Thin ComfyUI nodes: parse inputs, call core, wrap outputs."""
