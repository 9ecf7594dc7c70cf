"""Report pages: one self-contained HTML file each, readable offline and without scripts."""
