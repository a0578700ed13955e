#!/bin/bash
#SBATCH --job-name=keras_vit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before the end of the time, or before a preemption, every worker gets SIGTERM, saves and ends with 75.
#SBATCH --signal=TERM@120
#
# sbatch slurm.sh recipes/deit_tiny_i1k.py --out /shared/runs/deit_tiny [ARGUMENTS]
#
# The folder of the run must be on a file system that all nodes share.
set -uo pipefail
PORT=${PORT:-$((20000 + SLURM_JOB_ID % 20000))}
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
addresses=$(printf '"%s:'"$PORT"'", ' "${hosts[@]}")
export CLUSTER="{\"worker\": [${addresses%, }]}"

# One worker a node: SLURM_PROCID counts them in the order of the hosts. srun ends with the highest of their codes: 100 where
# one of them has failed for good, else 75 where there is something to be gone on with (saved, or killed by a signal).
srun --kill-on-bad-exit=0 bash -c '
  export TF_CONFIG="{\"cluster\": $CLUSTER, \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
  trap : TERM  # It is for keras_vit, which gets it too.
  keras_vit train "$@" --set distribution.name=multi_worker
  code=$?
  if [ "$code" -gt 128 ]; then code=75; fi
  case $code in 0 | 75) exit "$code" ;; *) exit 100 ;; esac
' worker "$@"
code=$?
if [ "$code" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "${RESTARTS:-50}" ]; then
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
