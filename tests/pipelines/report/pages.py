"""What holds of every page of a report."""

import base64
import hashlib
import re


def scripts_in(page: str) -> list[str]:
    """Scripts that a browser would run; each is allowed by its hash in the page's policy, and nothing else is."""
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(scripts) == len(re.findall(r"<script(?! type=\"(?:application/json|text/plain)\")", page))
    policy = re.search(r"script-src ([^;]*);", page)
    allowed = set(policy[1].split()) if policy else set()
    assert all(re.fullmatch(r"'sha256-[A-Za-z0-9+/=]+'", source) for source in allowed)
    digests = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts}
    assert {f"'sha256-{digest}'" for digest in digests} <= allowed
    return scripts


def verdict_of(page: str) -> dict[str, str]:
    """Number and content hash that a verdict on the page would have; its one script is what saves it."""
    (script,) = scripts_in(page)
    assert "_review.json" in script
    (form,) = re.findall(r'data-report="([^"]*)" data-sha256="([^"]*)"', page)
    return {"id": form[0], "sha256": form[1]}
