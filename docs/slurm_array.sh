#!/bin/bash
# A study as a SLURM job array, with no connections between the nodes. docs/cluster.md explains it.
#
#     shards=$(sbatch --parsable --array=1-16 docs/slurm_array.sh experiment=million store_dir=/shared/cells)
#     sbatch --dependency=afterok:$shards docs/slurm_array.sh experiment=million store_dir=/shared/cells
#
# The array computes every 16th block each; the second job finds them all and assembles the results.
# Submit from the project's folder with its environment active.
#SBATCH --job-name=em-convergence
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --requeue
set -eu
shard=${SLURM_ARRAY_TASK_ID:+shard=$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT}
exec python -m pipeline "$@" executor.workers="$SLURM_CPUS_PER_TASK" $shard
