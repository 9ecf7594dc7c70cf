"""Networks for medical images."""
