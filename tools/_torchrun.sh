# Sourced by dist_*.sh: _torchrun.sh TOOL POSITION-OF-THE-COUNT ARG ...
tool=$(dirname "${BASH_SOURCE[0]}")/$1 position=$2
shift 2
if [ $# -lt "$position" ] || ! [[ ${!position} =~ ^[1-9][0-9]*$ ]]; then
  echo "error: argument $position must be the number of processes" >&2
  sed -n '2s/^# //p' "$0" >&2
  exit 2
fi
count=${!position}
# one machine picks a free port by itself, so that two runs do not meet
if [ "${NNODES:-1}" -eq 1 ] && [ -z "${PORT:-}" ]; then
  where=(--standalone)
else
  where=(--nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}")
fi
exec "${PYTHON:-python}" -m torch.distributed.run "${where[@]}" --nproc-per-node "$count" \
  "$tool" "${@:1:position-1}" --launcher pytorch "${@:position+1}"
