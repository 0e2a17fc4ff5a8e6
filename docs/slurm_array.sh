#!/bin/bash
# A study as a SLURM job array, with no connections between the nodes. docs/cluster.md explains it.
#
#     shards=$(sbatch --parsable --array=1-16 docs/slurm_array.sh 16 experiment=million store_dir=/shared/cells)
#     sbatch --dependency=afterany:$shards docs/slurm_array.sh experiment=million store_dir=/shared/cells
#
# Each job of the array computes every 16th block; the first argument is the number of shards, and
# --array names those to compute. The second command finds the blocks, computes those that are
# missing, and assembles the results.
# Submit from the project's folder with its environment active.
#SBATCH --job-name=em-convergence
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --requeue
set -eu
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    shards=$1
    shift
    set -- "$@" shard="$SLURM_ARRAY_TASK_ID/$shards"
fi
exec python -m pipeline "$@" executor.workers="$SLURM_CPUS_PER_TASK"
