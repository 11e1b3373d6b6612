"""The embedded host: the real canvas in a browser, over ComfyUI's HTTP and WebSocket protocol."""
