#!/usr/bin/env bash
# What is to be seen on one GPU, in about ten minutes; or some of it, by name:
#
#     bash benchmarks/gpu.sh [tests] [fit] [recurrent] [explain] [train] [long] [compare]
#
# tests: those marked gpu. fit: from the start of the process to ConvDeep's test score on MNIST. recurrent, explain,
# train, long: parts of the benchmarks. compare: experiment 1 with six runs side by side. Run it from the repository's
# root, in an environment with a GPU build of torch in which `pip install -e ".[test]"` was done, with the data at hand
# (RNNX_DATA_DIR).
set -uo pipefail
failed=0

try() { # SECONDS COMMAND...: what fails or takes too long does not keep the rest from being seen
    printf '\n--- %s\n' "${*:2}"
    time timeout "$@" || { echo "FAILED (exit code $?): ${*:2}" >&2; failed=1; }
}

python -c 'import torch; assert torch.cuda.is_available(), "no CUDA device"; print(torch.cuda.get_device_name())' || exit
gpu=(--trainer.accelerator=gpu --trainer.devices=1 --data.evaluation_batch_size=1000)
few_large_steps=(--data.batch_size=400 --optimizer.lr=4e-3 --trainer.max_epochs=8)
rnnx=(python -m rnnx_lightning)
[ $# -gt 0 ] || set -- tests fit recurrent explain train compare
for part in "$@"; do
    case $part in
        tests) try 150 python -m pytest -m gpu -n 8 ;;
        fit) try 60 "${rnnx[@]}" fit --config configs/convdeep.yaml "${few_large_steps[@]}" "${gpu[@]}" ;;
        compare)
            try 240 "${rnnx[@]}" compare --config configs/compare/experiment1.yaml --jobs 6 \
                --options "[$(IFS=,; echo "${gpu[*]}")]"
            ;;
        *) try 120 python -m benchmarks --device cuda --only "$part" --repeats 3 ;;
    esac
done
exit "$failed"
