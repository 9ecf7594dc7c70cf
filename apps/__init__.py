"""What people start: command-line programs, the demo, the report viewer's sources, cluster launchers."""

import sys
from importlib.util import find_spec

if find_spec("fcntl") is None:
    print(
        "error: native Windows is not supported, as it has no POSIX file locks (fcntl); install and start the program "
        "in WSL 2, which is Linux (wsl --install)",
        file=sys.stderr,
    )
    raise SystemExit(2)
