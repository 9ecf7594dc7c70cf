"""DICOM series in, DICOM segmentations out.

`series.read_series` returns a volume like any other; `segmentations` writes labels on it and reads them back. Neither
pydicom nor highdicom (extra `dicom`) is imported before one of them is called.
"""
