"""Labelled images and scenes as published data sets lay them out, and patches of scenes."""
