#!/usr/bin/env bash
# torch 2.14.1, CPU, float32: a 3-D convolution of one volume may be 18 times slower than of one lying otherwise.
#
# torch hands a convolution to oneDNN where the input is "large", which it finds out by multiplying batch, channels and
# the first two sides of space and comparing with 20480: of a 2-D input that is all of it, of a 3-D one the last side is
# left out. One volume with 8 channels, 18 x 120 x 160 voxels (8 * 18 * 120 = 17280) is unfolded instead, into 27 times
# its size; with 18 x 160 x 120, the same voxels, it is not. So the time of a U-Net depends on which way up a volume
# lies, inner maps (128 channels of 8 x 8 x 8) always take the slow way, and cutting a volume into slabs to save memory
# takes more of both. A batch of two is fast again, and so is bfloat16.
# Seen: 230 ms against 12 ms of one thread for volumes of the same number of voxels; 0.3 GB more at the peak.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "torch==2.14.1" "numpy==2.4.6"
cat > "$folder/see.py" <<'PY'
"""Time and peak of one convolution of volumes of a shape: CPU seconds of one thread, MiB."""

import resource
import sys
import time

import torch

shape = tuple(map(int, sys.argv[1].split("x")))
torch.set_num_threads(1)
convolution, volume = torch.nn.Conv3d(shape[1], 8, 3, padding=1), torch.rand(shape)
seconds = []
with torch.inference_mode():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(4):
        start = time.process_time()
        convolution(volume)
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    operators = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
    with operators:
        convolution(volume)
names = {event.key for event in operators.key_averages()}
way = "oneDNN" if "aten::mkldnn_convolution" in names else "unfolded" if "aten::slow_conv3d_forward" in names else "?"
print(f"{way} {sorted(seconds)[1] * 1000 / shape[0]:.1f} ms a volume, {peak / 1024:.0f} MiB")
PY
see() { "$folder/venv/bin/python" "$folder/see.py" "$1" 2>/dev/null | tail -n 1; }
low=$(see 1x8x18x120x160) high=$(see 1x8x18x160x120) two=$(see 2x8x18x120x160)
echo "torch 2.14.1, one thread, Conv3d of 8 channels to 8, 3x3x3, float32"
echo "1 x 8 x 18 x 120 x 160: $low"
echo "1 x 8 x 18 x 160 x 120: $high"
echo "2 x 8 x 18 x 120 x 160: $two"
[[ $low == unfolded* && $high == oneDNN* && $two == oneDNN* ]] || { echo "the behaviour has changed"; exit 1; }
