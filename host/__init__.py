"""Runs ComfyUI graphs without ComfyUI: files, validation, execution, stock nodes, command line."""
