#!/bin/sh
# What the image runs: `run` (the default) looks at what it was given, fetches the models that fit the GPU, and mines;
# any other words go to xalora-miner as they are. Exit code 78: the container was started wrongly, and a restart is no cure.
set -eu

CONFIG_ERROR=78

explain() {
	cat >&2 <<-'TEXT'
		xalora-miner turns this machine's GPU into a worker of the Xalora network.
		It needs to know who earns: XALORA_MINER_ID is not set.

		  docker run --detach --name xalora-miner --gpus all --restart unless-stopped --stop-timeout 360 \
		    --env XALORA_MINER_ID=0x… \
		    --volume xalora-models:/models --volume xalora-state:/state \
		    xalora-miner

		  XALORA_MINER_ID    the EVM address that your earnings go to; with -name behind it for one of several machines
		  XALORA_API_KEY     the sequencer's key, if it gave one to you
		  XALORA_WORKFLOWS   names of the workflows to run; default: those that the GPU has memory for
		  /models            the weights: 0.1 GB for upscaler, 18 GB for wan22-5b, 109 GB for all
		  /state             the journal: what was taken and not yet answered, and the history; keep it over upgrades

		Instead of variables: --volume ./config.toml:/etc/xalora-miner/config.toml:ro
		Other commands:       docker run --rm xalora-miner workflows | config | models list | --help
		Every setting:        docs/configure.md
	TEXT
	exit "$CONFIG_ERROR"
}

has_settings() {
	[ -n "${XALORA_MINER_ID:-}${XALORA_CONFIG:-}" ] || [ -f /etc/xalora-miner/config.toml ] || [ -f config.toml ]
}

# A card of NVIDIA's, or WSL's door to one.
has_gpu() {
	[ -e /dev/nvidiactl ] || [ -e /dev/dxg ]
}

# A ComfyUI elsewhere, or on the CPU, needs no card here.
needs_gpu() {
	case ",${XALORA_COMFYUI_ARGS:-}," in *,--cpu,*) return 1 ;; esac
	[ -z "${XALORA_COMFYUI_URL:-}" ]
}

require_writable() {
	[ -w "$1" ] && return
	echo "error: $1 cannot be written by the user $(id -u)" >&2
	echo "next:  chown $(id -u):$(id -g) the folder that is mounted there, or mount a named volume" >&2
	exit "$CONFIG_ERROR"
}

pull_models() {
	code=0
	xalora-miner models pull --on-start || code=$?
	case "$code" in
	0) ;;
	1) echo "not every model could be had: going on with the workflows that are complete" >&2 ;;
	*) exit "$code" ;;
	esac
}

# the image's own ComfyUI is the default, and a URL means another one
[ -z "${XALORA_COMFYUI_URL:-}" ] || unset XALORA_COMFYUI_HOME

[ "${1:-run}" = run ] || exec xalora-miner "$@"

# --miner-id and --config say it as well
[ $# -gt 1 ] || has_settings || explain
if needs_gpu && ! has_gpu; then
	echo "error: no GPU in this container: start it with --gpus all, on a host with the NVIDIA container toolkit" >&2
	exit "$CONFIG_ERROR"
fi
require_writable "${XALORA_STATE_DIR:-/state}"
[ -n "${XALORA_COMFYUI_URL:-}" ] || pull_models
# for the log alone: what is wrong now may be well in a minute, and `run` offers only what runs
xalora-miner doctor || true
[ $# -gt 0 ] || set -- run
exec xalora-miner "$@"
