#!/bin/sh
# Writes docker/torch.lock and docker/comfyui.lock anew: every wheel of the image's ComfyUI, by version and hash.
# Needs uv and git. The Python version and ComfyUI's commit are the ones that the Dockerfile names.
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
# what is in torch.lock is a layer of its own, and is not named twice
# shellcheck disable=SC2046  # a word each
lock "$folder/requirements.txt" --constraints torch.lock --output-file comfyui.lock \
	$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' torch.lock)
