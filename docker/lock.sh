#!/bin/sh
# Updates docker/torch.lock and docker/comfyui.lock: every wheel of the image's ComfyUI, by version and hash.
# Needs uv and git. Takes the Python version and ComfyUI's commit from the Dockerfile.
set -eu
cd "$(dirname "$0")"

arg() { sed -n "s/^ARG $1=//p" Dockerfile; }

python=$(arg BASE | sed 's/^python:\([0-9]*\.[0-9]*\).*/\1/')
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

git init --quiet "$folder"
git -C "$folder" fetch --quiet --depth 1 "${COMFYUI_SOURCE:-$(arg COMFYUI_SOURCE)}" "${COMFYUI_COMMIT:-$(arg COMFYUI_COMMIT)}"
git -C "$folder" show FETCH_HEAD:requirements.txt >"$folder/requirements.txt"

lock() {
	uv pip compile --quiet --python-version "$python" --python-platform x86_64-manylinux_2_28 --generate-hashes \
		--no-emit-index-url --only-binary :all: --custom-compile-command docker/lock.sh "$@"
}

lock torch.in --output-file torch.lock
# packages in torch.lock are in a layer of their own
# shellcheck disable=SC2046  # splits on purpose
lock "$folder/requirements.txt" --constraints torch.lock --output-file comfyui.lock \
	$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' torch.lock)
