"""ComfyUI: speaking to one (client, events), owning one (process), and judging what it can run (preflight)."""
