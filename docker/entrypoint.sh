#!/bin/sh
# `run` (the default) checks the container, downloads models that fit the GPU, and mines; other arguments go to
# xalora-miner. Exit code 78: the container is misconfigured, and a restart does not help.
set -eu

CONFIG_ERROR=78

explain() {
	cat >&2 <<-'TEXT'
		xalora-miner turns this machine's GPU into a worker of the Xalora network.
		Set XALORA_MINER_ID to your EVM address:

		  docker run --detach --name xalora-miner --gpus all --restart unless-stopped --stop-timeout 360 \
		    --env XALORA_MINER_ID=0x… \
		    --volume xalora-models:/models --volume xalora-state:/state \
		    xalora-miner

		  XALORA_MINER_ID    your EVM address: earnings go there; add a -suffix per machine
		  XALORA_API_KEY     the sequencer's API key, if you have one
		  XALORA_WORKFLOWS   workflows to run; default: all that fit the GPU
		  /models            model weights: 0.1 GB for upscaler, 18 GB for wan22-5b, 70 GB for all;
		                     91 GB on a GPU of 32 GB or more without fp8
		  /state             the journal of unanswered tasks, and the history; keep it across upgrades

		Instead of variables: --volume ./config.toml:/etc/xalora-miner/config.toml:ro
		Other commands:       docker run --rm xalora-miner workflows | config | models list | --help
		Every setting:        docs/configure.md
	TEXT
	exit "$CONFIG_ERROR"
}

has_settings() {
	[ -n "${XALORA_MINER_ID:-}${XALORA_CONFIG:-}" ] || [ -f /etc/xalora-miner/config.toml ] || [ -f config.toml ]
}

# An NVIDIA GPU, or WSL's device for one.
has_gpu() {
	[ -e /dev/nvidiactl ] || [ -e /dev/dxg ]
}

# A remote ComfyUI, or one on the CPU, needs no GPU here.
needs_gpu() {
	case ",${XALORA_COMFYUI_ARGS:-}," in *,--cpu,*) return 1 ;; esac
	[ -z "${XALORA_COMFYUI_URL:-}" ]
}

# A torch that fits neither driver nor card: a restart does not help. Otherwise CUDA may start later.
require_torch() {
	code=0
	xalora-miner doctor --torch >&2 || code=$?
	[ "$code" -ne 2 ] || exit "$CONFIG_ERROR"
}

require_writable() {
	[ -w "$1" ] && return
	echo "error: $1 cannot be written by user $(id -u)" >&2
	echo "next:  chown $(id -u):$(id -g) the mounted folder, or mount a named volume" >&2
	exit "$CONFIG_ERROR"
}

pull_models() {
	code=0
	xalora-miner models pull --on-start || code=$?
	case "$code" in
	0) ;;
	1) echo "some models could not be downloaded: continuing with the complete workflows" >&2 ;;
	*) exit "$code" ;;
	esac
}

# a URL replaces the image's ComfyUI
[ -z "${XALORA_COMFYUI_URL:-}" ] || unset XALORA_COMFYUI_HOME

[ "${1:-run}" = run ] || exec xalora-miner "$@"

# --miner-id and --config work too
[ $# -gt 1 ] || has_settings || explain
if needs_gpu && ! has_gpu; then
	echo "error: no GPU in this container: add --gpus all, and install the NVIDIA container toolkit on the host" >&2
	exit "$CONFIG_ERROR"
fi
require_writable "${XALORA_STATE_DIR:-/state}"
if needs_gpu; then require_torch; fi
[ -n "${XALORA_COMFYUI_URL:-}" ] || pull_models
# only for the log: problems may pass, and `run` advertises only runnable workflows
xalora-miner doctor || true
[ $# -gt 0 ] || set -- run
exec xalora-miner "$@"
