#!/usr/bin/env bash
# Train on several GPUs, or on several CPU processes where there is no GPU: tools/dist_train.sh CONFIG GPUS [ARG ...]
# On several machines set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_torchrun.sh" train.py 2 "$@"
