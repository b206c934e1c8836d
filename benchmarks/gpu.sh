#!/usr/bin/env bash
# All that is to be seen on one GPU, in under ten minutes: the tests marked gpu, the time from the start of the process
# to ConvDeep's test score on MNIST, and the benchmarks. Run it from the repository's root, in an environment with a
# GPU build of torch in which `pip install -e ".[test]"` was done. It has not been run on a GPU yet.
set -euo pipefail
python -c 'import torch; assert torch.cuda.is_available(), "no CUDA device"; print(torch.cuda.get_device_name())'
python -m pytest -m gpu
time timeout 120 rnnx fit --config configs/convdeep.yaml --trainer.max_epochs 5 --trainer.accelerator gpu --trainer.devices 1
timeout 400 python -m benchmarks --device cuda --only recipe train explain --repeats 5
