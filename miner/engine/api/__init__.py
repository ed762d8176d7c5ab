"""The routes: ComfyUI's, each with and without the prefix `/api`."""
