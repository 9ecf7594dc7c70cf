"""Spectra of surfaces, measured and from published optics, and what satellites see of them."""
