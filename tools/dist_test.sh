#!/usr/bin/env bash
# Test on several GPUs or CPU processes: tools/dist_test.sh CONFIG CHECKPOINT GPUS [ARG ...]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_torchrun.sh" test.py 3 "$@"
