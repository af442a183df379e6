#!/usr/bin/env bash
# What a GPU has to show, unattended, in about ten minutes: the tests of devices, the cost of a step at batch
# 32 and 256 in fp32 and bf16, velocity, memory prediction, a run, and two processes where there are two GPUs.
#
#     bash benchmarks/device.sh [FOLDER]     results go to FOLDER, by default device-results
#
# A part that fails does not stop the others; the exit code is that of the first one that failed.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-device-results}
python=${PYTHON:-python3}
status=0

part() { # part NAME COMMAND...: runs the command, its output in FOLDER/NAME.log
    local name=$1 code
    shift
    "$@" >"$out/$name.log" 2>&1
    code=$?
    echo "$name: exit code $code after $SECONDS s" | tee -a "$out/parts.txt"
    if [ "$code" -ne 0 ]; then
        tail -n 5 "$out/$name.log"
        [ "$status" -ne 0 ] || status=$code
    fi
}

mkdir -p "$out"
part machine "$python" -c "import torch; print(torch.__version__, torch.cuda.get_device_name(0))"
if [ "$status" -ne 0 ]; then
    echo "no GPU that the torch of $python can use" >&2
    exit 1
fi
part tests timeout 180 "$python" -m pytest -q -p no:cacheprovider tests/test_devices.py -k cuda

rows=("frozen su1" "frozen random:0.088" "frontier su1" "train su1" "train random:0.088")
for precision in fp32 bf16; do
    for batch in 32 256; do
        for row in "${rows[@]}"; do
            read -r norm selection <<<"$row"
            name="step-$precision-$batch-$norm-${selection//[:.]/-}"
            part "$name" timeout 60 "$python" -m benchmarks.training_step --device cuda --network mbv2 \
                --image-size 128 --batch-size "$batch" --norm "$norm" --selection "$selection" \
                --precision "$precision" --rounds 15 --variants plain,channels_last,requires_grad,selective \
                --output "$out/$name.json"
        done
    done
done
part velocity timeout 90 "$python" -m benchmarks.velocity --device cuda --images 10,100 \
    --output "$out/velocity.json"
part memory timeout 90 "$python" -m benchmarks.memory_prediction --device cuda
part run timeout 120 "$python" train_classification.py --device cuda --n_epochs 2 --warmup_epochs 1 \
    --run_dir "$out/run"
if [ "$("$python" -c 'import torch; print(torch.cuda.device_count())')" -ge 2 ]; then
    part processes timeout 120 "$python" -m torch.distributed.run --nproc-per-node 2 \
        train_classification.py --device cuda --n_epochs 2 --warmup_epochs 1 --run_dir "$out/run-two"
fi
tar -czf "$out.tar.gz" -C "$(dirname "$out")" "$(basename "$out")"
exit "$status"
