#!/usr/bin/env bash
# Tile a folder of slides by an array of jobs that fill one store: each takes slides that no other holds, and a job that
# is killed loses nothing, its slides are taken over. sbatch examples/slurm_array.sh SLIDES STORE
#SBATCH --job-name=wsicurate
#SBATCH --array=1-16
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=12:00:00
set -euo pipefail

slides=${1:?give the folder of the slides}
store=${2:?give the store}

# 3: done, but some slides failed or were skipped; they are named in the job's log and in the store's runs.
wsicurate tile "$slides" -o "$store" --workers "${SLURM_CPUS_PER_TASK:-1}" || [ $? -eq 3 ]
