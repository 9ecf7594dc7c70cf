#!/usr/bin/env bash
# openvino 2026.4.1 with openvino-telemetry 2025.2.0: `import openvino` reports its use to a web service, unasked.
#
# The wheel requires openvino-telemetry, and the package's tools start it when `openvino` is imported, though a program
# only wants to run a model. Nothing asks first: the dialogue for consent is switched off for imports, and a home without
# an opt-out file counts as consent. Seen, with an empty home and the function that opens addresses replaced by one that
# notes what it is given: the process is forked (from a thread of a pool, whatever other threads and libraries hold at
# that moment), the child would post one event with a client's identity to www.google-analytics.com, and a folder
# `intel` with that identity and a count of imports is made in the home. Where `openvino_telemetry` cannot be imported,
# as with None in `sys.modules`, openvino does the same without it: no event, no folder, no fork.
# It matters in hospitals, on clusters without a network, and wherever a process must not fork once it has threads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "openvino==2026.4.1" "openvino-telemetry==2025.2.0"
cat > "$folder/see.py" <<'PY'
"""Import openvino, and say what was made in the home, which addresses were opened, and whether the process was forked."""

import os
import sys
import time
import urllib.request
from pathlib import Path

notes, blocked = Path(sys.argv[1]), sys.argv[2] == "without"
forks: list[int] = []


def note(request: urllib.request.Request, *_: object, **__: object) -> None:
    event = request.data.decode() if isinstance(request.data, bytes) else ""
    notes.write_text(f"{request.host} {'client_id' in event} {os.getpid() != parent}\n")


parent = os.getpid()
urllib.request.urlopen = note
os.register_at_fork(after_in_parent=lambda: forks.append(1))
if blocked:
    sys.modules["openvino_telemetry"] = None
import openvino  # noqa: E402

for _ in range(50):
    if notes.exists() or blocked:
        break
    time.sleep(0.2)
home = sorted(path.relative_to(Path.home()).as_posix() for path in Path.home().rglob("*"))
print("openvino", openvino.__version__.partition("-")[0], "| in the home:", home, "| forks:", len(forks))
print("opened (host, with a client's identity, in a child):", notes.read_text().strip() if notes.exists() else "nothing")
PY
for how in with without; do
  mkdir "$folder/home-$how"
  env -u CI HOME="$folder/home-$how" "$folder/venv/bin/python" "$folder/see.py" "$folder/notes-$how" "$how" \
    | sed "s/^/$how telemetry: /" | tee "$folder/seen-$how"
done
grep -q "www.google-analytics.com True True" "$folder/seen-with" || { echo "the behaviour has changed"; exit 1; }
grep -q "intel/openvino_ga_cid" "$folder/seen-with" || { echo "the behaviour has changed"; exit 1; }
grep -q "in the home: \[\] | forks: 0" "$folder/seen-without" || { echo "the behaviour has changed"; exit 1; }
grep -q "nothing" "$folder/seen-without" || { echo "the behaviour has changed"; exit 1; }
