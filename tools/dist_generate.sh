#!/usr/bin/env bash
# Write priors by several processes: tools/dist_generate.sh CONFIG CHECKPOINT PROCESSES [ARG ...]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_torchrun.sh" generate_priors.py 3 "$@"
