"""DICOM series in, DICOM segmentations out.

`series.read_series` gives a volume like any other; `segmentations` writes labels on it, and reads them back. Nothing of
pydicom or highdicom (extra `dicom`) is imported before one of them is called for.
"""
