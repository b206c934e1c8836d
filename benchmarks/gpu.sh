#!/usr/bin/env bash
# All that is to be seen on one GPU, in under ten minutes: the tests marked gpu, the time from the start of the process
# to ConvDeep's test score on MNIST, the benchmarks, and the six runs of experiment 1 side by side: with those of
# experiment 2 there are 14, so that ten folds take at most 10 * 14 / 6 times as long. Run it from the repository's root,
# in an environment with a GPU build of torch in which `pip install -e ".[test]"` was done, with the data at hand
# (RNNX_DATA_DIR). It has not been run on a GPU yet.
set -uo pipefail
failed=0

try() { # SECONDS COMMAND...: what fails or takes too long does not keep the rest from being seen
    printf '\n--- %s\n' "${*:2}"
    time timeout "$@" || { echo "FAILED (exit code $?): ${*:2}" >&2; failed=1; }
}

python -c 'import torch; assert torch.cuda.is_available(), "no CUDA device"; print(torch.cuda.get_device_name())' || exit
gpu=(--trainer.accelerator=gpu --trainer.devices=1 --data.evaluation_batch_size=1000)
few_large_steps=(--data.batch_size=400 --optimizer.lr=4e-3 --trainer.max_epochs=8)
try 90 python -m pytest -m gpu
try 60 rnnx fit --config configs/convdeep.yaml "${few_large_steps[@]}" "${gpu[@]}"
try 260 python -m benchmarks --device cuda --only recipe train explain --repeats 5
try 180 rnnx compare --config configs/compare/experiment1.yaml --jobs 6 --options "[$(IFS=,; echo "${gpu[*]}")]"
exit "$failed"
