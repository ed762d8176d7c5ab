"""ComfyUI's flags for what the engine does not have (a GPU, a browser, custom nodes): accepted and ignored."""

# fmt: off
SWITCHES = (
    "--auto-launch", "--bf16-text-enc", "--bf16-unet", "--bf16-vae", "--cpu", "--cpu-vae", "--cuda-malloc",
    "--cache-classic", "--debug-hang", "--deterministic", "--disable-all-custom-nodes", "--disable-api-nodes",
    "--disable-async-offload", "--disable-auto-launch", "--disable-cuda-graphs", "--disable-cuda-malloc",
    "--disable-dynamic-vram", "--disable-ipex-optimize", "--disable-manager-ui", "--disable-mmap",
    "--disable-nvml-pressure", "--disable-pinned-memory", "--disable-smart-memory", "--disable-triton-backend",
    "--disable-xformers", "--dont-print-server", "--dont-upcast-attention", "--enable-asset-hashing",
    "--enable-assets", "--enable-compress-response-body", "--enable-dynamic-vram", "--enable-manager",
    "--enable-manager-legacy-ui", "--enable-triton-backend", "--fast-disk", "--force-channels-last", "--force-fp16",
    "--force-fp32", "--force-non-blocking", "--force-upcast-attention", "--fp16-intermediates", "--fp16-text-enc",
    "--fp16-unet", "--fp16-vae", "--fp32-text-enc", "--fp32-unet", "--fp32-vae", "--fp64-unet",
    "--fp8_e4m3fn-text-enc", "--fp8_e4m3fn-unet", "--fp8_e5m2-text-enc", "--fp8_e5m2-unet", "--fp8_e8m0fnu-unet",
    "--gpu-only", "--high-ram", "--highvram", "--lowvram", "--mmap-torch-files", "--multi-user", "--normalvram",
    "--novram", "--supports-fp8-compute", "--use-ck-attention", "--use-flash-attention",
    "--use-pytorch-cross-attention", "--use-quad-cross-attention", "--use-sage-attention",
    "--use-split-cross-attention", "--windows-standalone-build",
)
VALUES = (
    "--cache-lru", "--comfy-api-base", "--cuda-device", "--database-url", "--default-device",
    "--default-hashing-function", "--feature-flag", "--front-end-root", "--front-end-version",
    "--oneapi-device-selector", "--reserve-vram", "--vram-headroom",
)
OPTIONAL_VALUES = (
    "--async-offload", "--directml", "--enable-cors-header",
)
LISTS = (
    "--cache-ram", "--fast", "--whitelist-custom-nodes",
)
# fmt: on
