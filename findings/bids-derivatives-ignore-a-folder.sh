#!/usr/bin/env bash
# The BIDS validator (bids-validator-deno 3.0.2): a folder in `.bidsignore` as `reports/` is not ignored.
#
# `.bidsignore` follows the rules of `.gitignore`, in which `reports/` stands for a folder and all it holds. Seen: with
# `reports/` alone, a derivative with that folder has an error for each of them; with `reports` and `reports/`, none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "bids-validator-deno==3.0.2" "deno==2.9.8"

data=$folder/derivative
mkdir -p "$data/reports"
cat > "$data/dataset_description.json" <<'JSON'
{"Name": "maps", "BIDSVersion": "1.10.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "maps"}]}
JSON
echo "A derivative with a folder of pages." > "$data/README.md"
echo "<p>page</p>" > "$data/reports/page.html"

errors() {
  printf '%s\n' "$@" > "$data/.bidsignore"
  PATH="$folder/venv/bin:$PATH" "$folder/venv/bin/bids-validator-deno" "$data" --json 2> /dev/null > "$folder/said" || true
  "$folder/venv/bin/python" - "$folder/said" <<'PY'
import json
import sys

text = open(sys.argv[1], encoding="utf-8").read()
issues = json.loads(text[text.index("{") :])["issues"]["issues"]
print(sorted({f"{issue['code']} {issue.get('location', '')}" for issue in issues if issue["severity"] == "error"}))
PY
}

slash=$(errors "reports/")
both=$(errors "reports" "reports/")
echo "bids-validator-deno 3.0.2"
echo ".bidsignore has 'reports/':               $slash"
echo ".bidsignore has 'reports' and 'reports/': $both"
[[ $slash == *reports* ]] || { echo "the behaviour has changed"; exit 1; }
[[ $both == "[]" ]] || { echo "the behaviour has changed"; exit 1; }
