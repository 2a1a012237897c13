#!/usr/bin/env bash
# Train under Slurm: tools/slurm_train.sh PARTITION JOB CONFIG WORK_DIR [ARG ...]; GPUS, GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS are read.
set -euo pipefail
if [ $# -lt 4 ]; then
  sed -n '2s/^# //p' "$0" >&2
  exit 2
fi
gpus=${GPUS:-8} per_node=${GPUS_PER_NODE:-8}
[ "$per_node" -le "$gpus" ] || per_node=$gpus
# shellcheck disable=SC2086
exec srun --partition="$1" --job-name="$2" --gres="gpu:$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
  --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  "${PYTHON:-python}" -u "$(dirname "${BASH_SOURCE[0]}")/train.py" "$3" --work-dir "$4" --launcher slurm "${@:5}"
