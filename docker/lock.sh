#!/bin/sh
# Updates the lock files of the image's ComfyUI: every wheel, by version and hash.
#
#   docker/lock.sh         torch.lock and comfyui.lock, from PyPI
#   docker/lock.sh cu126   torch-cu126.lock, with PyTorch's own index for CUDA 12.6; run the first one before
#
# Needs uv and git. Takes the Python version and ComfyUI's commit from the Dockerfile. TORCH_INDEX is a mirror of
# PyTorch's index, if that one is out of reach; the lock file names PyTorch's own.
set -eu
cd "$(dirname "$0")"

arg() { sed -n "s/^ARG $1=//p" Dockerfile; }

cuda=${1:-}
python=$(arg BASE | sed 's/^python:\([0-9]*\.[0-9]*\).*/\1/')
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

lock() {
	uv pip compile --quiet --python-version "$python" --python-platform x86_64-manylinux_2_28 --generate-hashes \
		--no-emit-index-url --only-binary :all: --custom-compile-command "docker/lock.sh${cuda:+ $cuda}" "$@"
}

if [ -n "$cuda" ]; then
	index=https://download.pytorch.org/whl/$cuda
	# comfyui.lock leaves out what torch.lock installs, so this torch needs the same versions of all but CUDA
	sed -n 's/^\([a-z0-9._-]*==[^ ]*\).*/\1/p' torch.lock | grep -Ev '^(torch|triton|cuda|nvidia)' >"$folder/beside.txt"
	lock "torch-$cuda.in" --constraints "$folder/beside.txt" --index "${TORCH_INDEX:-$index}" \
		--index-strategy unsafe-best-match --output-file "$folder/torch.lock"
	{
		echo "--extra-index-url $index"
		sed "s|$folder/beside.txt|torch.lock|" "$folder/torch.lock"
	} >"torch-$cuda.lock"
	exit
fi

lock torch.in --output-file torch.lock

git init --quiet "$folder"
git -C "$folder" fetch --quiet --depth 1 "${COMFYUI_SOURCE:-$(arg COMFYUI_SOURCE)}" "${COMFYUI_COMMIT:-$(arg COMFYUI_COMMIT)}"
git -C "$folder" show FETCH_HEAD:requirements.txt >"$folder/requirements.txt"
cp torch.lock comfyui.lock "$folder"
# packages in torch.lock are in a layer of their own
# shellcheck disable=SC2046  # splits on purpose
(cd "$folder" && lock requirements.txt --constraints torch.lock --output-file comfyui.lock \
	$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' torch.lock))
cp "$folder/comfyui.lock" comfyui.lock
